"""The system calls that change a mapping at an address, as functions that raise OSError."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path
from typing import NamedTuple

from iovec_rs import PAGE_SIZE

__all__ = [
    "GUARD_INSTALL",
    "GUARD_REMOVE",
    "READ_WRITE",
    "Known",
    "advise",
    "known",
    "map_at",
    "map_cut_page",
    "protect",
    "unmap",
]

READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
GUARD_INSTALL, GUARD_REMOVE = 102, 103
"""Arguments of madvise, which Linux has from 6.13 on."""
_MAP_FIXED, _MAP_FIXED_NOREPLACE = 0x10, 0x100000
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Known(NamedTuple):
    """A mapping of this process. `path` is empty where the kernel names none."""

    start: int
    end: int
    offset: int
    path: str


def known() -> list[Known]:
    """The mappings of this process, in the order of their addresses."""
    found = []
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        span, _, offset, _, _, *path = line.split(maxsplit=5)
        start, end = (int(bound, 16) for bound in span.split("-"))
        found.append(Known(start, end, int(offset, 16), "".join(path)))
    return found


def _check(result: int | None, call: str) -> None:
    if result in (None, -1, _MAP_FAILED):
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


def map_at(address: int, length: int, flags: int, fd: int = -1, offset: int = 0, *, replace: bool = True) -> None:
    """Maps readable and writable memory at exactly this address. OSError if something is mapped there and `replace` is
    false.
    """
    fixed = _MAP_FIXED if replace else _MAP_FIXED_NOREPLACE
    _check(_libc.mmap(address, length, READ_WRITE, flags | fixed, fd, offset), "mmap")


def map_cut_page(address: int, fd: int) -> None:
    """Maps the first page of a file, and truncates the file to nothing. The page is good again once the file is as long
    as a page.
    """
    os.ftruncate(fd, PAGE_SIZE)
    map_at(address, PAGE_SIZE, mmap.MAP_SHARED, fd)
    ctypes.memset(address, 1, PAGE_SIZE)
    os.ftruncate(fd, 0)


def unmap(address: int, length: int) -> None:
    _check(_libc.munmap(address, length), "munmap")


def protect(address: int, length: int, protection: int) -> None:
    _check(_libc.mprotect(address, length, protection), "mprotect")


def advise(address: int, length: int, advice: int) -> None:
    _check(_libc.madvise(address, length, advice), f"madvise with {advice}")
