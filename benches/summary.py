"""``python -m benches.summary``: what the records in results/ say, as tables.

It writes benches/results/README.md, and the figures in the READMEs and in pages of docs/, between the markers there.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from benches import figures, records
from benches.targets import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benches.records import Record, Row
    from benches.targets import Verdict

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benches/results"
PAGE = RESULTS / "README.md"
PLOTS = ("throughput", "growth", "memory", "threads")

INTRODUCTION = """\
# Results

`python -m benches.summary` makes this page from the records beside it, one for each machine. A ratio is a rival's time
divided by ours: above 1 we are faster. **A record is of the version that was measured then**, which the second column
names; what it misses may have been mended since, and counts for the version of its date alone. All records are judged
by today's targets, which are those of `benches/targets.py`. `physics` are the targets that are missed where the
machine allows no more: the table of losses says what shows it.
"""


def page(known: Sequence[Record], folder: Path = RESULTS) -> str:
    """All of it as Markdown."""
    lines = [INTRODUCTION, f"| machine | version | host | {' | '.join(VERDICTS)} |", "|---|---|---|---|---|---|---|"]
    for record in known:
        counts = Counter(found.word for _, _, found in record.rows())
        drawn = {plot: f"{record.machine}-{plot}.svg" for plot in PLOTS}
        plots = ", ".join(f"[{plot}]({name})" for plot, name in drawn.items() if (folder / name).exists())
        machine = f"[{record.machine}]({record.machine}.txt){f' ({plots})' if plots else ''}"
        verdicts = " | ".join(str(counts[word]) for word in VERDICTS)
        lines.append(f"| {machine} | {record.version} | {record.host} | {verdicts} |")
    lines += ["", *headlines(known), "## Where we lose", "", "Every target that is missed, the furthest first.", ""]
    for record in known:
        lines += [f"### {record.machine}, {record.version}", "", *losses(record), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def headlines(known: Sequence[Record]) -> Iterator[str]:
    """The figures that everybody asks for, a column for each machine."""
    yield f"| job | rival | {' | '.join(record.machine for record in known)} |"
    yield "|---|---|" + "---|" * len(known)
    for figure in figures.FIGURES:
        yield f"| {figure.job} | `{figure.rival}` | {' | '.join(figure.of(record) for record in known)} |"
    yield ""


def losses(record: Record) -> Iterator[str]:
    lost: dict[tuple[str, ...], list[Row]] = {}
    for title, row, found in record.rows():
        if found.word in {"MISSED", "physics"}:
            lost.setdefault((title, row.name, found.target, _remark(found)), []).append(row)
    if not lost:
        yield "None."
        return
    yield "| job | rival | ratio | target | |"
    yield "|---|---|---|---|---|"
    for (title, name, target, remark), rows in sorted(lost.items(), key=lambda item: _distance(item[0][2], item[1])):
        yield f"| {title} | `{name}` | {_ratios(rows)} | {target} | {remark} |"


def _remark(found: Verdict) -> str:
    return f"physics: {found.note}" if found.word == "physics" else found.note


def _ratios(rows: Sequence[Row]) -> str:
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return "" if not ratios else figures.span(ratios) + (f", {len(ratios)} times" if len(ratios) > 1 else "")


def _distance(target: str, rows: Sequence[Row]) -> float:
    """How much of a ratio is reached, at the worst; those with another target come first."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return min(ratios) / float(target.removeprefix(">=")) if ratios and target.startswith(">=") else 0.0


def read_all() -> list[Record]:
    """The newest first, by the date in its version."""
    known = [records.read(path) for path in RESULTS.glob("*.txt")]
    return sorted(known, key=lambda record: (record.version.rpartition(" ")[2], record.machine), reverse=True)


def main() -> int:
    known = read_all()
    PAGE.write_text(page(known), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(known)} machines")
    for file in figures.PAGES:
        path = ROOT / file
        path.write_text(figures.renewed(file, path.read_text(encoding="utf-8"), known), encoding="utf-8")
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
