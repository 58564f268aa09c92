"""The same pages as an iterator of every kind, in segments of every shape, and what its cursor looks like."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, Direction, FolioQueue, IovIter, IterKind, PipeRing, XArray

if TYPE_CHECKING:
    from collections.abc import Sequence

TOTAL = 3 * PAGE_SIZE
LENGTHS = (5, 0, PAGE_SIZE + 1, 0, 2 * PAGE_SIZE - 6)
DATA_KINDS = (IterKind.UBUF, IterKind.IOVEC, IterKind.KVEC, IterKind.BVEC, IterKind.XARRAY, IterKind.FOLIOQ)


def snapshot(iterator: IovIter) -> tuple[object, ...]:
    return iterator.count, iterator.iov_offset, iterator.nr_segs, iterator.ranges()


def cut(memory: memoryview, skip: int, lengths: Sequence[int] = LENGTHS) -> list[memoryview]:
    """The memory as segments of these lengths, without its first bytes."""
    segments = []
    start = 0
    for length in lengths:
        end = start + length
        if end > skip or start >= skip:
            segments.append(memory[max(start, skip) : end])
        start = end
    return segments


def build(
    kind: IterKind,
    direction: Direction,
    memory: memoryview,
    skip: int = 0,
    *,
    lengths: Sequence[int] = LENGTHS,
    unit: int = PAGE_SIZE,
    first_page: int = 0,
) -> IovIter:
    """An iterator of this kind over whole pages, freshly built to begin after the first `skip` bytes.

    IOVEC and KVEC have segments of these lengths, BVEC and FOLIOQ pieces of `unit` bytes, XARRAY pages
    from this index on.
    """
    units = [memory[start : start + unit] for start in range(0, len(memory), unit)]
    count = len(memory) - skip
    if kind is IterKind.UBUF:
        return IovIter.ubuf(direction, memory[skip:])
    if kind is IterKind.IOVEC:
        return IovIter.iovec(direction, cut(memory, skip, lengths))
    if kind is IterKind.KVEC:
        return IovIter.kvec(direction, cut(memory, skip, lengths))
    if kind is IterKind.BVEC:
        offsets = [skip % unit, *[0] * len(units)]
        elements = zip(units[skip // unit :], offsets, strict=False)
        return IovIter.bvec(direction, [(each, offset, unit - offset) for each, offset in elements])
    if kind is IterKind.XARRAY:
        pages = [memory[start : start + PAGE_SIZE] for start in range(0, len(memory), PAGE_SIZE)]
        start = first_page * PAGE_SIZE + skip
        return IovIter.xarray(direction, XArray(dict(enumerate(pages, first_page))), start, count)
    if kind is IterKind.FOLIOQ:
        return IovIter.folioq(direction, FolioQueue(units), skip // unit, skip % unit, count)
    if kind is IterKind.PIPE:
        return IovIter.pipe(direction, PipeRing(4), count)
    return IovIter.discard(direction, count)


def three_pages() -> memoryview:
    """Page-aligned memory with no two neighbouring bytes alike."""
    arena = ctypes.create_string_buffer(TOTAL + PAGE_SIZE)
    start = -ctypes.addressof(arena) % PAGE_SIZE
    view = memoryview(arena).cast("B")[start : start + TOTAL]
    view[:] = bytes((index * 7 + index // 251) % 256 for index in range(TOTAL))
    return view
