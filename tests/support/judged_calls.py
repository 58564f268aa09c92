"""System calls of one thread that another one answers: it lets them happen, or refuses them with an errno.

The kernel stops the thread in each of these calls and tells the judge (seccomp's user notification), so nothing in the
library or the C library is replaced. The filter ends with its thread.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["FLOCK", "MSYNC", "STATX", "Call", "judged", "unavailable"]

_MACHINE = os.uname().machine
_NUMBERS = {"x86_64": (317, 110, 73, 26, 332), "aarch64": (277, 173, 32, 227, 291)}
_SECCOMP, _GETPPID, FLOCK, MSYNC, STATX = _NUMBERS.get(_MACHINE, (-1, -1, -1, -1, -1))
_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_NOTICE = struct.Struct("<QIIiIQ6Q")
_ANSWER = struct.Struct("<QqiI")
_CONTINUE = 1
_WAIT = 50
"""The milliseconds after which the judge looks whether the thread has ended."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


@dataclass(frozen=True)
class Call:
    """A system call that waits for its answer."""

    number: int
    arguments: tuple[int, ...]


def _listen(numbers: Sequence[int]) -> int:
    """Makes these calls of this thread wait for an answer from now on. Returns the descriptor by which they come."""
    lines = [(_LOAD, 0, 0, 0)]
    lines += [(_JUMP_IF_EQUAL, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    lines += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in lines))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(code)))
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    arguments = (ctypes.c_long(each) for each in (_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER))
    listener: int = _libc.syscall(*arguments, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
    return listener


def _answer(listener: int, judge: Callable[[Call], int]) -> None:
    notice = bytearray(_NOTICE.size)
    fcntl.ioctl(listener, _RECEIVE, notice)
    identity, _, _, number, _, _, *arguments = _NOTICE.unpack(notice)
    refusal = judge(Call(number, tuple(arguments)))
    fcntl.ioctl(listener, _SEND, _ANSWER.pack(identity, 0, -refusal, 0 if refusal else _CONTINUE))


def judged(numbers: Sequence[int], judge: Callable[[Call], int], program: Callable[[], object]) -> None:
    """Runs a program in a thread of its own, whose calls of these numbers the judge answers in this thread: with an
    errno, or with 0 for a call that happens. Raises what the program raised. A call that is made with the interpreter
    locked waits for ever.
    """
    listening: list[int] = []
    raised: list[BaseException] = []
    is_ready = threading.Event()

    def run() -> None:
        try:
            listening.append(_listen(numbers))
            is_ready.set()
            program()
        except BaseException as error:
            raised.append(error)
        finally:
            is_ready.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    is_ready.wait()
    try:
        while thread.is_alive():
            if listening and select.select(listening, [], [], _WAIT / 1000)[0] and thread.is_alive():
                _answer(listening[0], judge)
    finally:
        for listener in listening:
            os.close(listener)
    thread.join()
    if raised:
        raise raised[0]


def unavailable() -> str | None:
    """Why calls cannot be answered here, if they cannot."""
    if _SECCOMP < 0:
        return f"the numbers of system calls on {_MACHINE} are not known here"
    found: list[int] = []

    def judge(call: Call) -> int:
        found.append(call.number)
        return 0

    try:
        judged([_GETPPID], judge, _libc.getppid)
    except OSError as error:
        return f"no system call can be answered: {error}"
    return None if found == [_GETPPID] else "no system call came to be answered"
