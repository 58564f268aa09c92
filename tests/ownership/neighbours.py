"""Other handlers of the process in every order with ours: python -m ownership.neighbours LIBRARY… < CASES > OUTCOMES.

Each case runs in a forked child. Its outcome is the status of the child and the counts of neighbour a.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import sys

from iovec_rs import fault_handler

from ownership.case import NAMES, WAYS, Case
from ownership.common import BAD_ADDRESS, BUS, SEGV, survive

STYLES = ["chain", "replace", "restore", "jump", "mend", "skip"]
FLAGS = {"info": 4, "plain": 0, "nodefer": 0x4000_0000, "resethand": 0x8000_0000, "onstack": 0x0800_0000}
CPU_SECONDS = 0.15


COUNTED = ["calls", "nested_most", "interrupted", "recovered", "blocked_after"]


class Tally(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in [*COUNTED, "entered", "go"])


def run_case(case: Case) -> tuple[int, list[int]]:
    """Runs a case. Returns the exit code of its child, or its signal as a negative number, and the counts."""
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    tally = Tally.from_buffer(shared)
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(Exception):
            live(case, tally)
            code = 0
        os._exit(code)
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ended, [getattr(tally, name) for name in COUNTED]


def live(case: Case, tally: Tally) -> None:
    # A fault that is raised for ever uses up the CPU time that the child has.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    fault_handler.mode("signal" if case.ours else "syscall")
    flags = sum(FLAGS.get(flag, 0) for flag in case.flags.split("+"))
    for step in case.order.split():
        if step == "copy":
            survive()
        elif step.startswith("-"):
            libraries[step[1]].neighbour_leave()
        else:
            library = libraries[step]
            library.neighbour_watch(ctypes.byref(tally) if step == "a" else OF_B)
            style, given = (case.style, flags) if step == "a" else ("chain", FLAGS["info"])
            library.neighbour_come(STYLES.index(style), ctypes.c_int(given & 0xFFFF_FFFF), "mask" in case.flags)
    end(case, libraries["a"])
    survive()


def nests(case: Case) -> bool:
    """Whether neighbour a is called again while its handler runs. It is not if neighbour b chains to it, since b's mask
    blocks the signal.
    """
    return "nodefer" in case.flags and ("b" not in case.order or "-b" in case.order)


def end(case: Case, library: ctypes.CDLL) -> None:
    name, _, argument = case.end.partition(":")
    if name in ("segv", "bus"):
        ctypes.string_at(BAD_ADDRESS[SEGV if name == "segv" else BUS], 1)
    elif name == "sent":
        os.kill(os.getpid(), SEGV)
    elif name == "raised":
        signal.raise_signal(signal.SIGBUS)
    elif name == "three":
        library.neighbour_is_sent_three(BUS, WAYS.index(argument), nests(case))
    elif name == "probe":
        library.neighbour_probe(ctypes.c_void_p(BAD_ADDRESS[SEGV]), 3, argument == "saving")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (BUS, SEGV))
    elif name == "barrier":
        library.neighbour_store_through_barrier(100)
    else:
        library.neighbour_overflow()


if __name__ == "__main__":
    libraries = {name: ctypes.CDLL(path) for name, path in zip(NAMES, sys.argv[1:], strict=True)}
    OF_B = ctypes.byref(Tally())
    outcomes = [run_case(Case(*case)) for case in json.load(sys.stdin)]
    json.dump(outcomes, sys.stdout)
