"""What one small copy through a prepared iterator costs, next to the cheapest copies Python has: in both directions,
and by what is copied from."""

from __future__ import annotations

import ctypes
import mmap
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from iovec_rs import READ, WRITE, Direction, IovIter, copy_from_iter, copy_to_iter
from iovec_rs._bench.harness import Case, Contestant, Table, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "call"
SIZES = (8, 64, 4096)
MAPPED_SIZES = (64, 2048, 65536)
SLICE = "mv[:] = other"
NUMPY = "np.copyto"
MEMMOVE = "ctypes.memmove"


class Chunks:
    """A window of memory cut into chunks that stay in the first-level cache, in every form a contestant wants.

    An iterator walks the window once, so a sample runs through several prepared ones in turn: all contestants visit
    the same chunks in the same order, and no iterator has to be rewound inside a sample.
    """

    def __init__(self, size: int, laps: int) -> None:
        self.size = size
        self.count = max(8, min(64, 32768 // size))
        self.laps = laps
        self.data = bytearray(random.Random(size).randbytes(size * self.count))
        view = memoryview(self.data)
        self.views = [view[at : at + size] for at in range(0, len(view), size)] * laps
        array = np.frombuffer(self.data, np.uint8)
        self.arrays: list[npt.NDArray[np.uint8]] = [array[at : at + size] for at in range(0, len(view), size)] * laps
        self.addresses = [int(array.ctypes.data) + at for at in range(0, len(view), size)] * laps

    def iterators(self, direction: Direction) -> tuple[Iterators, Iterators]:
        ubuf = [IovIter.ubuf(direction, self.data) for _ in range(self.laps)]
        kvec = [IovIter.kvec(direction, [self.data]) for _ in range(self.laps)]
        return Iterators(ubuf, self.count), Iterators(kvec, self.count)


class Iterators:
    """Prepared iterators, each repeated once for every chunk it will be asked for."""

    def __init__(self, each: Sequence[IovIter], chunks: int) -> None:
        self.each = each
        self.turns = [i for i in each for _ in range(chunks)]
        self.starts = [i.save_state() for i in each]

    def rewind(self) -> None:
        for i, start in zip(self.each, self.starts, strict=True):
            i.restore(start)


def to_iter(size: int, laps: int, rounds: int) -> Case:
    chunks = Chunks(size, laps)
    ubuf, kvec = chunks.iterators(READ)
    source = random.Random(-size).randbytes(size)
    view = memoryview(source)
    array = np.frombuffer(source, np.uint8)
    address = int(array.ctypes.data)

    def ours() -> None:
        for i in ubuf.turns:
            copy_to_iter(view, i)

    def ours_kvec() -> None:
        for i in kvec.turns:
            copy_to_iter(view, i)

    def slicing() -> None:
        for chunk in chunks.views:
            chunk[:] = view

    def numpy() -> None:
        for chunk in chunks.arrays:
            np.copyto(chunk, array)

    def memmove() -> None:
        for chunk in chunks.addresses:
            ctypes.memmove(chunk, address, size)

    def idle() -> None:
        for _ in chunks.views:
            pass

    def scrub() -> None:
        chunks.data[:] = bytes(len(chunks.data))

    def result() -> bytes:
        return bytes(chunks.data)

    return Case(
        title=f"copy_to_iter, {size} B",
        ours=Contestant("iovec_rs, ubuf", ours, result, ubuf.rewind),
        rivals=[
            Contestant("iovec_rs, kvec", ours_kvec, result, kvec.rewind),
            Contestant(SLICE, slicing, result),
            Contestant(NUMPY, numpy, result),
            Contestant(MEMMOVE, memmove, result),
        ],
        ops=len(chunks.views),
        rounds=rounds,
        scrub=scrub,
        idle=idle,
    )


def from_iter(size: int, laps: int, rounds: int) -> Case:
    chunks = Chunks(size, laps)
    ubuf, kvec = chunks.iterators(WRITE)
    out = bytearray(size)
    view = memoryview(out)
    array = np.frombuffer(out, np.uint8)
    address = int(array.ctypes.data)

    def ours() -> None:
        for i in ubuf.turns:
            copy_from_iter(view, i)

    def ours_kvec() -> None:
        for i in kvec.turns:
            copy_from_iter(view, i)

    def slicing() -> None:
        for chunk in chunks.views:
            view[:] = chunk

    def numpy() -> None:
        for chunk in chunks.arrays:
            np.copyto(array, chunk)

    def memmove() -> None:
        for chunk in chunks.addresses:
            ctypes.memmove(address, chunk, size)

    def idle() -> None:
        for _ in chunks.views:
            pass

    def scrub() -> None:
        view[:] = bytes(size)

    def result() -> bytes:
        return bytes(out)

    return Case(
        title=f"copy_from_iter, {size} B",
        ours=Contestant("iovec_rs, ubuf", ours, result, ubuf.rewind),
        rivals=[
            Contestant("iovec_rs, kvec", ours_kvec, result, kvec.rewind),
            Contestant(SLICE, slicing, result),
            Contestant(NUMPY, numpy, result),
            Contestant(MEMMOVE, memmove, result),
        ],
        ops=len(chunks.views),
        rounds=rounds,
        scrub=scrub,
        idle=idle,
    )


def _same(data: bytes) -> memoryview:
    return memoryview(bytearray(data))


def _own_array(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).copy()


def _array_over(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(bytearray(data), np.uint8)


def _mapped(data: bytes) -> mmap.mmap:
    memory = mmap.mmap(-1, len(data))
    memory[:] = data
    return memory


def _view_of_mapped(data: bytes) -> memoryview:
    return memoryview(_mapped(data))


HEAP: dict[str, Callable[[bytes], Any]] = {
    "one memoryview": _same,
    "fresh slices of a memoryview": _same,
    "bytes": bytes,
    "a bytearray": bytearray,
    "an array": _own_array,
    "an array over a bytearray": _array_over,
}
MAPPED: dict[str, Callable[[bytes], Any]] = {
    "an mmap": _mapped,
    "one memoryview of an mmap": _view_of_mapped,
    "fresh slices of a memoryview of an mmap": _view_of_mapped,
}


def argument(name: str, size: int, laps: int, rounds: int) -> Case:
    """A source of one sort, to an iterator and to a view, each in the same loop."""
    chunks = Chunks(size, laps)
    ubuf = Iterators([IovIter.ubuf(READ, chunks.data) for _ in range(laps)], chunks.count)
    source = (HEAP | MAPPED)[name](random.Random(-size).randbytes(size))

    def ours() -> None:
        for i in ubuf.turns:
            copy_to_iter(source, i)

    def slicing() -> None:
        for chunk in chunks.views:
            chunk[:] = source

    def ours_fresh() -> None:
        assert isinstance(source, memoryview)
        for i in ubuf.turns:
            copy_to_iter(source[0:size], i)

    def slicing_fresh() -> None:
        assert isinstance(source, memoryview)
        for chunk in chunks.views:
            chunk[:] = source[0:size]

    def idle() -> None:
        for _ in chunks.views:
            pass

    def scrub() -> None:
        chunks.data[:] = bytes(len(chunks.data))

    def result() -> bytes:
        return bytes(chunks.data)

    is_fresh = "fresh" in name
    return Case(
        title=f"copy_to_iter of {name}, {size} B",
        ours=Contestant("iovec_rs, ubuf", ours_fresh if is_fresh else ours, result, ubuf.rewind),
        rivals=[Contestant(SLICE, slicing_fresh if is_fresh else slicing, result)],
        ops=len(chunks.views),
        rounds=rounds,
        scrub=scrub,
        idle=idle,
    )


def _laps(size: int, quick: bool) -> int:
    return 1 if quick else max(16, 1024 // max(8, min(64, 32768 // size)))


def run(quick: bool) -> Iterator[Table]:
    for size in SIZES:
        for build in (to_iter, from_iter):
            yield measure(NAME, build(size, _laps(size, quick), 3 if quick else 301))
    for names, sizes in ((HEAP, SIZES[1:]), (MAPPED, MAPPED_SIZES)):
        for name in names:
            for size in sizes:
                yield measure(NAME, argument(name, size, _laps(size, quick), 3 if quick else 101))
