"""Every block of docs/transfers.md runs, each as a program of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "transfers.md"
BLOCKS = re.findall(r"^(#+ [^\n]*)$|^```python\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


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


def test_there_are_blocks_for_what_is_promised() -> None:
    headings = {heading for heading, _ in programs()}
    assert {"asyncio and uvloop", "trio and anyio", "Pickle protocol 5 over a socket, as one vector"} <= headings
    assert len(programs()) >= 7
