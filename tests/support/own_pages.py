"""Page-aligned memory of a test, with its address."""

from __future__ import annotations

import ctypes
import mmap

from iovec_rs import PAGE_SIZE

__all__ = ["OwnPages"]


class OwnPages:
    """Anonymous pages, mapped for as long as the object or a view of them lives."""

    def __init__(self, npages: int) -> None:
        self.map = mmap.mmap(-1, npages * PAGE_SIZE)
        self.base = ctypes.addressof(ctypes.c_char.from_buffer(self.map))

    def __getitem__(self, where: slice) -> memoryview:
        return memoryview(self.map)[where]

    def page(self, number: int) -> memoryview:
        return self[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]

    def address(self, number: int) -> int:
        """The address of a page."""
        return self.base + number * PAGE_SIZE
