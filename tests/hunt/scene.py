"""Threads that act at once for a moment, and a mapped file that is truncated."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, READ, IovIter
from support import mapping

from hunt.finding import doing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Mapping", "address_of", "ended", "forked", "together"]

_LIMIT = 60
"""The seconds that a forked child may take. It needs hundredths of one."""


def address_of(buffer: mmap.mmap | memoryview) -> int:
    return IovIter.ubuf(READ, buffer).ranges()[0].address


class Mapping:
    """A memory file and a shared mapping of all of it."""

    def __init__(self, npages: int, fill: bytes) -> None:
        self.size = npages * PAGE_SIZE
        self.fd = os.memfd_create("hunt")
        os.ftruncate(self.fd, self.size)
        self.map = mmap.mmap(self.fd, self.size)
        self.map[:] = fill * self.size
        self.view = memoryview(self.map)
        self.address = address_of(self.map)

    def cut(self, size: int) -> None:
        os.ftruncate(self.fd, size)

    def protect(self, page: int, protection: int) -> None:
        mapping.protect(self.address + page * PAGE_SIZE, PAGE_SIZE, protection)

    def __enter__(self) -> Mapping:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BufferError):  # a traceback may hold views of it
            self.view.release()
            self.map.close()
        os.close(self.fd)


def forked(program: Callable[[], int]) -> int:
    """Forks a child that runs the program, and returns its status as from waitpid. The child exits with what the
    program returns, or with 4 after an exception.
    """
    pid = os.fork()
    if pid == 0:
        code = 4
        try:
            signal.alarm(_LIMIT)
            code = program()
        except BaseException as error:
            doing(f"{type(error).__name__} in a child: {error}")
            os.write(2, f"child: {type(error).__name__}: {error}\n".encode())
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1]


def ended(status: int) -> str:
    """The status of a child that has ended, as from waitpid."""
    if os.WIFSIGNALED(status):
        return f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    return f"code {os.WEXITSTATUS(status)}"


def together(seconds: float, *actions: Callable[[], object]) -> None:
    """Runs each action repeatedly in a thread of its own, until the time is up. Raises what one of them raised."""
    end = time.monotonic() + seconds
    errors: list[BaseException] = []

    def work(action: Callable[[], object]) -> None:
        try:
            while time.monotonic() < end and not errors:
                action()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(action,), daemon=True) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
