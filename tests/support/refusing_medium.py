"""A medium that refuses to take a file's pages now and then, and what of the file is on it.

It is a copy of the pages, as they were when an msync of them was let through. Of a refused msync some pages get there,
too, and when the power fails, so do some that were never synced: the kernel writes back when it likes.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE

from support import mapping

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from support.judged_calls import Call

__all__ = ["ERRORS", "Medium"]

SECTOR = 512
"""Bytes of which a medium writes all or none."""

ERRORS = (errno.EIO, errno.EIO, errno.EDQUOT)
"""What a refused msync fails with."""


class Medium:
    """What of a file would be left if the power failed now, and the judge of the msyncs that put it there."""

    def __init__(self, rng: random.Random, path: Path) -> None:
        self.rng, self.path = rng, path
        self.chance = 0.0
        """How often an msync is refused."""
        self.share = 0.5
        """How many pages of a refused msync get there all the same."""
        self.was_refused = False
        """Whether the last msync was."""
        self.refusals = 0
        self.beside: Callable[[], object] = lambda: None
        """What others do while an msync is waited for."""
        self.pages: dict[int, bytes] = {}

    def page(self, number: int) -> bytes:
        return self.pages.get(number, bytes(PAGE_SIZE))

    def at(self, offset: int, nbytes: int) -> bytes:
        first, last = offset // PAGE_SIZE, (offset + nbytes) // PAGE_SIZE
        joined = b"".join(map(self.page, range(first, last + 1)))
        return joined[offset - first * PAGE_SIZE :][:nbytes]

    def _store(self, number: int, data: bytes) -> None:
        self.pages[number] = data[number * PAGE_SIZE :][:PAGE_SIZE].ljust(PAGE_SIZE, b"\0")

    def _torn(self, number: int, data: bytes) -> bytes:
        """A file's data, of one page of which perhaps only some sectors have got there."""
        if self.rng.random() < 0.5:
            return data
        torn, start, page = bytearray(data), number * PAGE_SIZE, self.page(number)
        for sector in range(0, min(PAGE_SIZE, len(data) - start), SECTOR):
            if self.rng.random() < 0.5:
                end = min(start + sector + SECTOR, len(data))
                torn[start + sector : end] = page[sector : sector + end - start - sector]
        return bytes(torn)

    def settle(self) -> None:
        """Everything gets there."""
        data = self.path.read_bytes()
        for number in range(-(-len(data) // PAGE_SIZE)):
            self._store(number, data)

    def judge(self, call: Call) -> int:
        self.beside()
        numbers = self._numbers(*call.arguments[:2])
        self.was_refused = self.rng.random() < self.chance
        self.refusals += self.was_refused
        data = self.path.read_bytes()
        for number in numbers:
            if not self.was_refused or self.rng.random() < self.share:
                self._store(number, self._torn(number, data) if self.was_refused else data)
        return self.rng.choice(ERRORS) if self.was_refused else 0

    def _numbers(self, address: int, nbytes: int) -> range:
        """The pages of the file that are mapped there."""
        for known in mapping.known():
            if known.start <= address < known.end and known.path == str(self.path):
                first = (address - known.start + known.offset) // PAGE_SIZE
                return range(first, first + -(-nbytes // PAGE_SIZE))
        return range(0)

    def fails(self, path: Path) -> None:
        """The power fails: what is left, as a file."""
        data = self.path.read_bytes()
        left = bytearray(self.at(0, len(data)))
        for start in range(0, len(data), PAGE_SIZE):
            if self.rng.random() < 0.3:
                torn = self._torn(start // PAGE_SIZE, data)
                left[start : start + PAGE_SIZE] = torn[start : start + PAGE_SIZE]
        path.write_bytes(left)
