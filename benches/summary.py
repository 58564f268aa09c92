"""``python -m benches.summary``: a table over the machines whose records are in results/, and where we lose.

A record is what the benches print, kept as it is: a file a machine. What this makes is benches/results/README.md.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = RESULTS / "README.md"
VERDICTS = ("met", "level", "MISSED")

FAMILIES = {"zen": "AMD", "emerald": "Intel"}
"""By how a record's file begins."""


@dataclass(frozen=True, slots=True)
class Physics:
    """A target that a family's machines do not allow: the ratio that they do, and the limit that shows it."""

    family: str
    title: str
    rival: str
    ratio: float
    limit: str


PHYSICS = [
    Physics("Intel", r"flat, (131072|262144|1048576) KiB, memcpy", r"mv\[:\] = mv$", 1.15, "memcpy streams there, too"),
    Physics("Intel", r"flat, (8|16|32|64) B, hot", r"pmem_memcpy_persist", 1.0, "the drain takes 135 to 190 ns"),
    Physics("Intel", r"flat, \d{9,} B, cold", r"memcpy \+ write-back", 1.4, "memcpy streams there, too"),
]
"""A ratio that is reached there is not missed. (Where there is no cliff, the bench itself wants no gain.)"""

HEADLINES = [
    ("gather of 64 B", r"gather \(copy_from_iter\), 65536 KiB in segments of 64 B", "out[p:q] = view"),
    ("gather of 4 KiB", r"gather \(copy_from_iter\), 65536 KiB in segments of 4096 B", "out[p:q] = view"),
    ("scatter of 64 B", r"scatter \(copy_to_iter\), 65536 KiB in segments of 64 B", "view[:] = src[p:q]"),
    ("scatter of 4 KiB", r"scatter \(copy_to_iter\), 65536 KiB in segments of 4096 B", "view[:] = src[p:q]"),
    ("one call, 64 B", r"copy_to_iter, 64 B", "mv[:] = other"),
    ("one call, 4 KiB", r"copy_to_iter, 4096 B", "mv[:] = other"),
    ("durable, 1 MiB", r"flat, 1024 KiB, memcpy_flushcache", "mv[:] = mv"),
    ("durable, 64 B, native", r"flat, 64 B, hot source \+ 0, cold destination \+ 0", "pmem_memcpy_persist"),
    (
        "durable, 1 MiB, native, cold",
        r"flat, 1048576 B, cold source \+ 0, cold destination \+ 0",
        "pmem_memcpy_persist",
    ),
]
"""What the table shows: the ratio of one row in the first table of that title."""


@dataclass(slots=True)
class Row:
    title: str
    name: str
    ratio: float | None
    target: str
    verdict: str


@dataclass(slots=True)
class Record:
    machine: str
    host: str
    rows: list[Row] = field(default_factory=list)

    @property
    def family(self) -> str:
        return next((family for start, family in FAMILIES.items() if self.machine.startswith(start)), "unknown")

    def ratio(self, title: str, rival: str) -> float | None:
        found = (row.ratio for row in self.rows if row.name == rival and re.search(title + "$", row.title))
        return next(found, None)

    def counts(self) -> Counter[str]:
        return Counter(judged(self, row)[0] for row in self.rows if row.verdict)


ROW = re.compile(r"^(?P<name>.{34}) *(?P<middle>[\d.]+) +(?P<least>[\d.]+)(?P<rest>.*)$")
NUMBER = re.compile(r"^\d+\.\d+$")


def read(path: Path) -> Record:
    """The rows of a record, of whichever harness. ValueError if there are none."""
    record = Record(path.stem, "")
    title, is_first, lines = "", True, path.read_text(encoding="utf-8").splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("cpu ") and not record.host:
            record.host = line
        elif "ratio" in following and "target" in following:
            title, is_first = line.strip(), True
        elif title and (row := ROW.match(line)) is not None:
            words = row["rest"].split()
            verdict = words.pop() if words and words[-1] in VERDICTS else ""
            target = words.pop() if words and words[-1][0] in "<>" else ""
            # A ratio comes after the rate, if there is one. The first row of a table has none.
            numbers = [float(word) for word in words if NUMBER.match(word)]
            ratio = numbers[-1] if numbers and not is_first else None
            is_first = False
            record.rows.append(Row(title, row["name"].strip(), ratio, target, verdict))
    if not record.rows:
        raise ValueError(f"{path}: no table of a bench is in it")
    return record


def judged(record: Record, row: Row) -> tuple[str, str]:
    """The verdict, `physics` where the machine allows no more; and what limits it there."""
    if row.verdict == "MISSED" and row.ratio is not None:
        for known in PHYSICS:
            is_it = record.family == known.family and re.search(known.title, row.title)
            if is_it and re.search(known.rival, row.name):
                reached = row.ratio >= known.ratio
                return "physics" if reached else "MISSED", f"{known.ratio:.2f} can be had: {known.limit}"
    return row.verdict, ""


def page(records: Sequence[Record]) -> str:
    """All of it as Markdown."""
    names = [record.machine for record in records]
    lines = [
        "# Results",
        "",
        "Made by `python -m benches.summary` from the records beside it, one for each machine: ratios of a rival's",
        "time to ours, above 1 where we are faster. A record is of the version that was measured then. `physics`",
        "counts the targets that are missed because the machine allows no more.",
        "",
        "| machine | host | met | level | missed | physics |",
        "|---|---|---|---|---|---|",
    ]
    for record in records:
        counts = record.counts()
        figures = " | ".join(str(counts[verdict]) for verdict in (*VERDICTS, "physics"))
        drawn = [
            name for name in (f"{record.machine}.svg", f"{record.machine}-growth.svg") if (RESULTS / name).exists()
        ]
        files = ", ".join(f"[{name.removeprefix(record.machine)[1:]}]({name})" for name in drawn)
        machine = f"[{record.machine}]({record.machine}.txt){f' ({files})' if files else ''}"
        lines.append(f"| {machine} | {record.host} | {figures} |")
    lines += ["", f"| job | rival | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for job, title, rival in HEADLINES:
        ratios = [record.ratio(title, rival) for record in records]
        shown = " | ".join("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {job} | `{rival}` | {shown} |")
    lines += ["", "## Where we lose", "", "Every target that is missed, the furthest first."]
    for record in records:
        lines += ["", f"### {record.machine}", "", "| job | rival | ratio | target | |", "|---|---|---|---|---|"]
        lost: dict[tuple[str, ...], list[Row]] = {}
        for row in record.rows:
            verdict, limit = judged(record, row)
            if verdict in {"MISSED", "physics"}:
                note = f"{verdict}: {limit}" if verdict == "physics" else limit
                lost.setdefault((row.title, row.name, row.target, note), []).append(row)
        for (title, name, target, note), rows in sorted(lost.items(), key=lambda item: min(map(_distance, item[1]))):
            lines.append(f"| {title} | `{name}` | {_ratios(rows)} | {target} | {note} |")
    return "\n".join(lines) + "\n"


def _ratios(rows: Sequence[Row]) -> str:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    if not ratios:
        return ""
    least, most = f"{min(ratios):.2f}", f"{max(ratios):.2f}"
    return least if least == most else f"{least} to {most}, {len(ratios)} times"


def _distance(row: Row) -> float:
    wanted = re.search(r"[\d.]+", row.target)
    return 0.0 if row.ratio is None or wanted is None else row.ratio / float(wanted[0])


def main() -> int:
    records = [read(path) for path in sorted(RESULTS.glob("*.txt"))]
    PAGE.write_text(page(records), encoding="utf-8")
    print(f"{PAGE}: {len(records)} machines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
