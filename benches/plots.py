"""``python -m benches.plots RECORD.json FILE.svg``: how costs grow, from what ``python -m benches --json`` wrote."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iovec_rs._bench.optional import MissingError, pyplot

from benches.bench_growth import NAME

if TYPE_CHECKING:
    from collections.abc import Sequence


def growth(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The tables whose rows are numbers of something. ValueError if the record has none."""
    tables = [table for table in record["tables"] if table["bench"] == NAME]
    if not tables:
        raise ValueError(f"the record has no tables of {NAME}")
    return tables


def points(table: dict[str, Any]) -> tuple[list[int], list[float]]:
    """How many, and what one costs. None at all has no place on the axis, and is left out."""
    rows = [(int(row["name"].split()[0]), row["median"]) for row in table["rows"]]
    return [count for count, _ in rows if count], [cost for count, cost in rows if count]


def draw(record: dict[str, Any], file: Path) -> None:
    """A panel for each table. MissingError where there is no matplotlib."""
    tables, plt = growth(record), pyplot()
    figure, axes = plt.subplots(-(-len(tables) // 2), 2, figsize=(11, 3.2 * -(-len(tables) // 2)), squeeze=False)
    for place, table in zip(axes.flat, tables, strict=False):
        counts, costs = points(table)
        place.plot(counts, costs, marker="o", markersize=3)
        place.set_xscale("log")
        place.set_ylim(bottom=0)
        place.set_title(table["title"], fontsize=9)
        place.set_xlabel(table["rows"][0]["name"].split()[1])
        place.set_ylabel(table["unit"])
        place.grid(visible=True, linewidth=0.3)
    figure.suptitle(", ".join(f"{key} {value}" for key, value in record["host"].items()), fontsize=8)
    figure.tight_layout()
    figure.savefig(file, format="svg")
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benches.plots", description="Draw how costs grow.")
    parser.add_argument("record", type=Path, help="what python -m benches growth --json wrote")
    parser.add_argument("file", type=Path, help="the SVG to write")
    args = parser.parse_args(argv)
    try:
        draw(json.loads(args.record.read_text(encoding="utf-8")), args.file)
    except (OSError, ValueError, KeyError, TypeError, MissingError) as why:
        print(f"benches.plots: {args.record}: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
