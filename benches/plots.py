"""``python -m benches.plots RECORD.json PREFIX``: draws what ``python -m benches --json`` wrote.

PREFIX-growth.svg: what one call or one segment costs, by how many there are. PREFIX-memory.svg: the bytes that one
takes. PREFIX-threads.svg: what one thread moves in a second, and what two do.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iovec_rs._bench.optional import MissingError, pyplot
from iovec_rs._bench.plot import save
from iovec_rs._bench.units import short

from benches import bench_growth, bench_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Record = dict[str, Any]
Panel = tuple[str, "Callable[[Any], None]"]
"""Its title, and what draws into its axes."""

COLUMNS = 2
BY_THREADS = re.compile(r"(\d+) MiB by two threads and by one")


def points(table: Record) -> tuple[list[int], list[float]]:
    """How many, and what one costs. None at all has no place on a logarithmic axis, and is left out."""
    rows = [(int(row["name"].split()[0]), row["median"]) for row in table["rows"]]
    return [count for count, _ in rows if count], [cost for count, cost in rows if count]


def _by_number(table: Record) -> Panel:
    def draw(axes: Any) -> None:
        axes.plot(*points(table), marker="o", markersize=3)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(table["rows"][0]["name"].split()[1])
        axes.set_ylabel(table["unit"])

    return table["title"], draw


def _by_row(table: Record) -> Panel:
    def draw(axes: Any) -> None:
        rows = list(reversed(table["rows"]))
        axes.barh([row["name"].strip() for row in rows], [row["median"] for row in rows], height=0.5)
        axes.tick_params(axis="y", labelsize=7)
        axes.set_xlabel(table["unit"])

    return table["title"], draw


def growth(record: Record) -> Iterator[Panel]:
    for table in record["tables"]:
        if table["bench"] == bench_growth.NAME and table["unit"].startswith("ns"):
            yield _by_number(table)


def memory(record: Record) -> Iterator[Panel]:
    for table in record["tables"]:
        if table["bench"] == bench_growth.NAME and table["unit"].startswith("bytes"):
            yield _by_number(table)
        elif table["bench"] == bench_memory.NAME:
            yield _by_row(table)


def threads(record: Record) -> Iterator[Panel]:
    """One panel: a line for each contestant, over the sizes."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for table in record["tables"]:
        if found := BY_THREADS.fullmatch(table["title"]):
            for row in table["rows"]:
                lines.setdefault(row["name"], []).append((int(found[1]) << 20, row["rate"]))

    def draw(axes: Any) -> None:
        for name, known in lines.items():
            axes.plot(*zip(*known, strict=True), marker="o", markersize=3, label=name)
        sizes = sorted({size for known in lines.values() for size, _ in known})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [short(size) for size in sizes])
        axes.set_ylim(bottom=0)
        axes.set_xlabel("B")
        axes.set_ylabel("GB/s")
        axes.legend(fontsize=7)

    if lines:
        yield "by two threads and by one", draw


PLOTS: dict[str, Callable[[Record], Iterator[Panel]]] = {"growth": growth, "memory": memory, "threads": threads}


def draw(panels: Sequence[Panel], about: str, file: Path) -> None:
    """An SVG of all panels. MissingError where there is no matplotlib."""
    plt = pyplot()
    rows = -(-len(panels) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(5.5 * COLUMNS, 3.2 * rows), squeeze=False)
    for place in axes.flat[len(panels) :]:
        place.set_axis_off()
    for place, (title, into) in zip(axes.flat, panels, strict=False):
        into(place)
        place.set_title(title, fontsize=9)
        place.grid(visible=True, linewidth=0.3)
    figure.suptitle(about, fontsize=8)
    save(figure, file)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.plots", description="Draw a record of the benches.")
    parser.add_argument("record", type=Path, help="what python -m benches --json wrote")
    parser.add_argument("prefix", help="what the names of the SVGs begin with")
    args = parser.parse_args(argv)
    try:
        record = json.loads(args.record.read_text(encoding="utf-8"))
        about = ", ".join(f"{key} {value}" for key, value in record["host"].items())
        for name, panels in PLOTS.items():
            file = Path(f"{args.prefix}-{name}.svg")
            found = list(panels(record))
            if found:
                draw(found, about, file)
            print(file if found else f"{file}: not drawn, the record has nothing of it")
    except (OSError, ValueError, KeyError, TypeError, MissingError) as why:
        print(f"benches.plots: {args.record}: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
