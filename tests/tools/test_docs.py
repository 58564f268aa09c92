"""The files that ARCHITECTURE.md names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MAP = ROOT / "ARCHITECTURE.md"
LONGEST = 150
HOMES = ("", "src", "src/fault", "src/copy", "src/py", "python/iovec_rs", "tests", "tests/support", "tests/guest")
"""The folders that a name may be relative to."""
PAGES = [f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))]
FILE = re.compile(r"`([\w./-]+(?:\.rs|\.py|\.pyi|\.md|/))`")


def test_the_map_fits_on_a_few_screens() -> None:
    assert len(MAP.read_text(encoding="utf-8").splitlines()) <= LONGEST


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", *PAGES])
def test_every_file_that_is_named_is_there(document: str) -> None:
    named = set(FILE.findall((ROOT / document).read_text(encoding="utf-8")))
    missing = {name for name in named if not any((ROOT / home / name).exists() for home in HOMES)}
    missing -= {name for name in missing if name.startswith("target/")}
    assert not missing


@pytest.mark.parametrize("document", ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "benches/README.md", *PAGES])
def test_links_lead_somewhere(document: str) -> None:
    place = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", place.read_text(encoding="utf-8"))
    assert all((place.parent / link).exists() for link in links if link)
