"""The ways in which a process can make one of its pages bad, and the faults that result."""

from __future__ import annotations

import signal
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iovec_rs import Fault

_BUS, _SEGV = int(signal.SIGBUS), int(signal.SIGSEGV)


class Damage(Enum):
    """A way to make a page bad, and what its faults may report: the causes, and the pairs of signal and code."""

    CUT = "a memfd truncated", ("gone",), ((_BUS, 2),)
    CUT_FILE = "a file truncated", ("gone",), ((_BUS, 2),)
    PROTECTED = "PROT_NONE", ("protection",), ((_SEGV, 2),)
    UNMAPPED = "nothing mapped", ("unmapped",), ((_SEGV, 1),)
    # No system call distinguishes a guard page from a page that is gone.
    GUARD = "MADV_GUARD_INSTALL", ("unmapped", "gone"), ((_SEGV, 1),)
    # The signal's code depends on CONFIG_MEMORY_FAILURE. Without it not every kernel can tell poison from a page that
    # is gone.
    POISON = "UFFDIO_POISON", ("poison", "gone"), ((_BUS, 4), (_BUS, 2))

    def explains(self, fault: Fault) -> bool:
        """Whether the fault is one that such a page causes, reported by a signal or by a system call."""
        _, causes, signals = self.value
        if fault.origin == "syscall":
            return fault.cause in causes and (fault.signo, fault.si_code, fault.lsb) == (0, 0, 0)
        if self is Damage.GUARD and fault.cause != "unmapped":
            return False
        if fault.si_code == 4 and fault.cause != "poison":
            return False
        return fault.cause in causes and (fault.signo, fault.si_code) in signals
