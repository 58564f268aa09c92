"""Memory that really faults: pages that cannot be read or written, are not mapped, or whose file was truncated. They
are bad from the beginning, or from a moment that the test chooses.

Every mapping is placed far below the addresses that the kernel chooses by itself, so that a hole in it stays a hole:
new mappings go into the highest gap, and never reach this one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from enum import Enum
from typing import TYPE_CHECKING, Literal

from iovec_rs import PAGE_SIZE, UserRange, testing

from support import mapping
from support.damage import Damage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = ["PAGE_SIZE", "Arena", "Page", "packed_iovec", "window"]

_BASE = 0x1000_0000_0000
_STRIDE = 0x1000_0000
_ANONYMOUS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class Page(Enum):
    """What one page of an arena allows."""

    GOOD = "readable and writable"
    READ_ONLY = "readable"
    PROTECTED = "mapped without any access"
    UNMAPPED = "not mapped"
    GONE = "mapped from a file that ends before it"

    @property
    def readable(self) -> bool:
        return self in (Page.GOOD, Page.READ_ONLY)

    @property
    def writable(self) -> bool:
        return self is Page.GOOD

    @property
    def cause(self) -> Literal["gone", "protection", "unmapped"]:
        """The word a Fault uses for an access that this page refuses."""
        if self is Page.UNMAPPED:
            return "unmapped"
        return "gone" if self is Page.GONE else "protection"


class Arena:
    """Consecutive pages, each good or bad in its own way. Good pages can be damaged, and damaged pages mended.

    `buffer` covers all of them, good or bad. An arena is a context manager; its end unmaps the pages.
    """

    _cursor = _BASE

    def __init__(self, pages: Sequence[Page], content: bytes = b"", *, address: int | None = None) -> None:
        self.pages = list(pages)
        self.length = len(self.pages) * PAGE_SIZE
        self.address = self._reserve() if address is None else self._map(address, self.length)
        ctypes.memmove(self.address, content, min(len(content), self.length))
        for index, page in enumerate(self.pages):
            self._spoil(self.start(index), page)
        self.buffer = memoryview(window(self.address, self.length)).cast("B")
        self._before: dict[int, tuple[Damage, bytes, int]] = {}

    @classmethod
    def good(cls, npages: int, content: bytes = b"") -> Arena:
        """An arena whose pages are all good until they are damaged."""
        return cls([Page.GOOD] * npages, content)

    def _reserve(self) -> int:
        address = Arena._cursor
        Arena._cursor += (self.length + _STRIDE) // _STRIDE * _STRIDE
        return self._map(address, self.length)

    @staticmethod
    def _map(address: int, length: int) -> int:
        mapping.map_at(address, length, _ANONYMOUS, replace=False)
        return address

    @staticmethod
    def _spoil(address: int, page: Page) -> None:
        match page:
            case Page.GOOD:
                pass
            case Page.READ_ONLY:
                mapping.protect(address, PAGE_SIZE, mmap.PROT_READ)
            case Page.PROTECTED:
                mapping.protect(address, PAGE_SIZE, 0)
            case Page.UNMAPPED:
                mapping.unmap(address, PAGE_SIZE)
            case Page.GONE:
                fd = os.memfd_create("gone")
                try:
                    mapping.map_cut_page(address, fd)
                finally:
                    os.close(fd)

    def start(self, index: int) -> int:
        """The address of a page."""
        return self.address + index * PAGE_SIZE

    def repair(self, index: int) -> None:
        """Replaces the page by a good one full of zeroes."""
        mapping.map_at(self.start(index), PAGE_SIZE, _ANONYMOUS)
        self.pages[index] = Page.GOOD

    def damage(self, index: int, how: Damage) -> None:
        """Makes a good page bad in this way."""
        assert index not in self._before
        address, content, fd = self.start(index), self.read(index * PAGE_SIZE, PAGE_SIZE), -1
        match how:
            case Damage.CUT:
                fd = os.memfd_create("cut")
                mapping.map_cut_page(address, fd)
            case Damage.CUT_FILE:
                fd, path = tempfile.mkstemp(dir="/var/tmp")
                os.unlink(path)  # noqa: PTH108
                mapping.map_cut_page(address, fd)
            case Damage.PROTECTED:
                mapping.protect(address, PAGE_SIZE, 0)
            case Damage.UNMAPPED:
                mapping.unmap(address, PAGE_SIZE)
            case Damage.GUARD:
                mapping.advise(address, PAGE_SIZE, mapping.GUARD_INSTALL)
            case Damage.POISON:
                self.repair(index)  # only a page that was never accessed can be poisoned
                testing._poison(address, PAGE_SIZE, {0})
        self.pages[index] = Page.PROTECTED
        self._before[index] = how, content, fd

    def mend(self, index: int) -> None:
        """Undoes the damage to the page, which then has its contents again."""
        how, content, fd = self._before.pop(index)
        match how:
            case Damage.CUT | Damage.CUT_FILE:
                os.ftruncate(fd, PAGE_SIZE)
                os.close(fd)
            case Damage.PROTECTED:
                mapping.protect(self.start(index), PAGE_SIZE, mapping.READ_WRITE)
            case Damage.GUARD:
                mapping.advise(self.start(index), PAGE_SIZE, mapping.GUARD_REMOVE)
            case Damage.UNMAPPED | Damage.POISON:
                self.repair(index)
        self.pages[index] = Page.GOOD
        self.write(index * PAGE_SIZE, content)

    def range(self, offset: int, length: int) -> UserRange:
        return UserRange(self.address + offset, length)

    def accessible(self, offset: int, length: int, *, write: bool = False) -> int:
        """The number of these bytes before the first that cannot be read (or written)."""
        for index in range(offset // PAGE_SIZE, -(-(offset + length) // PAGE_SIZE)):
            page = self.pages[index]
            if not (page.writable if write else page.readable):
                return max(index * PAGE_SIZE - offset, 0)
        return length

    def read(self, offset: int, length: int) -> bytes:
        assert self.accessible(offset, length) == length, "this read would end the process"
        return ctypes.string_at(self.address + offset, length)

    def write(self, offset: int, data: bytes) -> None:
        assert self.accessible(offset, len(data), write=True) == len(data), "this write would end the process"
        ctypes.memmove(self.address + offset, data, len(data))

    def image(self) -> bytes:
        """All bytes of the arena; pages that cannot be read appear as zeroes."""
        hole = bytes(PAGE_SIZE)
        return b"".join(
            self.read(index * PAGE_SIZE, PAGE_SIZE) if page.readable else hole for index, page in enumerate(self.pages)
        )

    def close(self) -> None:
        for _, _, fd in self._before.values():
            if fd >= 0:
                os.close(fd)
        self._before.clear()
        if self.address:
            mapping.unmap(self.address, self.length)
            self.address = 0

    def __enter__(self) -> Arena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def window(address: int, length: int) -> ctypes.Array[ctypes.c_char]:
    """A buffer over memory that the caller keeps mapped."""
    return (ctypes.c_char * length).from_address(address)


def packed_iovec(segments: Sequence[tuple[int, int]], *, compat: bool = False) -> bytes:
    """An array of struct iovec as the kernel reads it: base and length, negative ones in two's complement."""
    size = 4 if compat else 8
    mask = (1 << 8 * size) - 1
    return b"".join(
        ((base & mask) | (length & mask) << 8 * size).to_bytes(2 * size, "little") for base, length in segments
    )
