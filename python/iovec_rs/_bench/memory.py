"""Memory to copy over, without numpy, and a broom for the caches."""

from __future__ import annotations

import ctypes
import mmap
import random
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import iovec_rs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

LINE = 64

_LIBC = ctypes.CDLL(None)
_LIBC.memchr.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)
_LIBC.memchr.restype = ctypes.c_void_p


def huge(nbytes: int) -> mmap.mmap:
    """Anonymous memory, on huge pages where they are to be had."""
    # Private: a shared mapping, the default, gets huge pages only where it happens to lie on a boundary of them.
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def address(buffer: Buffer) -> int:
    return iovec_rs.IovIter.kvec(iovec_rs.WRITE, [buffer]).ranges()[0].address


def fill(memory: mmap.mmap | memoryview, seed: int) -> None:
    """The same bytes for the same seed, with no period that is a power of two."""
    block = random.Random(seed).randbytes(min(len(memory), (1 << 20) + 77))
    for at in range(0, len(memory), len(block)):
        memory[at : at + len(block)] = block[: len(memory) - at]


def placed(nbytes: int, at: int) -> memoryview:
    """`nbytes` of the interpreter's own memory that begin `at` bytes into a page. Where a copy's ends lie in pages
    matters as much as its length, and the allocator places them differently from run to run."""
    owner = bytearray(nbytes + mmap.PAGESIZE)
    start = (at - address(owner)) % mmap.PAGESIZE
    return memoryview(owner)[start : start + nbytes]


def scrub(memory: mmap.mmap | memoryview) -> None:
    ctypes.memset(address(memory), 0, len(memory))


class Broom:
    """Drops what is in the caches by reading other memory, of which there is more than they hold."""

    def __init__(self, nbytes: int) -> None:
        self.memory = huge(nbytes)
        self.address = address(self.memory)
        ctypes.memset(self.address, 1, nbytes)

    def sweep(self) -> None:
        if _LIBC.memchr(self.address, 2, len(self.memory)) is not None:
            raise AssertionError("the broom's memory was written to")


@contextmanager
def tmpfs_file(nbytes: int) -> Iterator[Path]:
    """A file of that size in memory, on pages of the usual size."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="iovec_rs-") as name:
        path = Path(name) / "file"
        with path.open("wb") as file:
            file.truncate(nbytes)
        yield path
