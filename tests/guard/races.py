"""Copies of this package beside guards of other threads: python -m guard.races NAME."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    IovIter,
    copy_from_iter,
    copy_to_iter,
    copy_to_iter_mcsafe,
    guard,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
)

from guard.common import Array, MappedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = float(os.environ.get("GUARD_SECONDS", "4"))
NPAGES, KEPT = 4096, 2048
GOOD = KEPT * PAGE_SIZE


class _Neighbour:
    """A thread that again and again enters a guard over a truncated file, reads bad pages and leaves the guard, until
    it is stopped. They read as zeroes unless another thread stores to them between the fault and the load.
    """

    def __init__(self, file: MappedFile, is_stored_to: bool = False) -> None:
        self._file = file
        self._is_stored_to = is_stored_to
        self._is_over = False
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        page = KEPT
        while not self._is_over:
            with guard(self._file.array, on_fault="record") as watch:
                for _ in range(3):
                    assert self._file.array[page * PAGE_SIZE] == 0 or self._is_stored_to
                    page = KEPT + (page + 1) % 40
            assert watch.not_restored == 0

    def __enter__(self) -> _Neighbour:
        blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGBUS])
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()


def _rounds() -> Iterator[None]:
    """Yields rounds for the time that these tests take, and at least a few on the slowest machine."""
    end, rounds = time.monotonic() + SECONDS, 0
    while time.monotonic() < end or rounds < 8:
        yield
        rounds += 1


def _cut_file() -> MappedFile:
    file = MappedFile(NPAGES, mode="r+", where="/dev/shm")
    file.cut(KEPT)
    return file


def _copies_out(copies: list[Callable[[Array, Array], int]]) -> None:
    file = _cut_file()
    out = bytearray(file.array.nbytes)
    # The copies begin at different pages before the end, so that they reach it at many moments of the other thread's
    # work.
    with _Neighbour(file):
        for at, _ in enumerate(_rounds()):
            skip = GOOD - (at * 97 % KEPT) * PAGE_SIZE
            copied = copies[at % len(copies)](memoryview(out)[skip:], file.array[skip:])
            assert copied == GOOD - skip, (copied, GOOD - skip)
            assert out[skip:GOOD] == file.expected[skip:GOOD].tobytes()


def _from_iterator(dst: Array, src: Array) -> int:
    return copy_from_iter(dst, IovIter.iovec(WRITE, [src[at : at + (1 << 20)] for at in range(0, len(src), 1 << 20)]))


def _from_run(dst: Array, src: Array) -> int:
    """The segments have a length at which runs of equal ones are copied with one decision."""
    return copy_from_iter(dst, IovIter.iovec(WRITE, [src[at : at + 512] for at in range(0, len(src), 512)]))


def _from_lines(dst: Array, src: Array) -> int:
    """The segments have the length at which one routine copies a list of them."""
    return copy_from_iter(dst, IovIter.iovec(WRITE, [src[at : at + 64] for at in range(0, len(src), 64)]))


def _to_iterator(dst: Array, src: Array) -> int:
    return copy_to_iter_mcsafe(src, IovIter.kvec(READ, [dst]))


def a_copy_counts_no_zeroes_of_another_threads_guard() -> None:
    _copies_out([lambda dst, src: memcpy_mcsafe(dst, src).copied, _from_iterator, _from_run, _from_lines, _to_iterator])


def a_copy_past_the_caches_counts_no_zeroes_of_another_threads_guard() -> None:
    _copies_out([lambda dst, src: memcpy_nocache(dst, src).copied, lambda dst, src: memcpy_flushcache(dst, src).copied])


def a_copy_by_the_kernel_counts_no_zeroes_of_another_threads_guard() -> None:
    """In a thread that blocks the signal, the kernel makes the copies."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
    _copies_out([lambda dst, src: memcpy_mcsafe(dst, src).copied, _from_iterator])


def a_copy_counts_no_store_that_another_threads_guard_lost() -> None:
    file = _cut_file()
    data = os.urandom(PAGE_SIZE) * NPAGES
    with _Neighbour(file, is_stored_to=True):
        for at, _ in enumerate(_rounds()):
            skip = GOOD - (at * 97 % KEPT) * PAGE_SIZE
            target = IovIter.ubuf(READ, file.array[skip:])
            kind = at % 3
            if kind == 0:
                copied = copy_to_iter(memoryview(data)[skip:], target)
            elif kind == 1:
                copied = memcpy_flushcache(file.array[skip:], memoryview(data)[skip:]).copied
            else:
                copied = target.zero()
            assert copied == GOOD - skip, (kind, copied, GOOD - skip)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
