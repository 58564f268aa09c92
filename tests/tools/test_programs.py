"""Every Python block of the README and of the documentation runs, each as a program of its own, and does what its
comments say.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^(#+ [^\n]*)$|^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VALUE = r"[-0-9]+|True|False|None|<.+>|b?'.*'|\[.*\]|\w*\(.+\)"
CLAIM = re.compile(rf"^ *(.+?)  # ({VALUE})(?::|$)")
"""A line of a program that says what its expression comes to. Three dots stand for anything."""


LEAST_CLAIMS = {"README.md": 2, "guard.md": 1, "integrity.md": 2, "log.md": 1, "slot.md": 2}
"""How many lines of each program of a page say what they come to, at least."""


class Program(NamedTuple):
    page: str
    heading: str
    text: str


def programs_of(page: Path) -> list[Program]:
    found, heading = [], ""
    for title, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        heading = title.lstrip("# ") or heading
        if text:
            found.append(Program(page.name, heading, text))
    return found


PROGRAMS = [program for page in PAGES for program in programs_of(page)]


def claims_checked(program: Program, folder: Path) -> int:
    """Runs the program, and compares what its expressions come to with what it says. Returns their number."""
    lines, claims = [], []
    for line in program.text.splitlines():
        claim = CLAIM.match(line)
        if claim is None:
            lines.append(line)
        else:
            indent = line[: len(line) - len(line.lstrip())]
            lines.append(f"{indent}print(repr(({claim[1]})))")
            claims.append(claim[2])
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert len(printed) == len(claims)
    for said, came in zip(claims, printed, strict=True):
        assert re.fullmatch(re.escape(said).replace(r"\.\.\.", ".*"), came), (said, came)
    return len(claims)


@pytest.mark.parametrize("program", PROGRAMS, ids=[f"{program.page}: {program.heading}" for program in PROGRAMS])
def test_a_program_of_the_documentation_does_what_it_says(program: Program, tmp_path: Path) -> None:
    if "anyio" in program.heading:
        pytest.importorskip("anyio")
        pytest.importorskip("trio")
    checked = claims_checked(program, tmp_path)
    assert checked >= LEAST_CLAIMS.get(program.page, 0)


def test_a_comment_that_is_wrong_is_found(tmp_path: Path) -> None:
    assert claims_checked(Program("", "", "1 + 1  # 2\n[3], 4  # ([3], 4): both\n"), tmp_path) == 2
    with pytest.raises(AssertionError):
        claims_checked(Program("", "", "1 + 1  # 3\n"), tmp_path)


def test_the_readme_begins_with_four_programs() -> None:
    assert [program.heading for program in PROGRAMS if program.page == "README.md"] == [
        "The crash that does not happen",
        "Any code over a file that may be truncated",
        "Writes that are durable when they return",
        "The cursor",
    ]


def test_the_programs_that_users_look_for_are_there() -> None:
    headings = {program.heading for program in PROGRAMS}
    assert {"asyncio and uvloop", "trio and anyio", "Pickle protocol 5 over a socket, as one vector"} <= headings
    pages = [program.page for program in PROGRAMS]
    assert pages.count("transfers.md") + pages.count("recipes.md") >= 7
    assert {"guard.md", "integrity.md", "log.md", "slot.md"} <= set(pages)
