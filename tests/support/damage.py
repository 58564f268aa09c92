"""Good pages that go bad in every way a process can arrange for itself, and that can be mended with what they held."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import tempfile
from enum import Enum
from typing import TYPE_CHECKING

from iovec_rs import testing

from support.arena import PAGE_SIZE, Arena, Page, window

if TYPE_CHECKING:
    from types import TracebackType

    from iovec_rs import Fault

__all__ = ["PAGE_SIZE", "Damage", "FaultyArena"]

_MADV_GUARD_INSTALL, _MADV_GUARD_REMOVE = 102, 103
_BUS, _SEGV = int(signal.SIGBUS), int(signal.SIGSEGV)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


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


def _check(result: int | None, call: str) -> None:
    if result in (None, -1, ctypes.c_void_p(-1).value):
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")


class FaultyArena(Arena):
    """Pages that are good at first. `buffer` covers them all, whatever becomes of them."""

    def __init__(self, npages: int, content: bytes = b"") -> None:
        super().__init__([Page.GOOD] * npages, content)
        self.buffer = memoryview(window(self.address, self.length)).cast("B")
        self._before: dict[int, tuple[Damage, bytes, int]] = {}

    def start(self, index: int) -> int:
        return self.address + index * PAGE_SIZE

    def _place(self, index: int, flags: int, fd: int = -1) -> None:
        placed = _libc.mmap(
            self.start(index), PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE, flags | 0x10, fd, 0
        )  # MAP_FIXED
        _check(placed, "mmap")

    def ruin(self, index: int, how: Damage) -> None:
        """Makes a good page bad."""
        assert index not in self._before
        content, fd = self.read(index * PAGE_SIZE, PAGE_SIZE), -1
        match how:
            case Damage.CUT | Damage.CUT_FILE:
                if how is Damage.CUT:
                    fd = os.memfd_create("ruin")
                else:
                    fd, path = tempfile.mkstemp(dir="/var/tmp")
                    os.unlink(path)  # noqa: PTH108
                os.ftruncate(fd, PAGE_SIZE)
                self._place(index, mmap.MAP_SHARED, fd)
                ctypes.memset(self.start(index), 1, PAGE_SIZE)
                os.ftruncate(fd, 0)
            case Damage.PROTECTED:
                _check(_libc.mprotect(self.start(index), PAGE_SIZE, 0), "mprotect")
            case Damage.UNMAPPED:
                _check(_libc.munmap(self.start(index), PAGE_SIZE), "munmap")
            case Damage.GUARD:
                _check(_libc.madvise(self.start(index), PAGE_SIZE, _MADV_GUARD_INSTALL), "madvise(MADV_GUARD_INSTALL)")
            case Damage.POISON:
                self._place(index, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                testing._poison(self.start(index), PAGE_SIZE, {0})
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
                _check(_libc.mprotect(self.start(index), PAGE_SIZE, mmap.PROT_READ | mmap.PROT_WRITE), "mprotect")
            case Damage.GUARD:
                _check(_libc.madvise(self.start(index), PAGE_SIZE, _MADV_GUARD_REMOVE), "madvise(MADV_GUARD_REMOVE)")
            case Damage.UNMAPPED | Damage.POISON:
                self._place(index, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
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
