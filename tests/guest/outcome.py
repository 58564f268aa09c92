"""The results of copies over broken memory, and checks of them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, NamedTuple

from iovec_rs import PAGE_SIZE, FaultError

from guest.harness import equal
from guest.memory import CANARY, EHWPOISON
from guest.shapes import RANGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from iovec_rs import Fault, IovIter

    from guest.memory import Arena, KernelLog

BUS_MCEERR_AR = 4


class Outcome(NamedTuple):
    """The result of one copy, whether it returned a short count or raised."""

    copied: int
    fault: Fault | None
    raised: bool


def of(iterator: IovIter, copy: Callable[[], int], *, number: int | None = EHWPOISON) -> Outcome:
    """Makes the copy. If it raises, the error must have this number; None accepts any."""
    try:
        copied = copy()
    except FaultError as error:
        if number is not None:
            equal(error.errno, number, "errno")
        return Outcome(error.copied, error.fault, True)
    return Outcome(copied, iterator.fault, False)


def check(outcome: Outcome, arena: Arena, side: str, copied: int, *, origin: str = "signal") -> None:
    """Checks that exactly `copied` bytes were copied, and that the fault says so and names the broken stretch."""
    equal(outcome.copied, copied, "bytes copied")
    check_fault(outcome.fault, arena, side, copied, origin=origin)


def check_fault(fault: Fault | None, arena: Arena, side: str, offset: int, *, origin: str = "signal") -> None:
    if fault is None:
        raise AssertionError("no fault is told")
    equal((fault.cause, fault.origin, fault.side, fault.offset), ("poison", origin, side, offset), "fault")
    if origin == "signal":
        equal((fault.signo, fault.si_code, fault.lsb), (signal.SIGBUS, BUS_MCEERR_AR, arena.lsb), "signal")
        equal((fault.address - arena.address, fault.length), (arena.bad, arena.extent), "extent")
    else:
        # A system call reports where it stopped, but not the extent.
        equal((fault.signo, fault.si_code, fault.lsb), (0, 0, 0), "signal")
        equal((fault.address - arena.address, fault.length), (arena.bad, PAGE_SIZE), "extent")


def check_touches(log: KernelLog, arena: Arena, result: Outcome) -> None:
    """Checks that the copy accessed the broken stretch once, or not at all if the kernel made it."""
    signalled = result.fault is not None and result.fault.origin == "signal"
    equal(len(log.touches(arena)), int(signalled), "touches")


def check_bytes(got: bytes | bytearray | memoryview, want: bytes) -> None:
    """Checks that the bytes are `want`, followed by canaries."""
    got = bytes(got)
    if got[: len(want)] != want:
        first = next(index for index in range(len(want)) if got[index] != want[index])
        raise AssertionError(f"byte {first} of {len(want)} copied is wrong")
    rest = got[len(want) :].lstrip(bytes([CANARY]))
    if rest:
        raise AssertionError(f"byte {len(got) - len(rest)} was written, {len(want)} were copied")


def origin(kind: str, result: Outcome) -> str:
    """The origin that the fault must have: a signal for buffers, and either origin for raw addresses, since no mode is
    set.
    """
    if kind in RANGES and result.fault is not None:
        return result.fault.origin
    return "signal"
