"""Several threads, several processes: python -m guard.threads NAME."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import PAGE_SIZE, guard

from guard.common import MappedFile, extents, mappings, mappings_before, places

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = float(os.environ.get("GUARD_SECONDS", "4"))


def _together(*work: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run(each: Callable[[], object]) -> None:
        try:
            each()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def eight_threads_over_ranges_of_their_own() -> None:
    files = [MappedFile(64) for _ in range(8)]

    def work(index: int) -> None:
        file = files[index]
        for _ in range(20):
            file.cut(index)
            with guard(file.array, on_fault="record") as watch:
                assert file.array.sum() == file.expected[: index * PAGE_SIZE].sum()
            assert places(watch.faults, file.address) == [(index, 64 - index)]
            file.grow_back()
            assert np.array_equal(file.array, file.expected)

    _together(*(lambda index=index: work(index) for index in range(8)))
    assert extents() == 0


def eight_threads_over_one_range() -> None:
    file = MappedFile(512)
    file.cut(1)
    watches = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(512)
        with guard(file.array, on_fault="record") as watch:
            assert file.array[order * PAGE_SIZE].sum() == 1
        watches.append(watch)

    for _ in range(20):
        watches.clear()
        _together(*(lambda seed=seed: work(seed) for seed in range(8)))
        for watch in watches:
            assert sum(length for _, length in places(watch.faults, file.address)) >= 511
        assert extents() == 0
    file.check_is_the_file_again()


def eight_threads_inside_one_guard() -> None:
    file = MappedFile(2048)
    file.cut(0)
    before = len(mappings_before())
    with guard(file.array, on_fault="record") as watch:
        _together(*(lambda at=at: file.array[at::8].sum() for at in range(8)))
    assert places(watch.faults, file.address) == [(0, 2048)]
    assert abs(len(mappings()) - before) < 64  # the stacks of the threads
    file.check_is_the_file_again()


def a_thread_guards_its_own_faults_only() -> None:
    files = [MappedFile(32) for _ in range(4)]
    reports: dict[int, list[tuple[int, int]]] = {}

    def work(index: int) -> None:
        file = files[index]
        file.cut(index)
        with guard(on_fault="record") as watch:
            file.array.sum()
            time.sleep(0.05)
        reports[index] = places(watch.faults, file.address)

    _together(*(lambda index=index: work(index) for index in range(4)))
    assert reports == {index: [(index, 32 - index)] for index in range(4)}
    for file in files:
        file.check_is_the_file_again()


def a_forked_child_puts_back_its_own() -> None:
    for buffers in (True, False):
        file = MappedFile()
        file.cut(2)
        with guard(*[file.array][:buffers], on_fault="record") as watch:
            file.array[5 * PAGE_SIZE]
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
            assert not file.array[2 * PAGE_SIZE :].any()
        assert watch.lost == 14 * PAGE_SIZE
        file.grow_back()
        assert np.array_equal(file.array, file.expected)
        file.cut(2)
        if child == 0:
            os._exit(0)
        assert extents() == 0
        file.check_is_the_file_again()


def a_child_forked_while_threads_fault_is_whole() -> None:
    file = MappedFile(256)
    end = time.monotonic() + SECONDS
    file.cut(0)

    def fault() -> None:
        order = np.random.default_rng().permutation(256) * PAGE_SIZE
        while time.monotonic() < end:
            with guard(file.array, on_fault="record"):
                file.array[order].sum()

    def fork() -> None:
        while time.monotonic() < end:
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                with guard(file.array, on_fault="record") as watch:
                    file.array[::PAGE_SIZE].sum()
                os._exit(0 if watch.lost >= 256 * PAGE_SIZE else 1)
            assert os.waitpid(child, 0)[1] == 0

    _together(fault, fault, fork)
    file.check_is_the_file_again()


def a_fork_that_waits_for_a_thread_which_faults_comes_to_an_end() -> None:
    """A library's fork handler may wait for a thread of that library, which may be faulting."""
    file = MappedFile(64)
    file.cut(0)
    waiting: list[threading.Thread] = []

    def wait() -> None:
        for thread in waiting:
            thread.start()
            thread.join()

    handler = ctypes.CFUNCTYPE(None)(wait)
    # It is registered before ours, so the C library calls it after ours.
    assert ctypes.CDLL(None)["__register_atfork"](handler, None, None, None) == 0
    with guard(file.array, on_fault="record") as watch:
        file.array[5 * PAGE_SIZE]
        waiting.append(threading.Thread(target=lambda: file.array[9 * PAGE_SIZE]))
        child = os.fork()
        waiting.clear()
        if child == 0:
            signal.alarm(60)
            assert file.array[30 * PAGE_SIZE] == 0
        else:
            assert os.waitpid(child, 0)[1] == 0
    assert places(watch.faults, file.address)[:2] == [(5, 1), (9, 1)]
    if child == 0:
        os._exit(0 if extents() == 0 else 1)
    assert extents() == 0
    file.check_is_the_file_again()


def a_child_forked_while_threads_look_at_a_guard_or_leave_theirs_is_whole() -> None:
    file = MappedFile(256)
    file.cut(0)
    end = time.monotonic() + SECONDS
    shared = guard(file.array, on_fault="record")

    def look() -> None:
        while time.monotonic() < end:
            assert shared.lost == sum(fault.length for fault in shared.faults)

    def leave() -> None:
        while time.monotonic() < end:
            with guard(file.array, on_fault="record") as watch:
                assert watch.lost > 0

    def fork() -> None:
        while time.monotonic() < end:
            child = os.fork()
            if child == 0:
                signal.alarm(60)
                shared.__exit__(None, None, None)
                os._exit(0 if shared.lost == sum(fault.length for fault in shared.faults) > 0 else 1)
            assert os.waitpid(child, 0)[1] == 0

    with shared:
        for page in range(1, 256, 2):
            file.array[page * PAGE_SIZE]
            file.array[0]
        _together(look, look, leave, leave, fork)
    file.check_is_the_file_again()


def another_process_cuts_and_grows_the_file_meanwhile() -> None:
    """The process never dies, the mapping is the file afterwards, and no good page is lost."""
    file = MappedFile(512, mode="r+")
    end = time.monotonic() + SECONDS
    child = os.fork()
    if child == 0:
        noise = random.Random(5)
        while True:
            if noise.random() < 0.5:
                file.cut(noise.randrange(513))
            else:
                file.grow_back()
            time.sleep(noise.random() / 500)
    rounds = [0] * 4

    def work(index: int) -> None:
        noise = np.random.default_rng(index)
        order = noise.permutation(512) * PAGE_SIZE
        while time.monotonic() < end:
            with guard(*[file.array][: index % 3], on_fault="record") as watch:
                seen = file.array.copy() if index % 2 else file.array[order]
                wanted = file.expected if index % 2 else file.expected[order]
                wrong = np.flatnonzero((seen != wanted) & (seen != 0))
                file.array[order[:7]] = file.expected[order[:7]]
            assert not len(wrong), wrong[:9]
            assert watch.not_restored == 0
            rounds[index] += 1

    try:
        _together(*(lambda index=index: work(index) for index in range(4)))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert min(rounds) > 3, rounds
    assert extents() == 0
    file.check_is_the_file_again()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
