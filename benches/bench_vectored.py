"""64 MiB gathered from, and scattered to, shuffled segments all over a 256 MiB arena."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from iovec_rs import READ, WRITE, Direction, IovIter, UserRange, copy_from_iter, copy_to_iter
from iovec_rs._bench import scattered
from iovec_rs._bench.harness import Case, Contestant, Produced, Table, measure
from iovec_rs._bench.scattered import rewindable

from benches.arena import as_array

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "vectored"
SIZES = (64, 512, 4096, 64 << 10, 1 << 20)
TOTAL = 64 << 20
QUICK_SIZES = (64, 4096)
QUICK_TOTAL = 64 << 10

OURS_IOVEC = "iovec_rs, iovec of buffers"
OURS_RANGES = "iovec_rs, iovec of UserRange"
VIEWS = "prepared d[:] = s"


class Scattered(scattered.Scattered):
    """The same as numpy's arrays, too, and as what `import_iovec` takes."""

    def __init__(self, size: int, total: int) -> None:
        super().__init__(size, total)
        self.arena_bytes = as_array(self.arena)
        self.flat_bytes = as_array(self.flat)

    def arrays(self) -> list[npt.NDArray[np.uint8]]:
        return [self.arena_bytes[at : at + self.size] for at in self.places]

    def flat_arrays(self) -> list[npt.NDArray[np.uint8]]:
        return [self.flat_bytes[at : at + self.size] for at in range(0, self.flat_bytes.size, self.size)]

    def iovec(self, direction: Direction) -> tuple[IovIter, Callable[[], object]]:
        return rewindable(IovIter.iovec(direction, self.views))

    def ranges(self, direction: Direction) -> tuple[IovIter, Callable[[], object]]:
        return rewindable(IovIter.iovec(direction, [UserRange(at, self.size) for at in self.addresses()]))


Move = tuple[memoryview, memoryview]
Arrays = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def _loops(views: list[Move], arrays: list[Arrays], result: Callable[[], Produced]) -> list[Contestant]:
    """Loops over what was prepared: each destination beside its source."""

    def prepared() -> None:
        for d, s in views:
            d[:] = s

    def copyto() -> None:
        for d, s in arrays:
            np.copyto(d, s)

    return [Contestant(VIEWS, prepared, result), Contestant("np.copyto loop", copyto, result)]


def gather(size: int, total: int, rounds: int) -> Case:
    them = Scattered(size, total)
    case = scattered.gather(them)
    flat, result = them.flat_view, case.ours.result
    iovec, rewind_iovec = them.iovec(WRITE)
    ranges, rewind_ranges = them.ranges(WRITE)
    views = list(zip(them.flat_views, them.views, strict=True))
    arrays = list(zip(them.flat_arrays(), them.arrays(), strict=True))
    rivals = [
        Contestant(OURS_IOVEC, lambda: copy_from_iter(flat, iovec), result, rewind_iovec),
        Contestant(OURS_RANGES, lambda: copy_from_iter(flat, ranges), result, rewind_ranges),
        *case.rivals,
        *_loops(views, arrays, result),
    ]
    return replace(case, rivals=rivals, rounds=rounds)


def scatter(size: int, total: int, rounds: int) -> Case:
    them = Scattered(size, total)
    case = scattered.scatter(them)
    flat, result = them.flat_view, case.ours.result
    iovec, rewind_iovec = them.iovec(READ)
    ranges, rewind_ranges = them.ranges(READ)
    views = list(zip(them.views, them.flat_views, strict=True))
    arrays = list(zip(them.arrays(), them.flat_arrays(), strict=True))
    rivals = [
        Contestant(OURS_IOVEC, lambda: copy_to_iter(flat, iovec), result, rewind_iovec),
        Contestant(OURS_RANGES, lambda: copy_to_iter(flat, ranges), result, rewind_ranges),
        *case.rivals,
        *_loops(views, arrays, result),
    ]
    return replace(case, rivals=rivals, rounds=rounds)


def run(quick: bool) -> Iterator[Table]:
    total = QUICK_TOTAL if quick else TOTAL
    for size in QUICK_SIZES if quick else SIZES:
        rounds = 3 if quick else 11 if size < 4096 else 41
        for build in (gather, scatter):
            yield measure(NAME, build(size, total, rounds))
