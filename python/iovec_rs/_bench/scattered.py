"""Gathered from, and scattered to, shuffled segments of one size all over an arena."""

from __future__ import annotations

import ctypes
import random
from typing import TYPE_CHECKING, Any

import iovec_rs

from .harness import Case, Contestant
from .memory import address, fill, huge, scrub
from .optional import numpy

if TYPE_CHECKING:
    from collections.abc import Callable

SPREAD = 4
"""Bytes of the arena for each byte that is moved."""

OURS = "iovec_rs, kvec"
JOIN = 'b"".join(views)'
SLICE_OUT = "out[p:q] = view"
SLICE_IN = "view[:] = src[p:q]"


class Scattered:
    """Segments of one size at shuffled places of an arena, and a flat block of memory as large as all of them."""

    def __init__(self, size: int, total: int) -> None:
        self.size = size
        self.count = total // size
        self.slots = random.Random(size).sample(range(self.count * SPREAD), self.count)
        self.places = [slot * size for slot in self.slots]
        self.arena = huge(self.count * SPREAD * size)
        self.flat = huge(total)
        scrub(self.arena)
        scrub(self.flat)
        self.arena_view = memoryview(self.arena)
        self.flat_view = memoryview(self.flat)
        self.views = [self.arena_view[at : at + size] for at in self.places]
        self.flat_views = [self.flat_view[at : at + size] for at in range(0, total, size)]

    def addresses(self) -> list[int]:
        base = address(self.arena)
        return [base + at for at in self.places]

    def flat_addresses(self) -> list[int]:
        base = address(self.flat)
        return [base + at for at in range(0, self.count * self.size, self.size)]

    def gather_by_slices(self, flat: memoryview) -> None:
        size, p = self.size, 0
        for view in self.views:
            q = p + size
            flat[p:q] = view
            p = q

    def scatter_by_slices(self, flat: memoryview) -> None:
        size, p = self.size, 0
        for view in self.views:
            q = p + size
            view[:] = flat[p:q]
            p = q

    def kvec(self, direction: iovec_rs.Direction) -> tuple[iovec_rs.IovIter, Callable[[], object]]:
        return rewindable(iovec_rs.IovIter.kvec(direction, self.views))

    def grids(self, np: Any) -> tuple[Any, Any, Any]:
        """The arena and the flat memory as rows of segments, and which row of the one each row of the other is."""
        arena, flat = np.frombuffer(self.arena, np.uint8), np.frombuffer(self.flat, np.uint8)
        shape = (-1, self.size)
        return arena.reshape(shape), flat.reshape(shape), np.array(self.slots, np.intp)


def rewindable(iterator: iovec_rs.IovIter) -> tuple[iovec_rs.IovIter, Callable[[], object]]:
    start = iterator.save_state()
    return iterator, lambda: iterator.restore(start)


def gather(them: Scattered) -> Case:
    size, flat, views = them.size, them.flat_view, them.views
    fill(them.arena, size)
    kvec, rewind = them.kvec(iovec_rs.WRITE)
    moves = list(zip(them.flat_addresses(), them.addresses(), strict=True))
    joined = b""

    def join() -> None:
        nonlocal joined
        joined = b"".join(views)

    def memmove() -> None:
        for d, s in moves:
            ctypes.memmove(d, s, size)

    def drop_joined() -> None:
        nonlocal joined
        joined = b""

    def clear() -> None:
        drop_joined()
        scrub(them.flat)

    def result() -> memoryview:
        return flat

    rivals = [
        Contestant(JOIN, join, lambda: joined, drop_joined),
        Contestant(SLICE_OUT, lambda: them.gather_by_slices(flat), result),
        Contestant("ctypes.memmove loop", memmove, result),
    ]
    if (np := numpy()) is not None:
        grid, flat_grid, slots = them.grids(np)
        take = Contestant(
            "np.take(out=), even grid only",
            lambda: np.take(grid, slots, axis=0, out=flat_grid, mode="clip"),
            result,
        )
        rivals.append(take)
    return Case(
        title=f"gather (copy_from_iter), {len(flat) >> 10} KiB in segments of {size} B",
        ours=Contestant(OURS, lambda: iovec_rs.copy_from_iter(flat, kvec), result, rewind),
        rivals=rivals,
        ops=them.count,
        op_bytes=size,
        unit="ns/seg",
        scrub=clear,
    )


def scatter(them: Scattered) -> Case:
    size, flat = them.size, them.flat_view
    fill(them.flat, size)
    kvec, rewind = them.kvec(iovec_rs.READ)
    moves = list(zip(them.addresses(), them.flat_addresses(), strict=True))

    def memmove() -> None:
        for d, s in moves:
            ctypes.memmove(d, s, size)

    def result() -> memoryview:
        return them.arena_view  # all of it: a byte written between the segments would show

    rivals = [
        Contestant(SLICE_IN, lambda: them.scatter_by_slices(flat), result),
        Contestant("ctypes.memmove loop", memmove, result),
    ]
    if (np := numpy()) is not None:
        grid, flat_grid, slots = them.grids(np)

        def fancy() -> None:
            grid[slots] = flat_grid

        rivals.append(Contestant("grid[index] = src, even grid only", fancy, result))
    return Case(
        title=f"scatter (copy_to_iter), {len(flat) >> 10} KiB in segments of {size} B",
        ours=Contestant(OURS, lambda: iovec_rs.copy_to_iter(flat, kvec), result, rewind),
        rivals=rivals,
        ops=them.count,
        op_bytes=size,
        unit="ns/seg",
        scrub=lambda: scrub(them.arena),
    )
