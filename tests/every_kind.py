"""The same three pages as an iterator of every kind, in segments of every shape, and what its cursor looks like."""

from __future__ import annotations

import ctypes

from iovec_rs import PAGE_SIZE, Direction, FolioQueue, IovIter, IterKind, PipeRing, XArray

TOTAL = 3 * PAGE_SIZE
LENGTHS = (5, 0, PAGE_SIZE + 1, 0, 2 * PAGE_SIZE - 6)
DATA_KINDS = (IterKind.UBUF, IterKind.IOVEC, IterKind.KVEC, IterKind.BVEC, IterKind.XARRAY, IterKind.FOLIOQ)


def snapshot(iterator: IovIter) -> tuple[object, ...]:
    return iterator.count, iterator.iov_offset, iterator.nr_segs, iterator.ranges()


def cut(memory: memoryview, skip: int) -> list[memoryview]:
    """The memory as segments of uneven lengths, without its first bytes."""
    segments = []
    start = 0
    for length in LENGTHS:
        end = start + length
        if end > skip or start >= skip:
            segments.append(memory[max(start, skip) : end])
        start = end
    return segments


def build(kind: IterKind, direction: Direction, memory: memoryview, skip: int = 0) -> IovIter:
    """An iterator of this kind over three pages, freshly built to begin after the first `skip` bytes."""
    pages = [memory[start : start + PAGE_SIZE] for start in range(0, TOTAL, PAGE_SIZE)]
    count = TOTAL - skip
    if kind is IterKind.UBUF:
        return IovIter.ubuf(direction, memory[skip:])
    if kind is IterKind.IOVEC:
        return IovIter.iovec(direction, cut(memory, skip))
    if kind is IterKind.KVEC:
        return IovIter.kvec(direction, cut(memory, skip))
    if kind is IterKind.BVEC:
        offsets = [skip % PAGE_SIZE, 0, 0]
        elements = zip(pages[skip // PAGE_SIZE :], offsets, strict=False)
        return IovIter.bvec(direction, [(page, offset, PAGE_SIZE - offset) for page, offset in elements])
    if kind is IterKind.XARRAY:
        return IovIter.xarray(direction, XArray(dict(enumerate(pages))), skip, count)
    if kind is IterKind.FOLIOQ:
        return IovIter.folioq(direction, FolioQueue(pages), skip // PAGE_SIZE, skip % PAGE_SIZE, count)
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
