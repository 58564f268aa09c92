"""One operation over its sizes: the figures, and how they are shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from iovec_rs._core import machine_limits

from .harness import fit, measure
from .lasting import instruction_kept
from .units import short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .harness import Row
    from .operations import Operation

SECONDS = 0.5
"""About how long a case takes."""


@dataclass(slots=True)
class Point:
    """The contestants at one size, ours first, and the limit in GB/s, if it was measured."""

    size: int
    rows: list[Row]
    limit: float | None = None


@dataclass(slots=True)
class Sweep:
    """One operation over its sizes."""

    operation: str
    summary: str
    unit: str
    points: list[Point] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def names(self) -> list[str]:
        """The contestants, ours first. One that takes part at some sizes alone comes later."""
        return list(dict.fromkeys(row.name for point in self.points for row in point.rows))


def limit(nbytes: int) -> float | None:
    """GB/s that no copy of so many bytes exceeds: of loads alone and stores alone, whichever are slower. The stores go
    through the caches or past them, whichever is faster."""
    known = machine_limits(nbytes)
    if known is None:
        return None
    read, written, streamed = known
    return min(read, max(written, streamed))


def sweep(operation: Operation, quick: bool, seconds: float = SECONDS) -> Iterator[Sweep]:
    """What is known after each size: the same sweep, grown by a point."""
    known = Sweep(operation.name, operation.summary, operation.unit)
    limits: dict[int, float | None] = {}  # one measurement for all sizes that it holds for
    for size in operation.quick_sizes if quick else operation.sizes:
        with instruction_kept():
            case = operation.build(size, quick)
            table = measure(operation.name, fit(case, 0.0, least=3) if quick else fit(case, seconds))
        moved = operation.moves(size)
        if moved not in limits:
            limits[moved] = limit(moved)
        known.points.append(Point(size, table.rows, limits[moved]))
        yield known


def render(known: Sweep) -> str:
    """A line for each size: what ours moves in a second, and how many times as long each rival takes."""
    names = known.names()
    letters = [chr(ord("A") + number) for number in range(len(names) - 1)]
    lines = ["", f"{known.operation}: {known.summary}"]
    lines += [f"  {letter}  {name}" for letter, name in zip(letters, names[1:], strict=True)]
    head = f"{known.unit:>12}{'ns':>12}{'GB/s':>9}{'limit':>9}"
    lines.append(head + "".join(f"{letter:>9}" for letter in letters))
    for point in known.points:
        ours, rivals = point.rows[0], {row.name: row for row in point.rows[1:]}
        rate = "" if ours.rate is None else f"{ours.rate:.2f}"
        limit = "" if point.limit is None else f"{point.limit:.1f}"
        line = f"{short(point.size):>12}{ours.median:>12.1f}{rate:>9}{limit:>9}"
        for name in names[1:]:
            ratio = rivals[name].ratio if name in rivals else None
            line += f"{'' if ratio is None else f'{ratio:.2f}':>9}"
        lines.append(line.rstrip())
    return "\n".join(lines)
