"""Makes iterators of every kind over the same pages, in segments of every shape, and predicts their position."""

from __future__ import annotations

import ctypes
import inspect
from typing import TYPE_CHECKING, Any

from iovec_rs import PAGE_SIZE, Direction, FolioQueue, IovIter, IterKind, PipeRing, XArray

if TYPE_CHECKING:
    from collections.abc import Sequence

TOTAL = 3 * PAGE_SIZE
LENGTHS = (5, 0, PAGE_SIZE + 1, 0, 2 * PAGE_SIZE - 6)
DATA_KINDS = tuple(kind for kind in IterKind if kind not in (IterKind.PIPE, IterKind.DISCARD))


def snapshot(iterator: IovIter) -> tuple[object, ...]:
    return iterator.count, iterator.iov_offset, iterator.nr_segs, iterator.ranges()


def cut(memory: memoryview, skip: int, lengths: Sequence[int] = LENGTHS) -> list[memoryview]:
    """The memory without its first bytes, in segments of these lengths."""
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
    """A new iterator of this kind over whole pages, which begins after the first `skip` bytes.

    IOVEC and KVEC get segments of these lengths, BVEC and FOLIOQ pieces of `unit` bytes, and XARRAY pages from this
    index on. The parameter behind the direction of a kind's constructor says what it is built from, so a kind that
    takes what another takes needs no case here.
    """
    make: Any = getattr(IovIter, str(kind))
    units = [memory[start : start + unit] for start in range(0, len(memory), unit)]
    count = len(memory) - skip
    taken = list(inspect.signature(make).parameters)[1]
    built: IovIter
    match taken:
        case "buffer":
            built = make(direction, memory[skip:])
        case "segments":
            built = make(direction, cut(memory, skip, lengths))
        case "bvecs":
            offsets = [skip % unit, *[0] * len(units)]
            elements = zip(units[skip // unit :], offsets, strict=False)
            built = make(direction, [(each, offset, unit - offset) for each, offset in elements])
        case "xarray":
            pages = [memory[start : start + PAGE_SIZE] for start in range(0, len(memory), PAGE_SIZE)]
            built = make(direction, XArray(dict(enumerate(pages, first_page))), first_page * PAGE_SIZE + skip, count)
        case "queue":
            built = make(direction, FolioQueue(units), skip // unit, skip % unit, count)
        case "pipe":
            built = make(direction, PipeRing(4), count)
        case "count":
            built = make(direction, count)
        case _:
            raise AssertionError(f"{kind} is built of {taken}, which is to be made here")
    return built


def three_pages() -> memoryview:
    """Three pages of memory in which no two neighbouring bytes are equal."""
    arena = ctypes.create_string_buffer(TOTAL + PAGE_SIZE)
    start = -ctypes.addressof(arena) % PAGE_SIZE
    view = memoryview(arena).cast("B")[start : start + TOTAL]
    view[:] = bytes((index * 7 + index // 251) % 256 for index in range(TOTAL))
    return view
