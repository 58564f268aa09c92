"""Vectored system calls on raw addresses. Each returns what the kernel returns: a count, or a negative errno."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMBERS = {"readv": 19, "writev": 20, "preadv": 295, "pwritev": 296}
OLDEST_KERNEL = (6, 4)

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = (ctypes.c_long,) + (ctypes.c_ulong,) * 5


def require_comparable_kernel() -> None:
    """Fails unless the running kernel imports vectors as this package does.

    Before 6.4 a vector of one segment was not a special case, and the array was read as a whole, so other errors came
    first.
    """
    release, machine = os.uname().release, os.uname().machine
    if machine != "x86_64":
        raise AssertionError(f"these system call numbers are those of x86_64, not of {machine}")
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_KERNEL:
        wanted = ".".join(map(str, OLDEST_KERNEL))
        raise AssertionError(f"the kernel comparison needs Linux {wanted} or newer as its oracle; this is {release}")


def _call(name: str, fd: int, array: int, nr_segs: int, offset: int = 0) -> int:
    result = _libc.syscall(_NUMBERS[name], fd, array, nr_segs, offset, 0)
    return -ctypes.get_errno() if result == -1 else result


def readv(fd: int, array: int, nr_segs: int) -> int:
    return _call("readv", fd, array, nr_segs)


def writev(fd: int, array: int, nr_segs: int) -> int:
    return _call("writev", fd, array, nr_segs)


def preadv(fd: int, array: int, nr_segs: int, offset: int = 0) -> int:
    return _call("preadv", fd, array, nr_segs, offset)


def pwritev(fd: int, array: int, nr_segs: int, offset: int = 0) -> int:
    return _call("pwritev", fd, array, nr_segs, offset)


def user_limit(null_fd: int, page_size: int = 4096) -> int:
    """The first address beyond user space, as the kernel determines it (47 address bits, or 56 with LA57)."""
    for bits in (47, 56):
        limit = (1 << bits) - page_size
        if _takes_empty_range(null_fd, limit) and not _takes_empty_range(null_fd, limit + 1):
            return limit
    raise AssertionError("the kernel's user space ends at neither of the two known limits")


def _takes_empty_range(null_fd: int, base: int) -> bool:
    element = (ctypes.c_ulong * 2)(base, 0)
    return writev(null_fd, ctypes.addressof(element), 1) == 0


@contextmanager
def null_device() -> Iterator[int]:
    """A descriptor of /dev/null: writev imports a vector and returns its count, readv imports it and returns 0. No data
    move.
    """
    fd = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def memory_file(content: bytes = b"") -> Iterator[int]:
    """A file in memory, so that only the user's side of a copy can make its count short."""
    fd = os.memfd_create("oracle")
    try:
        if content:
            os.pwrite(fd, content, 0)
        yield fd
    finally:
        os.close(fd)
