"""Scenarios with a bug that must kill the process as it would without us: python -m ownership.deaths NAME SIGNAL.

Each prints `about to die` first. Anything printed after that must come from the kernel or from faulthandler.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading

from iovec_rs import fault_handler

from ownership.common import BOTH, BUS, crash, foreign, install_foreign, probe_foreign, survive


def alone(number: int) -> None:
    survive()
    _die(number)


def never_copied(number: int) -> None:
    _die(number)


def faulthandler_before(number: int) -> None:
    faulthandler.enable()
    survive()
    _die(number)


def faulthandler_after(number: int) -> None:
    survive()
    faulthandler.enable()
    _die(number)


def faulthandler_after_and_a_copy(number: int) -> None:
    survive()
    faulthandler.enable()
    survive()
    _die(number)


def faulthandler_between(number: int) -> None:
    """The handlers are ours, faulthandler's, and ours again. Each passes the signal to the one below."""
    fault_handler.install()
    faulthandler.enable()
    fault_handler.install()
    survive()
    _die(number)


def faulthandler_and_signals_blocked(number: int) -> None:
    faulthandler.enable()
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
    survive()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
    _die(number)


def faulthandler_in_a_thread(number: int) -> None:
    faulthandler.enable()
    survive()
    thread = threading.Thread(target=_die, args=(number,))
    thread.start()
    thread.join()


def faulthandler_in_a_child(number: int) -> None:
    faulthandler.enable()
    survive()
    child = os.fork()
    if child == 0:
        survive()
        _die(number)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), -code)


def stranger_below(number: int) -> None:
    install_foreign()
    for _ in range(3):
        survive()
        probe_foreign()
    _die(number)


def stranger_above(number: int) -> None:
    survive()
    install_foreign()
    probe_foreign()
    _die(number)


def stranger_between(number: int) -> None:
    """The stranger passes the signal to us, and we pass it to the stranger."""
    fault_handler.install()
    install_foreign()
    fault_handler.install()
    probe_foreign()
    _die(number)


def ignored(number: int) -> None:
    """SIG_IGN ignores a signal that is sent, but not one that a fault raises."""
    signal.signal(number, signal.SIG_IGN)
    survive()
    _die(number)


def blocked(number: int) -> None:
    survive()
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
    survive()
    _die(number)


def uninstalled(number: int) -> None:
    survive()
    fault_handler.uninstall()
    _die(number)


def system_calls_only(number: int) -> None:
    with fault_handler.mode("syscall"):
        survive()
        _die(number)


def sent_to_itself(number: int) -> None:
    survive()
    _announce()
    os.kill(os.getpid(), number)


def sent_from_outside(number: int) -> None:
    survive()
    _announce()
    child = os.fork()
    if child == 0:
        os.kill(os.getppid(), number)
        os._exit(0)
    os.waitpid(child, 0)


def faulthandler_sent_to_itself(number: int) -> None:
    faulthandler.enable()
    survive()
    _announce()
    os.kill(os.getpid(), number)


def told_about_other_memory(number: int) -> None:
    """A BUS_MCEERR_AO that nobody handles."""
    assert number == BUS
    survive()
    _announce()
    foreign.forge_from_alarms(5)
    os.kill(os.getpid(), signal.SIGALRM)


def faulthandler_out_of_stack(number: int) -> None:
    """The handlers below run on the alternate stack that faulthandler installs."""
    del number
    faulthandler.enable()
    survive()
    _announce()
    faulthandler._stack_overflow()  # type: ignore[attr-defined]


def _announce() -> None:
    print("about to die", flush=True)


def _die(number: int) -> None:
    _announce()
    crash(number)


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]))
    print("it lives")
