"""A call in a forked child that is made one instruction at a time (ptrace), and what a file has after each."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import signal
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["images", "unavailable"]

T = TypeVar("T")

_TRACE_ME, _CONTINUE, _STEP = 0, 7, 9
_MACHINES = ("x86_64", "aarch64")
"""Where the kernel steps by instructions. Elsewhere it may have no such request."""
_MOST = 5_000_000
"""The instructions of one call, at most. It takes some ten thousand."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


class _Contents:
    """The bytes of a file, which may be made or get its length later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.map: mmap.mmap | None = None

    def read(self) -> bytes:
        if self.map is None:
            if not self.path.exists() or not self.path.stat().st_size:
                return b""
            with self.path.open("rb") as file:
                self.map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return self.map[:]


def _child(prepare: Callable[[], T], call: Callable[[T], object]) -> None:
    """Stops before the call and after it; leaves the process."""
    code = 1
    try:
        argument = prepare()
        gc.disable()
        _libc.ptrace(_TRACE_ME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        call(argument)
        os.kill(os.getpid(), signal.SIGSTOP)
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def images(path: Path, prepare: Callable[[], T], call: Callable[[T], object]) -> Iterator[bytes]:
    """Forks a child that prepares an argument and makes the call with it. Yields what the file has before the call, and
    after each instruction of it that changed the file; the child stands still meanwhile. ValueError if it raised.
    """
    child = os.fork()
    if child == 0:
        _child(prepare, call)
    contents, status = _Contents(path), ctypes.c_int()
    try:
        _, first = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(first):
            raise ValueError(f"the call was not prepared: {os.waitstatus_to_exitcode(first)}")
        last = contents.read()
        yield last
        for _ in range(_MOST):
            if _libc.ptrace(_STEP, child, None, None) != 0:
                raise OSError(ctypes.get_errno(), f"ptrace: {os.strerror(ctypes.get_errno())}")
            _libc.waitpid(child, ctypes.byref(status), 0)
            if not os.WIFSTOPPED(status.value):
                raise ValueError(f"the call has failed: {status.value}")
            if os.WSTOPSIG(status.value) == signal.SIGSTOP:
                break
            now = contents.read()
            if now != last:
                last = now
                yield last
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if contents.map is not None:
            contents.map.close()


def unavailable() -> str | None:
    """Why nothing can be stepped here, if it cannot."""
    machine = os.uname().machine
    if machine not in _MACHINES:
        return f"nothing is known of stepping on {machine}"
    child = os.fork()
    if child == 0:
        _libc.ptrace(_TRACE_ME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        if _libc.ptrace(_STEP, child, None, None) != 0:
            return f"no process can be stepped: ptrace: {os.strerror(ctypes.get_errno())}"
        _, status = os.waitpid(child, 0)
        is_stepped = os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTRAP
        return None if is_stepped else "no process can be stepped"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
