"""The Hypothesis strategies of `iovec_rs.testing`: buffers, segments, iterators. Hypothesis is imported by the first
call.
"""

from __future__ import annotations

import array
import ctypes
import mmap
import pickle
import random
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, READ, WRITE, Direction, FolioQueue, IovIter, IterKind, PipeRing, XArray

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from hypothesis.strategies import DrawFn, SearchStrategy
    from typing_extensions import Buffer

__all__ = ["buffers", "iov_iters", "segments"]


def _strategies() -> ModuleType:
    try:
        from hypothesis import strategies  # noqa: PLC0415 - only these functions need it
    except ImportError as error:
        raise ImportError("the strategies of iovec_rs.testing need Hypothesis: pip install hypothesis") from error
    return strategies


_SIZES = (0, 1, 2, 7, 8, 63, 64, 65, 511, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE)
"""Sizes around which copies change their method. All sizes up to 200 are drawn as well."""
_MAX_RING = 16


def buffers(*, min_size: int = 0, max_size: int = 2 * PAGE_SIZE, writable: bool = False) -> SearchStrategy[Buffer]:
    """Buffers of random bytes: bytes, bytearray, memoryview, array, mmap, ctypes, PickleBuffer.

    With `writable`, only buffers that can be a destination. Some views begin at odd addresses.
    """
    if not 0 <= min_size <= max_size:
        raise ValueError(f"min_size is {min_size}, not between 0 and max_size, which is {max_size}")
    return _buffers(min_size, max_size, writable)


def _buffers(min_size: int, max_size: int, writable: bool) -> SearchStrategy[Buffer]:
    """Draws a type of exporter, a size and a seed."""
    st = _strategies()
    exporters = _WRITABLE if writable else _EXPORTERS
    edges = [size for size in _SIZES if min_size <= size <= max_size]
    sizes = st.integers(min_size, min(max_size, min_size + 200))
    if edges:
        sizes = st.one_of(sizes, st.sampled_from(edges))

    def make(size: int, seed: int, exporter: str) -> Buffer:
        return _export(exporter, random.Random(seed).randbytes(size))

    found: SearchStrategy[Buffer] = st.builds(make, sizes, st.integers(0, 255), st.sampled_from(exporters))
    return found


def segments(
    *, max_segments: int = 12, max_size: int = 2 * PAGE_SIZE, writable: bool = False
) -> SearchStrategy[list[Buffer]]:
    """Lists of up to `max_segments` buffers; any of them may be empty, and so may the list."""
    found: SearchStrategy[list[Buffer]] = _strategies().lists(
        buffers(max_size=max_size, writable=writable), max_size=max_segments
    )
    return found


def iov_iters(
    *,
    kinds: Sequence[IterKind | str] = tuple(IterKind),
    directions: Sequence[Direction | int] = (READ, WRITE),
) -> SearchStrategy[IovIter]:
    """Iterators of the given kinds and directions, at their start or some way in, with a count that may end early.

    `advance` works by up to the sum of `ranges()`, and `revert` by what it was advanced. Beyond that sum a FOLIOQ
    refuses, although its count is larger; a PIPE, which has no ranges, moves only by what is copied.

    PIPE and DISCARD exist only as destinations and are left out for WRITE; ValueError if nothing is left. An XARRAY
    may run into a hole, a FOLIOQ past its end and a PIPE into a full ring before `count` is used up.
    """
    st = _strategies()
    makers = [
        (IterKind(kind), Direction(direction))
        for kind in kinds
        for direction in directions
        if Direction(direction) is READ or IterKind(kind) not in (IterKind.PIPE, IterKind.DISCARD)
    ]
    if not makers:
        raise ValueError(f"no iterator of the kinds {[str(kind) for kind in kinds]} can be a source")

    @st.composite  # type: ignore[untyped-decorator]
    def iterator(draw: DrawFn) -> IovIter:
        kind, direction = draw(st.sampled_from(makers))
        made = _make(draw, st, kind, direction)
        if draw(st.booleans()):
            made.advance(draw(st.integers(0, sum(part.length for part in made.ranges()))))
        return made

    found: SearchStrategy[IovIter] = iterator()
    return found


def _make(draw: DrawFn, st: ModuleType, kind: IterKind, direction: Direction) -> IovIter:
    writable = direction is READ
    pages = buffers(min_size=PAGE_SIZE, max_size=PAGE_SIZE, writable=writable)

    def count(available: int) -> int:
        return available if draw(st.booleans()) else int(draw(st.integers(0, available)))

    match kind:
        case IterKind.UBUF:
            buffer = draw(buffers(writable=writable))
            return IovIter.ubuf(direction, buffer, count(memoryview(buffer).nbytes))
        case IterKind.IOVEC | IterKind.KVEC:
            parts = draw(segments(writable=writable))
            make = IovIter.iovec if kind is IterKind.IOVEC else IovIter.kvec
            return make(direction, parts, count(sum(memoryview(part).nbytes for part in parts)))
        case IterKind.BVEC:
            bvecs = []
            for buffer in draw(segments(writable=writable)):
                offset = draw(st.integers(0, memoryview(buffer).nbytes))
                bvecs.append((buffer, offset, draw(st.integers(0, memoryview(buffer).nbytes - offset))))
            return IovIter.bvec(direction, bvecs, count(sum(length for _, _, length in bvecs)))
        case IterKind.XARRAY:
            first = draw(st.integers(0, 1 << 20))
            present = dict(enumerate(draw(st.lists(pages, max_size=4)), first))
            if draw(st.booleans()):
                present.pop(first + 2, None)
            start = first * PAGE_SIZE + draw(st.integers(0, PAGE_SIZE - 1))
            return IovIter.xarray(direction, XArray(present), start, count(4 * PAGE_SIZE))
        case IterKind.FOLIOQ:
            folios = draw(st.lists(buffers(min_size=1, writable=writable), min_size=1, max_size=6))
            slot = draw(st.integers(0, len(folios) - 1))
            offset = draw(st.integers(0, memoryview(folios[slot]).nbytes))
            queue = FolioQueue(folios, draw(st.integers(1, 31)))
            return IovIter.folioq(direction, queue, slot, offset, count(4 * PAGE_SIZE))
        case IterKind.PIPE:
            ring = PipeRing(1 << draw(st.integers(0, 4)))
            ring.write(bytes(draw(buffers(max_size=PAGE_SIZE))))
            return IovIter.pipe(direction, ring, count(_MAX_RING * PAGE_SIZE))
        case IterKind.DISCARD:
            return IovIter.discard(direction, draw(st.integers(0, 1 << 40)))


_EXPORTERS = ("bytes", "bytearray", "view", "readonly", "array", "mmap", "ctypes", "pickle")
_WRITABLE = tuple(name for name in _EXPORTERS if name not in ("bytes", "readonly"))


def _export(exporter: str, content: bytes) -> Buffer:
    match exporter:
        case "bytes":
            return content
        case "view":
            return memoryview(bytearray(b"<<<" + content + b">"))[3 : 3 + len(content)]
        case "readonly":
            return memoryview(b"<" + content)[1:]
        case "array":
            return array.array("H" if len(content) % 2 == 0 else "B", content)
        case "ctypes":
            return (ctypes.c_uint8 * len(content)).from_buffer_copy(content)
        case "pickle":
            return pickle.PickleBuffer(bytearray(content))
        case "mmap" if content:
            mapping = mmap.mmap(-1, len(content))
            mapping[:] = content
            return mapping
        case _:
            return bytearray(content)
