"""Memory that really faults, and Hypothesis strategies, for tests of code that has to survive bad memory.

    with testing.poisoned(3, bad=[(4096, 1)]) as memory:
        copied = copy_to_iter(memory.buffer, i)     # 4096, and i.fault says why

Nothing is simulated: an ordinary load or store to a bad page raises SIGBUS, which kills the process. That includes
`bytes(memory.buffer)`, a comparison, a failed assertion that prints the memory, and a debugger's list of variables.
Only the copies of this package and system calls may access bad pages.

`buffers`, `segments` and `iov_iters` need Hypothesis; the rest does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import struct
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, UserRange
from iovec_rs._strategies import buffers, iov_iters, segments

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["FaultyMemory", "buffers", "iov_iters", "pattern", "poisoned", "segments", "truncated"]

_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282}
_USER_MODE_ONLY = 1
_UFFD_API = 0xAA
_FEATURE_POISON = 1 << 14
_REGISTER_MODE_MISSING = 1
_UFFDIO_API = 0xC018AA3F
_UFFDIO_REGISTER = 0xC020AA00
_UFFDIO_UNREGISTER = 0x8010AA01
_UFFDIO_POISON = 0xC020AA08


class FaultyMemory(mmap.mmap):
    """A mapping of whole pages, some of which fault when accessed. It is a buffer, as every `mmap` is."""

    def __init__(self, fileno: int, length: int, flags: int) -> None:
        del fileno, flags
        self.length: int = length
        """The size of the mapping in bytes, bad pages included."""
        self.address: int = ctypes.addressof(ctypes.c_char.from_buffer(self))
        """Its first address, a multiple of the page size."""
        self.buffer: memoryview = memoryview(self)
        """A writable view of the whole mapping. It keeps the mapping alive: see `poisoned`."""

    def range(self, offset: int = 0, length: int | None = None) -> UserRange:
        """`length` bytes (by default, the rest) from `offset` on, as a raw range, which does not keep the mapping
        alive.

        ValueError if the range leaves the mapping.
        """
        rest = self.length - offset
        if not 0 <= offset <= self.length:
            raise ValueError(f"offset {offset} is outside the {self.length} bytes mapped")
        if length is None:
            length = rest
        if not 0 <= length <= rest:
            raise ValueError(f"length {length} at offset {offset} is outside the {self.length} bytes mapped")
        return UserRange(self.address + offset, length)

    def _fill(self, pages: Iterable[int]) -> None:
        for page in pages:
            start = page * PAGE_SIZE
            self.buffer[start : start + PAGE_SIZE] = pattern(start, PAGE_SIZE)

    def _release(self) -> None:
        """Unmaps the memory, now or when its last view is released."""
        with contextlib.suppress(BufferError):
            self.buffer.release()
        with contextlib.suppress(BufferError):
            self.close()


_RUN = bytes(at % 255 + 1 for at in range(255 + 251))


def pattern(offset: int, length: int) -> bytes:
    """The initial contents of good pages: no zero bytes, no two equal neighbours, and different in every page."""
    first = offset // 251
    blocks = (block % 255 for block in range(first, first + length // 251 + 2))
    whole = b"".join(_RUN[block : block + 251] for block in blocks)
    skip = offset - first * 251
    return whole[skip : skip + length]


@contextlib.contextmanager
def poisoned(npages: int, bad: Iterable[tuple[int, int]] = ()) -> Iterator[FaultyMemory]:
    """Anonymous memory in which every page that a range `(offset, length)` of `bad` touches is poisoned.

    The kernel poisons them (`UFFDIO_POISON`): an access raises SIGBUS, as with memory whose hardware has failed. The
    signal's code is BUS_MCEERR_AR if the kernel has CONFIG_MEMORY_FAILURE, otherwise BUS_ADRERR. The other pages hold
    `pattern`.

    The memory is unmapped when the block ends or, if views, arrays or iterators over `buffer` are still alive, with the
    last of them. A `range` does not count: after the block, anything may be at its address.

    OSError if the kernel cannot poison pages, which needs Linux 6.6 and no seccomp filter against userfaultfd.
    ValueError if `npages` is not positive or a range is outside the mapping.
    """
    _positive(npages)
    memory = FaultyMemory(-1, npages * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages = _touched(bad, memory.length)
    try:
        if pages:
            _poison(memory.address, memory.length, pages)
        memory._fill(page for page in range(npages) if page not in pages)
        yield memory
    finally:
        memory._release()


@contextlib.contextmanager
def truncated(npages: int, keep: int) -> Iterator[FaultyMemory]:
    """A shared mapping of `npages` pages of a file that was truncated to its first `keep` pages after it was mapped.

    An access to the pages beyond raises SIGBUS with code BUS_ADRERR; the pages before hold `pattern`. The file is
    anonymous (`memfd_create`). The mapping lives as long as with `poisoned`. ValueError unless `0 <= keep <= npages`
    and `npages` is positive.
    """
    _positive(npages)
    if not 0 <= keep <= npages:
        raise ValueError(f"keep is {keep}, not between 0 and the {npages} pages mapped")
    fd = os.memfd_create("iovec_rs.testing.truncated", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, npages * PAGE_SIZE)
        memory = FaultyMemory(fd, npages * PAGE_SIZE, mmap.MAP_SHARED)
        try:
            memory._fill(range(keep))
            os.ftruncate(fd, keep * PAGE_SIZE)
            yield memory
        finally:
            memory._release()
    finally:
        os.close(fd)


def _positive(npages: int) -> None:
    if npages <= 0:
        raise ValueError(f"npages is {npages}, not positive")


def _touched(ranges: Iterable[tuple[int, int]], size: int) -> set[int]:
    pages: set[int] = set()
    for index, (offset, length) in enumerate(ranges):
        if offset < 0 or length < 0 or offset + length > size:
            raise ValueError(f"bad[{index}] is ({offset}, {length}), outside the {size} bytes mapped")
        if length:
            pages.update(range(offset // PAGE_SIZE, (offset + length - 1) // PAGE_SIZE + 1))
    return pages


def _poison(address: int, length: int, pages: set[int]) -> None:
    """Poisons pages of a private anonymous mapping. Only pages that were never accessed can be poisoned, and they stay
    so.
    """
    fd = -1
    try:
        fd = _userfaultfd()
        fcntl.ioctl(fd, _UFFDIO_API, struct.pack("QQQ", _UFFD_API, _FEATURE_POISON, 0))
        everything = struct.pack("QQ", address, length)
        fcntl.ioctl(fd, _UFFDIO_REGISTER, everything + struct.pack("QQ", _REGISTER_MODE_MISSING, 0))
        for page in sorted(pages):
            start = address + page * PAGE_SIZE
            fcntl.ioctl(fd, _UFFDIO_POISON, struct.pack("QQQq", start, PAGE_SIZE, 0, 0))
        fcntl.ioctl(fd, _UFFDIO_UNREGISTER, everything)
    except OSError as error:
        number = error.errno or errno.ENOSYS
        raise OSError(
            number,
            f"cannot poison memory: {os.strerror(number)}; it takes UFFDIO_POISON of Linux 6.6 or later with "
            "CONFIG_USERFAULTFD, no seccomp filter against userfaultfd, and where that is still refused sysctl "
            "vm.unprivileged_userfaultfd=1",
        ) from error
    finally:
        if fd >= 0:
            os.close(fd)


def _userfaultfd() -> int:
    number = _SYS_USERFAULTFD.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    fd: int = libc.syscall(ctypes.c_long(number), ctypes.c_long(os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
