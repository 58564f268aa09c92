"""Handlers of the tests, installed by the C library's calls, for tests of the signals themselves."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SA_SIGINFO = 4


class _Siginfo(ctypes.Structure):
    """`siginfo_t` of a fault on x86-64."""

    _fields_ = (
        ("signo", ctypes.c_int),
        ("errno", ctypes.c_int),
        ("code", ctypes.c_int),
        ("padding", ctypes.c_int),
        ("address", ctypes.c_void_p),
        ("lsb", ctypes.c_short),
        ("rest", ctypes.c_char * 102),
    )


_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.POINTER(_Siginfo), ctypes.c_void_p)


class _Sigaction(ctypes.Structure):
    """`struct sigaction` of the C library."""

    _fields_ = (
        ("handler", _HANDLER),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sigaction.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class Seen(NamedTuple):
    """The fields of a signal that was received."""

    signo: int
    code: int
    address: int
    lsb: int


def record(access: Callable[[], object]) -> Seen:
    """Makes an access that must raise SIGBUS, in a child that exits in the handler, since the access would be repeated
    if that returned.
    """
    back, out = os.pipe()
    child = os.fork()
    if child == 0:

        def handler(number: int, info: Any, _: object) -> None:
            said = info.contents
            os.write(out, struct.pack("iiQi", number, said.code, said.address or 0, said.lsb))
            os._exit(0)

        action = _Sigaction(handler=_HANDLER(handler), flags=SA_SIGINFO)
        _libc.sigaction(signal.SIGBUS, ctypes.byref(action), None)
        try:
            access()
        finally:
            os._exit(1)
    os.close(out)
    with os.fdopen(back, "rb") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        raise AssertionError("the access raised no signal")
    return Seen(*struct.unpack("iiQi", said))
