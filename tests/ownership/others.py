"""Scenarios with other handlers of the signals: python -m ownership.others NAME. Each prints `ok` at its end."""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import signal
import sys
from itertools import product
from typing import TYPE_CHECKING

from iovec_rs import READ, IovIter, copy_to_iter, copy_to_iter_flushcache, fault_handler, memcpy_mcsafe
from support.arena import PAGE_SIZE

from ownership.common import (
    BAD_ADDRESS,
    BOTH,
    BUS,
    CUT,
    calls,
    dispositions,
    foreign,
    handle_in_python,
    install_foreign,
    owners,
    probe_foreign,
    remember,
    survive,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def _expect_delivery() -> None:
    """Checks that a signal that is sent still reaches Python's handlers."""
    for number in BOTH:
        calls.clear()
        os.kill(os.getpid(), number)
        for _ in range(1000):
            pass
        assert calls == [number], (calls, number)
    calls.clear()


def nobody_before() -> None:
    assert [handler for handler, _ in dispositions()] == [0, 0]
    assert owners() == ("default", "default")
    assert not fault_handler.status().installed
    assert survive() == ["signal"] * 8
    assert owners() == ("ours", "ours")
    assert fault_handler.status().installed
    assert fault_handler.status().recovered == 8
    siginfo, onstack, nodefer = 4, 0x0800_0000, 0x4000_0000
    for _, flags in dispositions():
        assert flags & (siginfo | onstack | nodefer) == siginfo | onstack | nodefer


def faulthandler_before() -> None:
    faulthandler.enable()
    assert survive() == ["signal"] * 8
    assert faulthandler.is_enabled()


def faulthandler_after() -> None:
    survive()
    faulthandler.enable()
    for _ in range(3):
        survive()
    assert faulthandler.is_enabled()


def faulthandler_on_and_off() -> None:
    """Disabling faulthandler restores the handler that it found when it was enabled, even if ours is installed now."""
    for _ in range(3):
        faulthandler.enable()
        survive()
        faulthandler.enable()
        survive()
        faulthandler.disable()
        survive()


def already_enabled_by_the_command_line() -> None:
    assert faulthandler.is_enabled()
    survive()


def python_handler_before() -> None:
    handle_in_python(remember)
    survive()
    assert calls == []
    _expect_delivery()


def python_handler_after() -> None:
    survive()
    handle_in_python(remember)
    for _ in range(3):
        survive()
        assert calls == []
        _expect_delivery()


def python_handler_between_two_copies() -> None:
    """The answer that was kept for the good copy is outdated for the bad one."""
    for _ in range(20):
        handle_in_python(signal.SIG_DFL)
        assert memcpy_mcsafe(bytearray(10_000), bytes(10_000)).remaining == 0
        handle_in_python(remember)
        survive()
        assert calls == []


def python_acts_right_before_a_copy() -> None:
    """Python changes the handler so soon after a copy that the kept answer might still be used. `_signal` is called
    without the wrappers of `signal`.
    """
    direct = importlib.import_module("_signal")
    good, bad = CUT.buffer[:64], CUT.buffer[PAGE_SIZE:][:64]
    takers: list[Callable[[], object]] = [
        lambda: direct.signal(BUS, remember),
        lambda: direct.signal(BUS, lambda number, _frame: calls.append(number)),
        lambda: direct.signal(BUS, direct.SIG_IGN),
        faulthandler.enable,
        faulthandler.disable,
        lambda: direct.pthread_sigmask(signal.SIG_BLOCK, (BUS,)),
    ]
    for take in takers * 4:
        direct.pthread_sigmask(signal.SIG_UNBLOCK, (BUS,))
        before, after = IovIter.ubuf(READ, bytearray(640)), IovIter.ubuf(READ, bytearray(64))
        for _ in range(10):
            copy_to_iter(good, before)
        take()
        copied = copy_to_iter(bad, after)
        assert (copied, before.count, after.fault and after.fault.cause) == (0, 0, "gone")
        assert calls == []


def c_code_acts_right_before_a_copy() -> None:
    """C code changes the handler as quickly as possible after a copy has ended, when the kept answer is still used."""
    thief = importlib.import_module("thief")
    good, bad = CUT.buffer[:1], CUT.buffer[PAGE_SIZE - 1 :][:2]
    before, after = IovIter.ubuf(READ, bytearray(1)), IovIter.ubuf(READ, bytearray(2))
    first, second = before.save_state(), after.save_state()
    for act, undo in ((thief.take, int), (thief.block, thief.unblock)):
        for _ in range(100_000):
            copy_to_iter(good, before)
            before.restore(first)
            after.restore(second)
            copy_to_iter(good, before)
            act()
            copied = copy_to_iter(bad, after)
            undo()
            before.restore(first)
            assert copied == 1


def c_code_acts_between_two_copies_that_it_makes() -> None:
    """Quicker than from Python: no instruction of the interpreter's and none of the C library's comes between."""
    thief = importlib.import_module("thief")
    good, bad = CUT.buffer[:1], CUT.buffer[PAGE_SIZE - 1 :][:2]
    before, after = IovIter.ubuf(READ, bytearray(2)), IovIter.ubuf(READ, bytearray(2))
    first, second = before.save_state(), after.save_state()
    for copy, takes in product((copy_to_iter, copy_to_iter_flushcache), (True, False)):
        for _ in range(100_000):
            before.restore(first)
            after.restore(second)
            copy(good, before)
            copied = thief.between(copy, good, before, bad, after, takes)
            thief.unblock()
            assert copied == 1


def ignored_before() -> None:
    handle_in_python(signal.SIG_IGN)
    assert owners() == ("ignored", "ignored")
    survive()
    for number in BOTH:
        os.kill(os.getpid(), number)


def ignored_after() -> None:
    survive()
    handle_in_python(signal.SIG_IGN)
    assert owners() == ("ignored", "ignored")
    survive()
    for number in BOTH:
        os.kill(os.getpid(), number)
    survive()


def default_after() -> None:
    survive()
    handle_in_python(signal.SIG_DFL)
    assert owners() == ("default", "default")
    survive()


def one_signal_taken() -> None:
    survive()
    for number in BOTH:
        signal.signal(number, remember)
        assert "foreign" in owners()
        survive()
        assert calls == []
        signal.signal(number, signal.SIG_DFL)


def stranger_below() -> None:
    """The stranger's handler leaves ours by longjmp, so ours never finishes."""
    install_foreign()
    assert owners() == ("foreign", "foreign")
    for _ in range(5):
        survive()
        probe_foreign()


def stranger_below_leaves_from_ever_deeper_down() -> None:
    """Each time our handler is left by longjmp, at a deeper stack, where the earlier call might still be running."""
    install_foreign()
    survive()
    for number in BOTH:
        assert foreign.foreign_probe_deeper(BAD_ADDRESS[number], 1000) == 1000
    survive()


def stranger_below_leaves_and_is_raised_for_later() -> None:
    """A signal that is raised after a handler left ours by longjmp is a new one, at whatever stack depth."""
    for number in BOTH:
        assert foreign.foreign_count(number) == 0
    survive()
    seen = ctypes.c_int.in_dll(foreign, "seen")
    for depth in (0, 1, 7, 50, 300):
        for number in BOTH:
            assert foreign.foreign_probe(BAD_ADDRESS[number]) == 1
            before = seen.value
            foreign.foreign_raise_deeper(number, depth)
            assert seen.value == before + 1, depth
            survive()


def stranger_above() -> None:
    survive()
    install_foreign()
    for _ in range(5):
        survive()
        probe_foreign()


def stranger_between() -> None:
    """Ours is below the stranger's handler and above it, so that a fault that neither handles could be passed round for
    ever.
    """
    fault_handler.install()
    install_foreign()
    fault_handler.install()
    for _ in range(5):
        survive()
        probe_foreign()


def told_about_other_memory_during_a_copy() -> None:
    """A BUS_MCEERR_AO, which the kernel sends when it finds poison that nobody accessed, reaches the program's
    handler.
    """
    _copy_under_forged_signals(5)
    assert calls


def told_by_another_process_during_a_copy() -> None:
    """Signals of kill() and sigqueue() reach the program's handler, also during a copy."""
    for code in (0, -1):
        calls.clear()
        _copy_under_forged_signals(code)
        assert calls, code


def raised_again_during_a_copy() -> None:
    """A signal that one thread sends to another (SI_TKILL) looks like a fault that a handler above ours raised
    again.
    """
    _copy_under_forged_signals(-6)


def _copy_under_forged_signals(code: int) -> None:
    handle_in_python(remember)
    source = bytes(range(256)) * (32 << 12)
    out = bytearray(len(source))
    fault_handler.install()
    foreign.forge_from_alarms(code)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for _ in range(20):
        assert memcpy_mcsafe(out, source) == (len(source), 0, None)
        assert copy_to_iter(source, IovIter.ubuf(READ, out)) == len(source)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert ctypes.c_int.in_dll(foreign, "forged").value > 20
    assert fault_handler.status().recovered == 0


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
