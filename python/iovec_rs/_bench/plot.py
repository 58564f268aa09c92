"""Throughput against size, a panel for each operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .optional import pyplot
from .units import short

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .sweep import Sweep

COLUMNS = 2


def draw(sweeps: Sequence[Sweep], about: str, file: Path) -> None:
    """Writes an SVG. MissingError where there is no matplotlib; OSError where the file cannot be written."""
    plt = pyplot()
    rows = -(-len(sweeps) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(6.5 * COLUMNS, 4.5 * rows), squeeze=False)
    places = list(axes.flat)
    for place, known in zip(places, sweeps, strict=False):
        _panel(place, known)
    for place in places[len(sweeps) :]:
        place.set_axis_off()
    figure.suptitle(about, fontsize=9)
    save(figure, file)


def save(figure: Any, file: Path) -> None:
    """The same bytes for the same figure: no date, no names drawn by lot; text stays text."""
    plt = pyplot()
    figure.tight_layout()
    with plt.rc_context({"svg.hashsalt": "iovec_rs", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    plt.close(figure)


def _panel(place: Any, known: Sweep) -> None:
    sizes = [point.size for point in known.points]
    for number, name in enumerate(known.names()):
        of_name = [(p.size, row.rate) for p in known.points for row in p.rows if row.name == name and row.rate]
        place.plot(
            [size for size, _ in of_name],
            [rate for _, rate in of_name],
            marker="o",
            markersize=3,
            linewidth=2.2 if number == 0 else 1.0,
            label=name,
        )
    if all(point.limit is not None for point in known.points):
        place.plot(sizes, [point.limit for point in known.points], "k--", linewidth=1.0, label="limit of the machine")
    place.set_xscale("log", base=2)
    place.set_yscale("log")
    place.set_xticks(sizes, [short(size) for size in sizes], rotation=45, fontsize=7)
    place.minorticks_off()
    place.set_xlabel(known.unit)
    place.set_ylabel("GB/s")
    place.set_title(f"{known.operation}: {known.summary}", fontsize=9)
    place.grid(visible=True, linewidth=0.3)
    place.legend(fontsize=7)
