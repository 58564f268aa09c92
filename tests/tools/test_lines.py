"""No line of Rust, of Python, or of a code block in a document is longer than 120 columns."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LONGEST = 120
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def lines(path: Path) -> list[tuple[int, str]]:
    """The numbered lines that must not be too long: of a Markdown document, only those of code blocks."""
    text = path.read_text(encoding="utf-8")
    numbered = list(enumerate(text.splitlines(), 1))
    if path.suffix != ".md":
        return numbered
    fenced = [
        range(text.count("\n", 0, found.start()) + 1, text.count("\n", 0, found.end()) + 2)
        for found in FENCE.finditer(text)
    ]
    return [(number, line) for number, line in numbered if any(number in each for each in fenced)]


def too_long(path: Path) -> list[str]:
    return [
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name}:{number}"
        for number, line in lines(path)
        if len(line) > LONGEST
    ]


def test_a_line_that_is_too_long_is_found(tmp_path: Path) -> None:
    file = tmp_path / "x.md"
    file.write_text(f"{'a' * 130}\n```\n{'b' * 120}\n{'c' * 121}\n```\n{'d' * 130}\n", encoding="utf-8")
    assert too_long(file) == ["x.md:4"]


def test_no_line_is_too_long() -> None:
    kept = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.rs", "*.py", "*.pyi", "*.md"]
    listed = subprocess.run(kept, cwd=ROOT, capture_output=True, check=False).stdout.decode().split("\0")
    paths = [ROOT / name for name in listed if name] or [*ROOT.glob("src/**/*.rs"), *ROOT.glob("tests/**/*.py")]
    assert len(paths) > 100
    assert [place for path in paths if path.exists() for place in too_long(path)] == []
