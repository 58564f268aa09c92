"""What the benches printed, read again: the records in results/, and the native bench's output."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from benches.targets import VERDICTS, Taken, family, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from benches.targets import Verdict

NAME_WIDTH = 34
# The two times have one decimal each, and nothing between them where they are long.
ROW = re.compile(
    rf"^(?P<name>.{{{NAME_WIDTH}}}) *(?P<median>-?\d+\.\d) *-?\d+\.\d(?P<figures>( +\d+\.\d\d)*)"
    rf"( +(?P<target>(>=|<|\+)[\d.]+( ns)?))?( +(?P<verdict>{'|'.join(VERDICTS)}))?$"
)


class Row(NamedTuple):
    name: str
    median: float
    ratio: float | None
    target: str
    verdict: str


@dataclass(slots=True)
class Table:
    title: str
    rows: list[Row] = field(default_factory=list)

    def judged(self, family: str) -> list[Verdict]:
        """By today's targets; empty for a row that has none."""
        return verdicts(self.title, [Taken(row.name, row.median, row.ratio) for row in self.rows], family)


def row(line: str, is_first: bool) -> Row | None:
    """None if the line is no row. The first row of a table is ours and has no ratio."""
    found = ROW.match(line)
    if found is None:
        return None
    # A ratio comes after the rate, if there is one.
    figures = found["figures"].split()
    ratio = float(figures[-1]) if figures and not is_first else None
    return Row(found["name"].strip(), float(found["median"]), ratio, found["target"] or "", found["verdict"] or "")


def is_head(line: str) -> bool:
    """Of a table's columns; the line before it is the title."""
    return line.startswith(" " * NAME_WIDTH) and "min" in line and "ratio" in line


def tables(lines: Iterable[str]) -> Iterator[Table]:
    before, table = "", None
    for line in lines:
        if is_head(line):
            table = Table(before.strip())
            yield table
        elif not line.strip():
            table = None
        elif table is not None and (known := row(line, not table.rows)) is not None:
            table.rows.append(known)
        before = line


@dataclass(slots=True)
class Record:
    """A machine's."""

    machine: str
    version: str
    """The commit that was measured, and its date."""
    host: str
    tables: list[Table]

    @property
    def family(self) -> str:
        return family(self.host)

    def rows(self) -> Iterator[tuple[str, Row, Verdict]]:
        """Each with its table's title. What is judged by other than a ratio keeps the verdict that was printed."""
        for table in self.tables:
            for known, found in zip(table.rows, table.judged(self.family), strict=True):
                if found.target:
                    yield table.title, known, found
                elif known.target.startswith(("<", "+")):
                    yield table.title, known, found._replace(target=known.target, word=known.verdict)
                else:
                    yield table.title, known, found


def read(path: Path) -> Record:
    """A record of results/. ValueError if no table of a bench is in it."""
    lines = path.read_text(encoding="utf-8").splitlines()

    def after(start: str) -> str:
        return next((line for line in lines if line.startswith(start)), "")

    record = Record(path.stem, after("commit ").removeprefix("commit "), after("cpu "), list(tables(lines)))
    if not any(table.rows for table in record.tables):
        raise ValueError(f"{path}: no table of a bench is in it")
    return record
