"""The signal handler with threads, forks, faulthandler, other handlers, and signals that no copy caused."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, WRITE, IovIter, copy_from_iter, fault_handler

from guest import outcome
from guest.harness import equal, test
from guest.memory import (
    MADV_HWPOISON,
    MEMORIES,
    Arena,
    KernelLog,
    address_of,
    good,
    inject,
    map_fresh,
    pattern,
    poisoned,
)
from guest.shapes import over

if TYPE_CHECKING:
    from collections.abc import Callable

LEAD, BEYOND = 1234, 500
PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY = 33, 1, 1
_libc = ctypes.CDLL(None, use_errno=True)


def survives(arena: Arena, *, origin: str = "signal") -> None:
    """Copies from user memory and from trusted memory across the broken page, and checks that both are exact."""
    out = good(PAGE_SIZE)
    for kind in ("ubuf", "kvec"):
        iterator = over(kind, arena, WRITE, arena.bad - LEAD, LEAD + BEYOND)
        result = outcome.of(iterator, lambda: copy_from_iter(out.view[: LEAD + BEYOND], iterator))  # noqa: B023
        outcome.check(result, arena, "source", LEAD, origin=origin)
        equal(result.raised, kind == "kvec", f"{kind}: raised")


@test()
def a_signal_that_was_recovered_from_is_counted() -> None:
    arena = poisoned("anonymous")
    survives(arena)
    status = fault_handler.status()
    equal((status.installed, status.sigbus, status.sigsegv), (True, "ours", "ours"), "status")
    equal(status.recovered, 2, "recovered")


@test(memory=MEMORIES)
def an_injection_is_not_taken_for_a_fault_of_a_copy(memory: str) -> None:
    survives(poisoned("anonymous"))
    before = fault_handler.status().recovered
    mapping, start, length, page = map_fresh(memory)
    mapping[start : start + length] = bytes(length)
    inject(mapping, start + page)
    equal(fault_handler.status().recovered, before, "recovered")
    survives(poisoned("anonymous"))


@test()
def a_notice_of_distant_damage_goes_to_the_programs_handler() -> None:
    """With PR_MCE_KILL_EARLY the kernel reports damage that nobody has accessed. No copy may take that for its own
    fault.
    """
    notices: list[int] = []
    signal.signal(signal.SIGBUS, lambda number, _: notices.append(number))
    broken = poisoned("anonymous")
    survives(broken)
    signals = fault_handler.status().recovered
    equal(_libc.prctl(PR_MCE_KILL, PR_MCE_KILL_SET, PR_MCE_KILL_EARLY, 0, 0), 0, "prctl")
    mapping = mmap.mmap(-1, 4 * PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapping[:] = bytes(4 * PAGE_SIZE)
    mapping.madvise(MADV_HWPOISON, PAGE_SIZE, PAGE_SIZE)
    equal(notices, [signal.SIGBUS], "notices")
    equal(fault_handler.status().recovered, signals, "recovered")
    survives(broken)


@test(memory=MEMORIES)
def a_child_sees_the_same_poison_and_survives_it(memory: str) -> None:
    arena = poisoned(memory)
    survives(arena)
    for _ in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                survives(arena)
                code = 0
            finally:
                os._exit(code)
        equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0, "the child's exit code")
    survives(arena)


@test(memory=MEMORIES)
def eight_threads_copy_across_it_at_once(memory: str) -> None:
    fill, rounds = pattern(8 * PAGE_SIZE), 25
    arena = poisoned(memory, None if memory == "hugetlb" else fill)
    wrong: list[str] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        out = good(4 * PAGE_SIZE)
        start.wait()
        for turn in range(rounds):
            lead = PAGE_SIZE * 2 + 64 * number + turn
            source = arena.view[arena.bad - lead : arena.bad + BEYOND]
            copied = copy_from_iter(out.view[: lead + BEYOND], IovIter.ubuf(WRITE, source))
            if copied != lead:
                wrong.append(f"thread {number}: {copied} instead of {lead}")
            if out.view[:lead] != source[:lead]:
                wrong.append(f"thread {number}: wrong bytes")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(wrong, [], "wrong")
    equal(fault_handler.status().recovered, 8 * rounds, "recovered")


def nothing() -> None:
    pass


def python_handler() -> None:
    signal.signal(signal.SIGBUS, lambda *_: None)


def ignored() -> None:
    signal.signal(signal.SIGBUS, signal.SIG_IGN)


def blocked() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS, signal.SIGSEGV])


COMPANY: dict[str, Callable[[], None]] = {
    "nobody": nothing,
    "faulthandler": faulthandler.enable,
    "a handler in Python": python_handler,
    "an ignored signal": ignored,
    "a blocked signal": blocked,
}


@test(company=COMPANY, when=("before", "after"))
def copies_survive_in_the_company_of(company: str, when: str) -> None:
    arena = poisoned("anonymous")
    if when == "after":
        survives(arena)
    COMPANY[company]()
    for _ in range(3):
        survives(arena, origin="syscall" if company == "a blocked signal" else "signal")
    if company == "a blocked signal":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        equal({signal.SIGBUS, signal.SIGSEGV} <= mask, True, "still blocked")


@test(reporter=(False, True))
def an_access_outside_any_copy_still_kills(reporter: bool) -> None:
    arena = poisoned("anonymous")
    if reporter:
        faulthandler.enable()
    survives(arena)
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(out, 2)
        signal.alarm(60)
        ctypes.string_at(arena.address + arena.bad + 8, 1)
        os._exit(0)
    os.close(out)
    with os.fdopen(back, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    equal(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), -signal.SIGBUS, "exit code")
    equal("Bus error" in said, reporter, f"a report in {said!r}")


@test()
def without_the_handler_nothing_is_installed() -> None:
    arena, log = poisoned("anonymous"), KernelLog()
    with fault_handler.mode("syscall"):
        survives(arena, origin="syscall")
        status = fault_handler.status()
        equal(
            (status.mode, status.installed, status.sigbus, status.recovered), ("syscall", False, "default", 0), "status"
        )
    equal(log.touches(arena), [], "touches")


@test()
def taking_the_handler_out_leaves_copies_safe() -> None:
    arena = poisoned("anonymous")
    survives(arena)
    fault_handler.uninstall()
    equal(fault_handler.status().sigbus, "default", "SIGBUS")
    survives(arena)


@test()
def a_new_process_under_faulthandler_survives_from_its_first_copy() -> None:
    code = "from guest import handler, memory; handler.survives(memory.poisoned('anonymous'))"
    done = subprocess.run(
        [sys.executable, "-B", "-X", "faulthandler", "-c", code], capture_output=True, text=True, check=False
    )
    equal((done.returncode, done.stderr[-200:]), (0, ""), "exit code, complaints")


SIZE = 1 << 20  # large enough for pages of its own


@test(company=("nobody", "faulthandler"))
def the_interpreters_own_memory_may_break_too(company: str) -> None:
    """Copies of heap memory do not check the handler each time, so somebody else may handle the signal by then."""
    memory = bytearray(pattern(SIZE))
    view, out = memoryview(memory), bytearray(SIZE)
    equal(copy_from_iter(out, IovIter.ubuf(WRITE, memory)), SIZE, "copied while sound")
    COMPANY[company]()
    bad = -address_of(view) % PAGE_SIZE + 5 * PAGE_SIZE
    equal(
        _libc.madvise(ctypes.c_void_p(address_of(view) + bad), ctypes.c_size_t(PAGE_SIZE), MADV_HWPOISON), 0, "madvise"
    )
    arena = Arena(view, address_of(view), bad, PAGE_SIZE, 12)
    for _ in range(3):
        out = bytearray(SIZE)
        iterator = IovIter.ubuf(WRITE, memory)
        outcome.check(outcome.of(iterator, lambda: copy_from_iter(out, iterator)), arena, "source", bad)  # noqa: B023
