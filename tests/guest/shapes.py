"""Iterators of every kind over a part of an arena, in pieces of which none ends at a page boundary."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, Direction, FolioQueue, IovIter, XArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.memory import Arena

FOLIO = 2 * PAGE_SIZE


def _cuts(start: int, length: int) -> list[tuple[int, int]]:
    """The pieces of a part: a short one, a long one, the rest."""
    marks = sorted({start, start + min(97, length), start + length * 5 // 7, start + length})
    return [(low, high - low) for low, high in pairwise(marks)]


def _ubuf(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    return IovIter.ubuf(direction, arena.view[start : start + length])


def _ubuf_range(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    return IovIter.ubuf(direction, arena.range(start, length))


def _iovec(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    return IovIter.iovec(direction, [arena.view[low : low + size] for low, size in _cuts(start, length)])


def _iovec_range(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    return IovIter.iovec(direction, [arena.range(low, size) for low, size in _cuts(start, length)])


def _kvec(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    return IovIter.kvec(direction, [arena.view[low : low + size] for low, size in _cuts(start, length)])


def _bvec(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    pages = []
    for low, size in _cuts(start, length):
        page = low // PAGE_SIZE * PAGE_SIZE
        pages.append((arena.view[page:], low - page, size))
    return IovIter.bvec(direction, pages)


def _xarray(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    first, last = start // PAGE_SIZE, (start + length - 1) // PAGE_SIZE
    pages = {index: arena.view[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] for index in range(first, last + 1)}
    return IovIter.xarray(direction, XArray(pages), start, length)


def _folioq(arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    first, last = start // FOLIO, (start + length - 1) // FOLIO
    queue = FolioQueue([arena.view[index * FOLIO : (index + 1) * FOLIO] for index in range(first, last + 1)])
    return IovIter.folioq(direction, queue, 0, start - first * FOLIO, length)


SHAPES: dict[str, Callable[[Arena, Direction, int, int], IovIter]] = {
    "ubuf": _ubuf,
    "ubuf of a range": _ubuf_range,
    "iovec": _iovec,
    "iovec of ranges": _iovec_range,
    "kvec": _kvec,
    "bvec": _bvec,
    "xarray": _xarray,
    "folioq": _folioq,
}
TRUSTED = frozenset({"kvec", "bvec", "xarray", "folioq"})  # kinds whose memory the kernel trusts
RANGES = frozenset({"ubuf of a range", "iovec of ranges"})


def over(kind: str, arena: Arena, direction: Direction, start: int, length: int) -> IovIter:
    return SHAPES[kind](arena, direction, start, length)
