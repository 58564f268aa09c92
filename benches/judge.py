"""``... | python -m benches.judge``: what the native bench prints, with targets and verdicts, and how many of each."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

from iovec_rs._bench.report import host

from benches import records, targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

QUICK = "quick"
"""How the line begins by which the native bench tells that it is too short to be judged."""
WIDTH = 8


def judged(lines: Iterable[str], family: str) -> Iterator[str]:
    """The same lines, those of a table once all of it is there, with targets and verdicts; and the counts."""
    counts: Counter[str] = Counter()
    before, is_quick = "", False
    block: list[str] | None = None
    title = ""

    def close() -> Iterator[str]:
        if block:
            yield from _table(title, block, family, is_quick, counts)

    for line in (line.rstrip() for line in lines):
        is_quick |= line.startswith(QUICK)
        if records.is_head(line):
            title, block = before, [line]
        elif block is not None and line:
            block.append(line)
        else:
            yield from close()
            block = None
            yield line
        before = line
    yield from close()
    yield ""
    shown = ", ".join(f"{count} {word}" for word, count in sorted(counts.items()))
    yield f"targets: {shown or 'not judged'}"


def _table(title: str, block: list[str], family: str, is_quick: bool, counts: Counter[str]) -> Iterator[str]:
    table = records.Table(title)
    lines = block[1:]
    for line in lines:
        if (known := records.row(line, not table.rows)) is None:
            raise ValueError(f"{title}: no row of a table: {line!r}")
        table.rows.append(known)
    yield f"{block[0]}{'target':>{WIDTH}}"
    notes = []
    for line, row, found in zip(lines, table.rows, table.judged(family), strict=True):
        word = "" if is_quick else found.word
        counts.update([word] if word else [])
        notes += [f"  {row.name}: {found.note}." for _ in [found] if found.note and word]
        yield f"{line:<{len(block[0])}}{found.target:>{WIDTH}}  {word}".rstrip()
    yield from notes


def main() -> int:
    for line in judged(sys.stdin, targets.family(host()["cpu"])):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
