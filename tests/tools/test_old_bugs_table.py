"""The table of old bugs names each test of an old bug, and no others."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = ROOT / "docs" / "old_bugs.md"
ROW = re.compile(r"^\| (\d\d) \| (.+?) \| (.+?) \| `(.+?)` \|$", re.MULTILINE)


def rows() -> dict[str, str]:
    """The tests of each bug: a file with tests that have its number, or the name of a Rust test."""
    found = ROW.findall(TABLE.read_text(encoding="utf-8"))
    assert len({number for number, *_ in found}) == len(found)
    return {number: held_by for number, _, _, held_by in found}


def test_the_numbers_have_no_gap() -> None:
    assert list(rows()) == [f"{number:02}" for number in range(1, 37)]


def test_every_bug_is_held_by_the_tests_of_its_number() -> None:
    files = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for number in re.findall(r"^def test_bug_(\d\d)_", path.read_text(encoding="utf-8"), re.MULTILINE):
            files[number].add(str(path.relative_to(ROOT)))
    in_python = {number: {held_by} for number, held_by in rows().items() if held_by.endswith(".py")}
    assert files == in_python


def test_the_rust_tests_it_names_are_there() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs"))
    named = [held_by for held_by in rows().values() if not held_by.endswith(".py")]
    assert len(named) == 2
    assert all(re.search(rf"#\[test\]\nfn {name}\(\)", tests) for name in named)


def test_a_commit_is_twelve_hexadecimal_digits() -> None:
    known = [known_as for _, _, known_as, _ in ROW.findall(TABLE.read_text(encoding="utf-8"))]
    assert all(re.fullmatch("[0-9a-f]{12}", name) for each in known for name in re.findall(r"`(.+?)`", each))
