"""64 MiB gathered from, and scattered to, shuffled segments all over a 256 MiB arena."""

from __future__ import annotations

import ctypes
import random
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from iovec_rs import READ, WRITE, Direction, IovIter, UserRange, copy_from_iter, copy_to_iter
from iovec_rs._bench.harness import Case, Contestant, Table, Target, measure

from benches.arena import fill, huge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "vectored"
SIZES = (64, 512, 4096, 64 << 10, 1 << 20)
TOTAL = 64 << 20
QUICK_SIZES = (64, 4096)
QUICK_TOTAL = 64 << 10
SPREAD = 4  # arena bytes per byte moved

OURS = "iovec_rs, kvec"
OURS_IOVEC = "iovec_rs, iovec of buffers"
OURS_RANGES = "iovec_rs, iovec of UserRange"
JOIN = 'b"".join(views)'
SLICE_OUT = "out[p:q] = view"
SLICE_IN = "view[:] = src[p:q]"
VIEWS = "prepared d[:] = s"


class Scattered:
    """Segments of one size at shuffled places of an arena, and a flat block of memory as large as all of them."""

    def __init__(self, size: int, total: int) -> None:
        self.size = size
        self.count = total // size
        slots = self.count * SPREAD
        rng = random.Random(size)
        self.slots = np.array(rng.sample(range(slots), self.count), np.intp)
        self.places: list[int] = (self.slots * size).tolist()
        self.arena = huge(slots * size)
        self.flat = huge(total)
        self.arena_view = memoryview(self.arena)
        self.flat_view = memoryview(self.flat)
        self.arena_bytes: npt.NDArray[np.uint8] = np.frombuffer(self.arena, np.uint8)
        self.flat_bytes: npt.NDArray[np.uint8] = np.frombuffer(self.flat, np.uint8)
        self.grid = self.arena_bytes.reshape(slots, size)
        self.flat_grid = self.flat_bytes.reshape(self.count, size)
        self.views = [self.arena_view[at : at + size] for at in self.places]
        self.flat_views = [self.flat_view[at : at + size] for at in range(0, total, size)]

    def arrays(self) -> list[npt.NDArray[np.uint8]]:
        return [self.arena_bytes[at : at + self.size] for at in self.places]

    def flat_arrays(self) -> list[npt.NDArray[np.uint8]]:
        return [self.flat_bytes[at : at + self.size] for at in range(0, self.flat_bytes.size, self.size)]

    def addresses(self) -> list[int]:
        base = int(self.arena_bytes.ctypes.data)
        return [base + at for at in self.places]

    def flat_addresses(self) -> list[int]:
        base = int(self.flat_bytes.ctypes.data)
        return [base + at for at in range(0, self.flat_bytes.size, self.size)]

    def kvec(self, direction: Direction) -> tuple[IovIter, Callable[[], object]]:
        return _rewindable(IovIter.kvec(direction, self.views))

    def iovec(self, direction: Direction) -> tuple[IovIter, Callable[[], object]]:
        return _rewindable(IovIter.iovec(direction, self.views))

    def ranges(self, direction: Direction) -> tuple[IovIter, Callable[[], object]]:
        return _rewindable(IovIter.iovec(direction, [UserRange(at, self.size) for at in self.addresses()]))


def _rewindable(iterator: IovIter) -> tuple[IovIter, Callable[[], object]]:
    start = iterator.save_state()
    return iterator, lambda: iterator.restore(start)


def _targets(size: int, slicing: str) -> dict[str, Target]:
    if size == 64:
        return {JOIN: Target(6.0), slicing: Target(10.0)}
    if size == 4096:
        return {slicing: Target(1.7)}
    if size == 1 << 20:
        return {slicing: Target(1.0, level=0.97)}
    return {}


def gather(size: int, total: int, rounds: int) -> Case:
    them = Scattered(size, total)
    fill(them.arena_bytes, size)
    flat, views = them.flat_view, them.views
    kvec, rewind_kvec = them.kvec(WRITE)
    iovec, rewind_iovec = them.iovec(WRITE)
    ranges, rewind_ranges = them.ranges(WRITE)
    sources, targets = them.arrays(), them.flat_arrays()
    moves = list(zip(them.flat_addresses(), them.addresses(), strict=True))
    joined = b""

    def join() -> None:
        nonlocal joined
        joined = b"".join(views)

    def slicing() -> None:
        p = 0
        for view in views:
            q = p + size
            flat[p:q] = view
            p = q

    def prepared() -> None:
        for d, s in zip(them.flat_views, views, strict=True):
            d[:] = s

    def copyto() -> None:
        for d, s in zip(targets, sources, strict=True):
            np.copyto(d, s)

    def memmove() -> None:
        for d, s in moves:
            ctypes.memmove(d, s, size)

    def drop_joined() -> None:
        nonlocal joined
        joined = b""

    def scrub() -> None:
        drop_joined()
        them.flat_bytes.fill(0)

    def result() -> memoryview:
        return flat

    return Case(
        title=f"gather (copy_from_iter), {total >> 10} KiB in segments of {size} B",
        ours=Contestant(OURS, lambda: copy_from_iter(flat, kvec), result, rewind_kvec),
        rivals=[
            Contestant(OURS_IOVEC, lambda: copy_from_iter(flat, iovec), result, rewind_iovec),
            Contestant(OURS_RANGES, lambda: copy_from_iter(flat, ranges), result, rewind_ranges),
            Contestant(JOIN, join, lambda: joined, drop_joined),
            Contestant(SLICE_OUT, slicing, result),
            Contestant(VIEWS, prepared, result),
            Contestant("np.copyto loop", copyto, result),
            Contestant("ctypes.memmove loop", memmove, result),
            Contestant(
                "np.take(out=), even grid only",
                lambda: np.take(them.grid, them.slots, axis=0, out=them.flat_grid, mode="clip"),
                result,
            ),
        ],
        ops=them.count,
        op_bytes=size,
        rounds=rounds,
        unit="ns/seg",
        targets=_targets(size, SLICE_OUT),
        scrub=scrub,
    )


def scatter(size: int, total: int, rounds: int) -> Case:
    them = Scattered(size, total)
    fill(them.flat_bytes, size)
    flat, views = them.flat_view, them.views
    kvec, rewind_kvec = them.kvec(READ)
    iovec, rewind_iovec = them.iovec(READ)
    ranges, rewind_ranges = them.ranges(READ)
    targets, sources = them.arrays(), them.flat_arrays()
    moves = list(zip(them.addresses(), them.flat_addresses(), strict=True))

    def slicing() -> None:
        p = 0
        for view in views:
            q = p + size
            view[:] = flat[p:q]
            p = q

    def prepared() -> None:
        for d, s in zip(views, them.flat_views, strict=True):
            d[:] = s

    def copyto() -> None:
        for d, s in zip(targets, sources, strict=True):
            np.copyto(d, s)

    def memmove() -> None:
        for d, s in moves:
            ctypes.memmove(d, s, size)

    def fancy() -> None:
        them.grid[them.slots] = them.flat_grid

    def result() -> memoryview:
        return them.arena_view  # all of it: a byte written between the segments would show

    return Case(
        title=f"scatter (copy_to_iter), {total >> 10} KiB in segments of {size} B",
        ours=Contestant(OURS, lambda: copy_to_iter(flat, kvec), result, rewind_kvec),
        rivals=[
            Contestant(OURS_IOVEC, lambda: copy_to_iter(flat, iovec), result, rewind_iovec),
            Contestant(OURS_RANGES, lambda: copy_to_iter(flat, ranges), result, rewind_ranges),
            Contestant(SLICE_IN, slicing, result),
            Contestant(VIEWS, prepared, result),
            Contestant("np.copyto loop", copyto, result),
            Contestant("ctypes.memmove loop", memmove, result),
            Contestant("grid[index] = src, even grid only", fancy, result),
        ],
        ops=them.count,
        op_bytes=size,
        rounds=rounds,
        unit="ns/seg",
        targets=_targets(size, SLICE_IN),
        scrub=lambda: them.arena_bytes.fill(0),
    )


def run(quick: bool) -> Iterator[Table]:
    total = QUICK_TOTAL if quick else TOTAL
    for size in QUICK_SIZES if quick else SIZES:
        rounds = 3 if quick else 11 if size < 4096 else 41
        for build in (gather, scatter):
            yield measure(NAME, build(size, total, rounds), quick)
