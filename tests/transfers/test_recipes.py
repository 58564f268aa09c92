"""Every block of docs/transfers.md and docs/recipes.md runs, each as a separate program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("transfers.md", "recipes.md"))
BLOCKS = re.findall(r"^(#+ [^\n]*)$|^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def programs() -> list[tuple[str, str]]:
    found, heading = [], ""
    for title, block in BLOCKS:
        heading = title.lstrip("# ") or heading
        if block:
            found.append((heading, block))
    return found


@pytest.mark.parametrize(("heading", "block"), programs(), ids=[heading for heading, _ in programs()])
def test_a_block_of_the_documentation_runs(heading: str, block: str) -> None:
    if "anyio" in heading:
        pytest.importorskip("anyio")
        pytest.importorskip("trio")
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_the_blocks_that_users_look_for_are_there() -> None:
    headings = {heading for heading, _ in programs()}
    assert {"asyncio and uvloop", "trio and anyio", "Pickle protocol 5 over a socket, as one vector"} <= headings
    assert len(programs()) >= 7
