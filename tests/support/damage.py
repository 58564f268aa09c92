"""Good pages that go bad in every way a process can arrange for itself, and that can be mended with what they held."""

from __future__ import annotations

import os
import signal
import tempfile
from enum import Enum
from typing import TYPE_CHECKING

from iovec_rs import testing

from support import mapping
from support.arena import PAGE_SIZE, Arena, Page, window

if TYPE_CHECKING:
    from types import TracebackType

    from iovec_rs import Fault

__all__ = ["PAGE_SIZE", "Damage", "FaultyArena"]

_BUS, _SEGV = int(signal.SIGBUS), int(signal.SIGSEGV)


class Damage(Enum):
    """A way to make a page bad, and what a fault on it looks like: causes, then (signal, code) pairs."""

    CUT = "a memfd truncated", ("gone",), ((_BUS, 2),)
    CUT_FILE = "a file truncated", ("gone",), ((_BUS, 2),)
    PROTECTED = "PROT_NONE", ("protection",), ((_SEGV, 2),)
    UNMAPPED = "nothing mapped", ("unmapped",), ((_SEGV, 1),)
    # No system call tells a guard from a page that is gone.
    GUARD = "MADV_GUARD_INSTALL", ("unmapped", "gone"), ((_SEGV, 1),)
    # Which signal depends on CONFIG_MEMORY_FAILURE; without it not every kernel can tell poison from a page gone.
    POISON = "UFFDIO_POISON", ("poison", "gone"), ((_BUS, 4), (_BUS, 2))

    def explains(self, fault: Fault) -> bool:
        """Whether the fault is one that this page gives, to a signal handler or to a system call."""
        _, causes, signals = self.value
        if fault.origin == "syscall":
            return fault.cause in causes and (fault.signo, fault.si_code, fault.lsb) == (0, 0, 0)
        if self is Damage.GUARD and fault.cause != "unmapped":
            return False
        if fault.si_code == 4 and fault.cause != "poison":
            return False
        return fault.cause in causes and (fault.signo, fault.si_code) in signals


class FaultyArena(Arena):
    """Pages that are good at first. `buffer` covers them all, whatever becomes of them."""

    def __init__(self, npages: int, content: bytes = b"") -> None:
        super().__init__([Page.GOOD] * npages, content)
        self.buffer = memoryview(window(self.address, self.length)).cast("B")
        self._before: dict[int, tuple[Damage, bytes, int]] = {}

    def damage(self, index: int, how: Damage) -> None:
        """Makes a good page bad."""
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
                self.repair(index)  # only a page that nobody has touched can be poisoned
                testing._poison(address, PAGE_SIZE, {0})
        self.pages[index] = Page.PROTECTED
        self._before[index] = how, content, fd

    def mend(self, index: int) -> None:
        """Takes back what was done to the page, which then holds what it held."""
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

    def close(self) -> None:
        for _, _, fd in self._before.values():
            if fd >= 0:
                os.close(fd)
        self._before.clear()
        super().close()

    def __enter__(self) -> FaultyArena:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
