"""What the scenarios share: memory that is bad for each of the two signals, a copy that must survive it, and a library
with handlers of its own, the stranger.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import TYPE_CHECKING

import iovec_rs
from support.arena import PAGE_SIZE, Arena
from support.damage import Damage

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BUS, SEGV = int(signal.SIGBUS), int(signal.SIGSEGV)
BOTH = (BUS, SEGV)
_SA_RESTORER = 0x0400_0000

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

CONTENT = bytes(range(1, 129)) * (PAGE_SIZE // 128)
CUT, PROTECTED = Arena.good(2, CONTENT), Arena.good(2, CONTENT)
CUT.damage(1, Damage.CUT)
PROTECTED.damage(1, Damage.PROTECTED)
BAD_ADDRESS = {BUS: CUT.start(1), SEGV: PROTECTED.start(1)}

foreign = ctypes.CDLL(os.environ["FOREIGN_LIBRARY"], use_errno=True)
foreign.foreign_probe.argtypes = (ctypes.c_void_p,)
foreign.foreign_probe_deeper.argtypes = (ctypes.c_void_p, ctypes.c_int)
foreign.recovering_address.restype = ctypes.c_ulong


calls: list[int] = []


def remember(number: int, frame: object) -> None:
    del frame
    calls.append(number)


def handle_in_python(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    for number in BOTH:
        signal.signal(number, handler)


def survive(library: ModuleType = iovec_rs) -> list[str]:
    """Copies across the edge of both kinds of bad memory and checks every byte. Returns the origins of the faults."""
    origins = []
    for arena, cause in ((CUT, "gone"), (PROTECTED, "protection")):
        for before in (0, 1, 10, 77):
            out = bytearray(b"\xee" * 150)
            copied, remaining, fault = library.memcpy_mcsafe(out, arena.buffer[PAGE_SIZE - before :][:150])
            assert (copied, remaining) == (before, 150 - before), (copied, before, fault)
            assert out == CONTENT[PAGE_SIZE - before :] + b"\xee" * (150 - before)
            assert (fault.side, fault.offset, fault.cause) == ("source", before, cause), fault
            origins.append(fault.origin)
    return origins


def dispositions() -> list[tuple[int, int]]:
    """The handler and the flags of both signals, as the kernel reports them."""
    found = []
    for number in BOTH:
        handler, flags = ctypes.c_ulong(), ctypes.c_ulong()
        assert foreign.disposition(number, ctypes.byref(handler), ctypes.byref(flags)) == 0
        found.append((handler.value, flags.value & ~_SA_RESTORER))
    return found


def owners() -> tuple[str, str]:
    status = iovec_rs.fault_handler.status()
    return status.sigbus, status.sigsegv


def install_foreign() -> None:
    for number in BOTH:
        assert foreign.foreign_install(number) == 0


def probe_foreign() -> None:
    """Checks that the stranger recovers from faults of its own of both signals, and gets what the kernel reported about
    them.
    """
    for number, code in ((BUS, 2), (SEGV, 2)):
        before = ctypes.c_int.in_dll(foreign, "seen").value
        assert foreign.foreign_probe(BAD_ADDRESS[number]) == 1
        assert ctypes.c_int.in_dll(foreign, "seen").value == before + 1
        assert ctypes.c_int.in_dll(foreign, "seen_code").value == code
        assert ctypes.c_void_p.in_dll(foreign, "seen_address").value == BAD_ADDRESS[number]


def crash(number: int = SEGV) -> None:
    """Crashes as a bug elsewhere would: ordinary instructions access bad memory."""
    ctypes.string_at(BAD_ADDRESS[number], 1)
    raise AssertionError("still here")
