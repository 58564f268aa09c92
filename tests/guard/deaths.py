"""Faults that a guard does not cover end the process as they do without one: python -m guard.deaths NAME."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

from iovec_rs import PAGE_SIZE, guard

from guard.common import MappedFile


def _cut_file(mode: str = "r") -> MappedFile:
    file = MappedFile(mode=mode)
    file.cut(2)
    return file


def _about_to_die() -> None:
    print("about to die", flush=True)


def outside_the_range() -> None:
    file = _cut_file()
    with guard(file.array[: 8 * PAGE_SIZE]):
        file.array[7 * PAGE_SIZE]
        _about_to_die()
        file.array[8 * PAGE_SIZE]


def after_the_block() -> None:
    file = _cut_file()
    with guard(file.array, on_fault="record"):
        file.array.sum()
    _about_to_die()
    file.array.sum()


def before_the_block() -> None:
    file = _cut_file()
    watch = guard(file.array)
    _about_to_die()
    file.array.sum()
    with watch:
        pass


def under_a_guard_over_nothing() -> None:
    file = _cut_file()
    with guard(file.array[:0]):
        _about_to_die()
        file.array.sum()


def in_a_thread_that_does_not_guard() -> None:
    """A guard without a buffer covers only the thread that entered it."""
    file = _cut_file()
    with guard():
        file.array[5 * PAGE_SIZE]
        _about_to_die()
        thread = threading.Thread(target=lambda: file.array[9 * PAGE_SIZE])
        thread.start()
        thread.join()


def segv_of_a_bad_pointer() -> None:
    file = _cut_file()
    with guard(file.array), guard():
        file.array.sum()
        _about_to_die()
        ctypes.string_at(8)


def segv_of_a_store_to_zeroes_that_may_only_be_read() -> None:
    file = _cut_file("r")
    with guard(file.array):
        file.array[5 * PAGE_SIZE]
        _about_to_die()
        ctypes.memset(file.page(5), 1, 1)


def sent_by_somebody() -> None:
    file = _cut_file()
    with guard(file.array), guard():
        file.array.sum()
        _about_to_die()
        os.kill(os.getpid(), signal.SIGBUS)


def raised_by_the_block() -> None:
    file = _cut_file()
    with guard(file.array), guard():
        file.array.sum()
        _about_to_die()
        signal.raise_signal(signal.SIGBUS)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("it lives")
