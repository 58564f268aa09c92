"""Makes memory of every kind that the guest's kernel can declare broken, and has it declared so.

Nothing is ever freed: each test is a process that ends soon, and the guest is discarded.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import re
import signal
from pathlib import Path
from typing import NamedTuple

from iovec_rs import PAGE_SIZE, UserRange

EHWPOISON = 133  # not in the errno module of Python 3.11
MADV_HWPOISON = 100
MADV_HUGEPAGE = 14
MAP_HUGETLB = 0x40000
HUGE = 2 << 20
MEMORIES = ("anonymous", "tmpfs", "thp", "hugetlb")
CANARY = 0xA5
NEAR = 8 * PAGE_SIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.sigaction.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class Arena(NamedTuple):
    """Bytes in which at most one stretch is broken."""

    view: memoryview
    address: int
    bad: int = 0  # the offset of the broken stretch
    extent: int = 0  # and its length
    lsb: int = 0

    def range(self, start: int, length: int) -> UserRange:
        return UserRange(self.address + start, length)


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def pattern(length: int, seed: int = 1) -> bytes:
    """Bytes that repeat with a period that is prime: that is cheap to make in an emulator, and bytes from a wrong page
    are detected.
    """
    tile = random.Random(seed).randbytes(16381)
    return (tile * (length // len(tile) + 1))[:length]


_WHOLE = pattern(3 * HUGE)  # once, before the tests fork


def fill_of(kind: str) -> bytes:
    """A pattern as long as the memory that `poisoned` returns for this kind."""
    return _WHOLE if kind == "hugetlb" else _WHOLE[: 8 * PAGE_SIZE]


def good(length: int, fill: bytes | None = None) -> Arena:
    """Ordinary page-aligned memory, filled with canaries or with `fill`."""
    view = memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    view[:] = bytes([CANARY]) * length if fill is None else fill
    return Arena(view, address_of(view))


def map_fresh(kind: str) -> tuple[mmap.mmap, int, int, int]:
    """Makes a mapping of one kind. Returns it, the offset and the length of its usable part, and the size of its
    pages.
    """
    anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if kind == "anonymous":
        return mmap.mmap(-1, 8 * PAGE_SIZE, flags=anonymous), 0, 8 * PAGE_SIZE, PAGE_SIZE
    if kind == "tmpfs":
        fd = os.memfd_create("poison")
        os.ftruncate(fd, 8 * PAGE_SIZE)
        return mmap.mmap(fd, 8 * PAGE_SIZE), 0, 8 * PAGE_SIZE, PAGE_SIZE
    if kind == "thp":
        mapping = mmap.mmap(-1, 2 * HUGE, flags=anonymous)
        mapping.madvise(MADV_HUGEPAGE)
        start = -address_of(memoryview(mapping)) % HUGE
        mapping[start] = 1
        if not huge_at(address_of(memoryview(mapping)) + start):
            raise AssertionError("the kernel gave no huge page")
        return mapping, start, 8 * PAGE_SIZE, PAGE_SIZE
    if kind == "hugetlb":
        return mmap.mmap(-1, 3 * HUGE, flags=anonymous | MAP_HUGETLB), 0, 3 * HUGE, HUGE
    raise ValueError(kind)


def huge_at(address: int) -> bool:
    """Whether the mapping around an address has a transparent huge page."""
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="ascii").splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(span[1], 16) <= address < int(span[2], 16)
        elif inside and line.startswith("AnonHugePages:"):
            return line.split()[1] != "0"
    return False


def poisoned(kind: str, fill: bytes | None = None, *, bad_page: int | None = None) -> Arena:
    """Memory of a kind in which one page is broken: the fifth of eight, or the second of three huge pages."""
    mapping, start, length, page = map_fresh(kind)
    view = memoryview(mapping)[start : start + length]
    number = bad_page if bad_page is not None else (1 if page == HUGE else 4)
    bad = number * page
    content = bytes([CANARY]) * length if fill is None else fill[:length].ljust(length, b"\0")
    # Of huge pages, only the part that a test may read is filled: to write all of them takes an emulator longer than
    # the tests.
    for part in (slice(max(bad - NEAR, 0), bad), slice(bad + page, bad + page + NEAR)):
        view[part] = content[part]
    view[bad] = content[bad]
    inject(mapping, start + bad)
    return Arena(view, address_of(view), bad, page, page.bit_length() - 1)


def inject(mapping: mmap.mmap, start: int) -> int:
    """Has the kernel declare the page at `start` broken. Returns how many signals that raised.

    Some kernels send the injecting process a SIGBUS at once that no access caused. It needs a handler that simply
    returns, as Python's does. Afterwards the handler that was there before is restored.
    """
    seen: list[int] = []
    before = ctypes.create_string_buffer(256)
    _libc.sigaction(signal.SIGBUS, None, before)
    known = signal.signal(signal.SIGBUS, lambda number, _: seen.append(number))
    try:
        mapping.madvise(MADV_HWPOISON, start, PAGE_SIZE)
    finally:
        # First restore Python's record of the handler, which is None for a handler in C; then the real one.
        signal.signal(signal.SIGBUS, signal.SIG_DFL if known is None else known)
        _libc.sigaction(signal.SIGBUS, before, None)
    return len(seen)


class KernelLog:
    """The kernel's messages from now on.

    This kernel logs every access to a broken page that it answers with a signal, handled or not, with its address.
    """

    TOUCH = re.compile(r"due to hardware memory corruption fault at ([0-9a-f]+)")

    def __init__(self) -> None:
        self._fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._fd, 0, os.SEEK_END)

    def messages(self) -> list[str]:
        """The messages since the last call."""
        found = []
        while True:
            try:
                found.append(os.read(self._fd, 8192).decode().partition(";")[2].partition("\n")[0])
            except BlockingIOError:
                return found

    def touches(self, arena: Arena) -> list[int]:
        """The accesses to the broken stretch since the last call, as offsets into it."""
        hits = [int(found[1], 16) for line in self.messages() if (found := self.TOUCH.search(line))]
        first = arena.address + arena.bad
        return [hit - first for hit in hits if first <= hit < first + arena.extent]
