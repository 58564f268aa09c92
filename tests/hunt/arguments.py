"""Arguments for any callable: values that fit a parameter by its name, and values that do not.

None of them can corrupt this process: addresses are those of memory that is made for this, or of no memory at all, and
the bytes in buffers are no valid addresses either.
"""

from __future__ import annotations

import array
import ctypes
import hashlib
import mmap
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    BioVec,
    Direction,
    FaultMap,
    FaultRange,
    FolioQueue,
    IovIter,
    PipeRing,
    UserRange,
    XArray,
    pmem,
)

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

FILL = b"\xa5"
"""A byte of which eight make an address that no process has."""

EDGES = (-(2**100), -(2**63) - 1, -(2**63), -(2**31), -2, -1, 0, 1, 2, 7, 8, 63, 64, 100, 511, 1024, 1025, 4095, 4096)
LARGE = (65536, 2**31 - 1, 2**31, 0x7FFFF000, 2**32, 2**47, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 2**100)


class OfTheUser(Exception):  # noqa: N818 - raised by what a caller passes in
    """An exception of the program's own, which a call must raise unchanged and not swallow."""


class Meddler:
    """An object whose methods do something each time they are called, a limited number of times: one that refilled what
    a call drains would keep it running for ever.
    """

    def __init__(self, what: Callable[[], object], answer: int) -> None:
        self._meddle, self._answer = what, answer
        self._left = 1000

    def _what(self) -> None:
        self._left -= 1
        if self._left > 0:
            self._meddle()

    def __index__(self) -> int:
        self._what()
        return self._answer

    def __len__(self) -> int:
        self._what()
        return self._answer

    def __length_hint__(self) -> int:
        return 1 << 61

    def __iter__(self) -> Iterator[object]:
        self._what()
        yield bytearray(FILL * 3)
        self._what()

    def __getitem__(self, index: int) -> object:
        self._what()
        if index > 3:
            raise IndexError
        return bytearray(FILL * 3)

    def update(self, data: memoryview) -> None:
        self._what()
        del data

    def fileno(self) -> int:
        self._what()
        return self._answer

    def __fspath__(self) -> str:
        self._what()
        return "no-such-file"

    def __call__(self, *_: object) -> int:
        self._what()
        return self._answer


class Pool:
    """One object of every type, for one round."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.arrays = [bytearray(FILL * n) for n in (0, 1, 8, 64, 4096, 4096, 9000, 20000)]
        self.files = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115 - closed by close
        self.pipe = os.pipe()
        os.set_blocking(self.pipe[0], False)
        os.set_blocking(self.pipe[1], False)
        pages = mmap.mmap(-1, 4 * PAGE_SIZE)
        pages[:] = FILL * len(pages)
        self.address = IovIter.ubuf(READ, pages).ranges()[0].address
        self.pages = pages
        views = [memoryview(each) for each in self.arrays]
        self.buffers: list[Any] = [
            *self.arrays, *views, pages, memoryview(pages)[5:9005], bytes(FILL * 100), b"", memoryview(FILL * 64),
            array.array("Q", FILL * 64), (ctypes.c_char * 100)(), np.full(100, 0xA5, "u1"), np.full((4, 16), 7.0),
        ]  # fmt: skip
        path = Path(tempfile.gettempdir(), f"region-{os.getpid()}")
        path.write_bytes(FILL * 16384)
        self.region = pmem.PmemRegion.open(path)
        self.buffers.append(self.region)
        released = memoryview(bytearray(8))
        released.release()
        closed = pmem.PmemRegion.open(path)
        closed.close()
        self.no_buffers: list[Any] = [
            released, closed, views[7][::2], np.arange(10)[::3], np.array([object(), 3]), np.array(5), "text", 3.5,
            None, np.zeros(4, "f8,i4"), object(), type, True, {}, {"a": 1}, {1, 2}, [], (), [None], [[]], [b"a", 3],
            range(5), lambda *_: None, 1 + 2j, float("nan"), float("inf"), "\ud800", "a" * 5000, b"\0", "no\0path",
            Path("nowhere"), np.int64(5), np.float64(5), memoryview(b"ab").cast("c"), NotImplemented, Ellipsis,
            iter([]), slice(1, 2),
        ]  # fmt: skip
        self.user_ranges = [
            UserRange(self.address, 4 * PAGE_SIZE), UserRange(self.address + 7, 100), UserRange(0, 0), UserRange(0, 64),
            UserRange(8, 4096), UserRange(1 << 63, 64), UserRange((1 << 64) - 64, 64), UserRange((1 << 64) - 8, 64),
            UserRange(0xA5 << 56, 64), UserRange((1 << 47) - 4096, 8192), UserRange(-1, 5), UserRange(5, -1),
            UserRange(1 << 100, 1), UserRange(self.address, 1 << 100), UserRange("a", None),  # type: ignore[arg-type]
        ]  # fmt: skip
        self.rings = [PipeRing(), PipeRing(1), PipeRing(4, 2)]
        self.rings[2].write(FILL * 5000)
        sparse: dict[int, Any] = {0: self.arrays[4], 1: self.arrays[5], 3: memoryview(pages)[:PAGE_SIZE]}
        self.xarrays = [XArray(), XArray(sparse), XArray({0: bytes(FILL * PAGE_SIZE)})]
        self.queues = [FolioQueue(), FolioQueue([self.arrays[4], self.arrays[5], memoryview(pages)], 2)]
        self.maps = [FaultMap(), FaultMap([(self.address + 100, 50), FaultRange(5, 5, "write")])]
        self.states = [IovIter.ubuf(READ, bytearray(9)).save_state()]
        self.iterators = [self.iterator() for _ in range(10)]
        self.states += [i.save_state() for i in self.iterators]

    def number(self) -> int:
        return self.rng.choice(EDGES + LARGE if self.rng.random() < 0.6 else range(200))

    def buffer(self) -> Any:
        found = self.rng.choice(self.buffers)
        return (
            UserRange(self.address + self.number() % 5000, self.number() % 5000) if self.rng.random() < 0.1 else found
        )

    def segments(self) -> list[Any]:
        return [self.buffer() for _ in range(self.rng.choice((0, 1, 2, 3, 9)))]

    def bvecs(self) -> list[Any]:
        found = []
        for page in self.segments():
            length = len(memoryview(page).cast("B")) if not isinstance(page, (UserRange, np.ndarray)) else 8
            offset = self.rng.randint(0, length)
            found.append(BioVec(page, offset, self.rng.randint(0, length - offset)))
        return found

    def iterator(self) -> IovIter:
        """An iterator of any kind, advanced by some bytes."""
        rng = self.rng
        while True:
            try:
                i = self._made(rng.choice((READ, WRITE)))
                i.advance(rng.choice((0, 0, 1, 100)))
            except (TypeError, ValueError, BufferError, OSError):
                continue
            return i

    def _made(self, side: Direction) -> IovIter:
        rng = self.rng
        match rng.randrange(8):
            case 0:
                return IovIter.ubuf(side, self.buffer())
            case 1:
                return IovIter.iovec(side, self.segments())
            case 2:
                return IovIter.kvec(side, self.segments())
            case 3:
                return IovIter.bvec(side, self.bvecs())
            case 4:
                return IovIter.pipe(READ, rng.choice(self.rings), rng.choice((0, 5, 9000)))
            case 5:
                start = rng.choice((0, 7, 4096))
                return IovIter.xarray(side, rng.choice(self.xarrays), start, rng.choice((0, 9000)))
            case 6:
                return IovIter.folioq(side, rng.choice(self.queues), rng.randrange(3), rng.choice((0, 5)), 9000)
            case _:
                return IovIter.discard(side, rng.choice((0, 5, 1 << 62)))

    def fitting(self, name: str) -> Any:
        """A value that fits a parameter of this name."""
        rng = self.rng
        match name:
            case "addr" | "page" | "buffer" | "folio" | "data":
                return self.buffer() if rng.random() < 0.9 else rng.choice(self.user_ranges)
            case "i" | "dst" | "src":
                return rng.choice(self.iterators) if name == "i" or rng.random() < 0.5 else self.buffer()
            case "direction" | "type":
                return rng.choice((READ, WRITE, 0, 1))
            case "segments" | "uvector" | "folios":
                return self.segments()
            case "bvecs":
                return self.bvecs()
            case "pages":
                return {rng.randrange(4): self.arrays[rng.choice((4, 5))]}
            case "ranges":
                return [(rng.randrange(9000), rng.randrange(1, 100)) for _ in range(rng.randrange(4))]
            case "pipe":
                return rng.choice(self.rings)
            case "xarray":
                return rng.choice(self.xarrays)
            case "queue":
                return rng.choice(self.queues)
            case "fault_map" | "other" | "map":
                return rng.choice(self.maps)
            case "state":
                return rng.choice(self.states)
            case "hash":
                return hashlib.sha256()
            case "callback" | "step":
                return lambda *_: rng.choice((None, 0, 1))
            case "access":
                return rng.choice(("read", "write", "both", "none"))
            case "fd" | "sock":
                return rng.choice((*self.files, self.pipe[1], self.pipe[0], -1, 99))
            case "compat" | "create" | "writable":
                return rng.choice((True, False))
            case "source":
                return rng.choice(("", "5 5\n", "0 8\n9 1\n", "[]", '{"dev":"namespace0.0"}', "0 +\n0 5 -\n"))
            case "name":
                return rng.choice(("scalar", "sse2", "auto", "syscall", "clflush", "nothing"))
            case "path":
                return rng.choice((self.region.path, "no-such-file", "."))
            case _:
                return self.number()

    def anything(self) -> Any:
        rng = self.rng
        kinds: tuple[Callable[[], Any], ...] = (
            self.number,
            lambda: rng.choice(self.no_buffers),
            lambda: rng.choice(self.buffers),
            lambda: rng.choice(self.user_ranges),
            lambda: rng.choice(self.iterators),
            lambda: rng.choice([*self.rings, *self.xarrays, *self.queues, *self.maps, *self.states]),
            lambda: [self.anything() for _ in range(rng.randrange(4))],
            lambda: (self.anything() for _ in range(rng.randrange(3))),
            lambda: [(self.anything(), self.anything()), (self.anything(), self.anything(), self.anything())],
            lambda: {rng.choice((0, 1, -1, 2**64, "a")): self.anything()},
            self.meddler,
        )
        return rng.choice(kinds)()

    def meddler(self) -> Meddler:
        def fail() -> None:
            raise OfTheUser("raised by an argument")

        victim = self.rng.choice(self.iterators)
        what: Callable[[], object] = self.rng.choice(
            (
                fail,
                lambda: victim.advance(1),
                lambda: victim.release() if hasattr(victim, "release") else None,
                lambda: self.maps[0].add(self.number() % 10**6, 3),
                lambda: self.rings[0].write(FILL * 9),
                lambda: self.xarrays[1].erase(0),
                lambda: self.arrays[1].append(1),
                lambda: list(self.maps[0]),
            )
        )
        return Meddler(what, self.rng.choice((0, 1, 5, 100, 2**40, 2**62)))

    def close(self) -> list[bytearray]:
        """Drops everything but the byte arrays, which nothing may keep exported then."""
        arrays = self.arrays
        for file in self.files:
            file.close()
        for fd in self.pipe:
            os.close(fd)
        self.__dict__.clear()
        return arrays
