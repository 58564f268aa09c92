"""faulthandler is enabled and disabled between copies, then the process dies: python -m ownership.steps STEP… END.

Disabling faulthandler restores the handler that it found when it was enabled. A handler that still chains to
faulthandler then calls a function that does nothing.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from pathlib import Path

from ownership.common import BAD_ADDRESS, BUS, SEGV, survive


def copy() -> None:
    survive()


def enable() -> None:
    faulthandler.enable(file=_nowhere)


def disable() -> None:
    faulthandler.disable()


def segv() -> None:
    ctypes.string_at(BAD_ADDRESS[SEGV], 1)


def bus() -> None:
    ctypes.string_at(BAD_ADDRESS[BUS], 1)


def sent() -> None:
    os.kill(os.getpid(), SEGV)


def raised() -> None:
    signal.raise_signal(signal.SIGBUS)


def forked() -> None:
    child = os.fork()
    if child == 0:
        segv()
    os.kill(os.getpid(), -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    _nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - faulthandler keeps its descriptor to the end
    for step in sys.argv[1:]:
        globals()[step]()
    print("it lives")
