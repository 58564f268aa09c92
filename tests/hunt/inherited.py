"""Forks of a process whose threads append to a log and read it: whatever a child does with the log that it inherited,
the parent's log stays as it is, and the child reads what the parent appends.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, PmemLog, crc32c
from support.places import MEMORY

from hunt.finding import doing, expect, noted
from hunt.scene import ended, forked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iovec_rs._types import Record

PATIENCE = 400.0
FORKS = 5
LENGTHS = (20, 300, 1500)


def _data(number: int, length: int) -> bytes:
    """Data that tell which record they are of, and whether they are whole."""
    body = number.to_bytes(8, "little") * (length // 8 + 1)
    return body + crc32c(body).to_bytes(4, "little")


def _look(log: PmemLog) -> None:
    for record in log:
        with contextlib.suppress(IndexError):  # It was discarded meanwhile.
            data = log.read(record.sequence)
            expect(data == _data(record.sequence, len(data) - 12), "a record has the data of another one", record)


class _Writer:
    """A log with the threads that use it."""

    def __init__(self, rng: Random, path: Path) -> None:
        self.path = path
        self.log = PmemLog.open(path, size=rng.choice((3, 4, 20)) * PAGE_SIZE, create=True)
        self.longest = rng.choice(LENGTHS)
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.errors: list[BaseException] = []
        self.append(rng)
        self.records: Iterator[Record] = iter(self.log)
        next(self.records)

    def append(self, rng: Random) -> None:
        with self.lock:
            data = _data(self.log.last + 1, rng.randrange(self.longest))
            while self.log.free < len(data):
                self.log.discard_before(self.log.first + 1)
            self.log.append(data)

    def thread(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                while not self.stop.is_set():
                    work()
            except BaseException as error:
                self.errors.append(error)

        return threading.Thread(target=run, daemon=True)


def _in_child(writer: _Writer, rng: Random) -> int:
    log = writer.log

    def refused(change: Callable[[], object]) -> None:
        try:
            change()
        except BlockingIOError:
            return
        expect(False, "a child has changed the log that it inherited")

    def opened_again() -> None:
        with PmemLog.open(writer.path, writable=False) as reader:
            _look(reader)
            expect(not reader.verify(), "a child finds damage in the log that it has opened", reader.verify())

    def passed_on() -> None:
        for _ in writer.records:
            pass

    steps: list[Callable[[], object]] = [
        lambda: refused(lambda: log.append(b"of the child")),
        lambda: refused(lambda: log.discard_before(1 << 40)),
        lambda: refused(lambda: PmemLog.open(writer.path)),
        lambda: _look(log),
        lambda: expect(not log.verify(), "a child finds damage in the log that it inherited"),
        lambda: (log.first, log.last, log.nbytes, log.free, repr(log)),
        opened_again,
        passed_on,
        gc.collect,
        log.close,
    ]
    for step in rng.sample(steps, rng.randrange(1, len(steps) + 1)):
        # The parent's thread may have been in the middle of a call, or the log is closed by now.
        with contextlib.suppress(BlockingIOError, ValueError):
            step()
    return 0


def _fork_beside(writer: _Writer, rng: Random) -> tuple[int, int]:
    """Forks while the writer's threads run. Returns the numbers of the first and the last record afterwards."""
    log = writer.log
    appending = [writer.thread(lambda: writer.append(Random(time.monotonic_ns()))) for _ in range(rng.randrange(3))]
    threads = [*appending, *(writer.thread(lambda: _look(log)) for _ in range(rng.randrange(2)))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(FORKS):
            time.sleep(rng.random() * 0.01)
            doing(f"forking from {len(appending)} threads that append, of {len(threads)}")
            steps = Random(rng.random())
            status = forked(lambda steps=steps: _in_child(writer, steps))  # type: ignore[misc]
            expect(status == 0, f"a child ends in {ended(status)}: {noted()}")
            if not appending:
                writer.append(rng)
    finally:
        writer.stop.set()
        for thread in threads:
            thread.join()
    expect(not writer.errors, "a thread failed beside forks", *map(repr, writer.errors))
    _look(log)
    return log.first, log.last


def hunt(rng: Random) -> None:
    with tempfile.TemporaryDirectory(dir=rng.choice((None, MEMORY))) as directory:
        path = Path(directory) / "log"
        writer = _Writer(rng, path)
        numbers = _fork_beside(writer, rng)
        if rng.random() < 0.5:
            writer.log.close()
        del writer
        gc.collect()
        with PmemLog.open(path) as log:
            expect((log.first, log.last) == numbers, "a log has other numbers once it is open again", log, numbers)
            expect(not log.verify(), "a log is damaged", log.verify())
            _look(log)
