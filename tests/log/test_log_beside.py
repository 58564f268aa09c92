"""A `PmemLog` beside others: readers, forked children, threads."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PmemLog,
)
from support.forks import codes_of_children_beside
from support.logs import SIZE, contents, make

if TYPE_CHECKING:
    from pathlib import Path


def test_one_writer_and_readers_that_follow(path: Path) -> None:
    with make(path) as log, PmemLog.open(path, writable=False) as reader:
        for opening in (PmemLog.open, lambda path: PmemLog.open(path, size=SIZE, create=True)):
            with pytest.raises(BlockingIOError):
                opening(path)
        for n in range(400):
            log.append(b"%d" % n * 100)
            assert reader.read(n) == log.read(n)
            if log.free < 1000:
                log.discard_before(n)
        assert (reader.first, reader.last, list(reader)) == (log.first, log.last, list(log))
        with pytest.raises(IndexError):
            reader.read(0)
        for change in (lambda: reader.append(b"x"), lambda: reader.discard_before(399)):
            with pytest.raises(BufferError):
                change()
    with PmemLog.open(path):
        pass


def test_a_forked_child_is_no_writer_and_keeps_nobody_out(path: Path) -> None:
    log = make(path)
    log.append(b"parent")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        verdict = b"?"
        try:
            refused = 0
            for attempt in (lambda: log.append(b"child"), lambda: log.discard_before(1), lambda: PmemLog.open(path)):
                try:
                    attempt()
                except BlockingIOError:
                    refused += 1
            verdict = b"%d" % refused if log.read(0) == b"parent" else b"!"
        finally:
            os.write(ready[1], verdict)
            os.read(done[0], 1)  # The child lives on while the parent closes its log.
            os._exit(0)
    assert os.read(ready[0], 1) == b"3"
    log.close()
    with PmemLog.open(path) as again:
        assert again.append(b"a new writer") == 1
    os.write(done[1], b".")
    os.waitpid(child, 0)


def test_a_child_forked_in_the_middle_of_an_append_neither_waits_nor_takes_what_it_reads_for_damage(path: Path) -> None:
    log = make(path, 8 << 20)
    text = b"a record of a thread of the parent's " * 5000

    def append() -> None:
        log.append(text)
        log.discard_before(log.last)

    def child() -> int:
        # In the child the log's lock may be held by a thread that exists in the parent only, and its record may be
        # gone.
        with contextlib.suppress(BlockingIOError, IndexError):
            assert log.read(log.last) == text
        with pytest.raises(BlockingIOError):
            log.append(b"child")
        log.close()
        return 0 if log.closed else 1

    codes = codes_of_children_beside(append, child)
    log.close()
    assert codes == [0] * 30


def test_threads_append_whole_records_each_with_a_number_of_its_own(path: Path) -> None:
    with make(path, 8 << 20) as log:
        numbers: dict[int, bytes] = {}

        def work(seed: int) -> None:
            for n in range(40):
                data = bytes([seed]) * (n * 317)
                numbers[log.append(data)] = data

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == list(range(160))
        assert contents(log) == numbers
