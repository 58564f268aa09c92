"""Appends against a flat durable write, a log of `os.pwritev` and `os.fdatasync`, and SQLite's; publications against
flush_range and slices.

The files lie in the directory for temporary files, `TMPDIR` in the environment: figures are those of its file system.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
import struct
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import PmemLog, Slot, pmem
from iovec_rs._bench.harness import Case, Contestant, Table, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "log"
SIZES = (64, 4 << 10, 64 << 10)
SLOT_SIZES = (32, 4 << 10, 64 << 10, 1 << 20)
ROUNDS = 31
LINE = 64


def appends(size: int, quick: bool, directory: str) -> tuple[Case, Callable[[], None]]:
    """One record, durable on return, and what closes the files."""
    data = np.random.default_rng(1).bytes(size)
    length = (64 << 20) if not quick else (1 << 20)
    log = PmemLog.open(f"{directory}/log", size=length, create=True)
    region = pmem.PmemRegion.open(f"{directory}/region", size=length, create=True)
    fd = os.open(f"{directory}/wal", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, length)
    database = sqlite3.connect(f"{directory}/database", isolation_level=None)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute("CREATE TABLE records (data BLOB)")
    flat = data + bytes(LINE)
    span = -(-len(flat) // LINE) * LINE
    times = 1 if quick else 20
    at = 0

    def room() -> int:
        nonlocal at
        at = (at + span) % (length - span)
        return at

    def append() -> None:
        if log.free < size:
            log.discard_before(log.last + 1)
        log.append(data)

    def write() -> None:
        region.write(room(), flat)

    def sync() -> None:
        os.pwritev(fd, [struct.pack("<QI", size, zlib.crc32(data)), data], room())
        os.fdatasync(fd)

    def insert() -> None:
        database.execute("INSERT INTO records VALUES (?)", (data,))

    def contestant(name: str, run: Callable[[], object]) -> Contestant:
        def repeated() -> None:
            for _ in range(times):
                run()

        return Contestant(name, repeated, lambda: b"")

    def close() -> None:
        database.close()
        os.close(fd)
        log.close()
        region.close()
        for path in Path(directory).iterdir():
            path.unlink()

    case = Case(
        f"append {size} B ({log.granularity})",
        contestant("PmemLog.append", append),
        [
            contestant("PmemRegion.write, no header", write),
            contestant("os.pwritev, zlib.crc32, os.fdatasync", sync),
            contestant("sqlite3, WAL, synchronous=FULL", insert),
        ],
        ops=times,
        op_bytes=size,
        rounds=1 if quick else ROUNDS,
    )
    return case, close


def publications(size: int, quick: bool) -> Iterator[Case]:
    data, taken = np.random.default_rng(1).bytes(size), bytearray(size)
    memory, plain = mmap.mmap(-1, Slot.size_for(size)), mmap.mmap(-1, size)
    slot, view = Slot(memory, 0, size), memoryview(plain)
    times = 1 if quick else max(1, min(500, (8 << 20) // size))
    slot.publish(data)
    view[:] = data

    def store() -> None:
        view[:] = data
        pmem.flush_range(plain)

    def load() -> None:
        pmem.flush_range(plain)
        taken[:] = view

    def contestant(name: str, run: Callable[[], object]) -> Contestant:
        def repeated() -> None:
            for _ in range(times):
                run()

        return Contestant(name, repeated, lambda: taken)

    for what, own, other, rival in (
        ("publish", lambda: slot.publish(data), "slice, flush_range", store),
        ("consume", lambda: slot.consume(taken), "flush_range, slice", load),
    ):
        yield Case(
            f"{what} {size} B",
            contestant(f"Slot.{what}", own),
            [contestant(other, rival)],
            ops=times,
            op_bytes=size,
            rounds=1 if quick else ROUNDS,
            scrub=lambda: None,
        )


def run(quick: bool) -> Iterator[Table]:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as directory:
            case, close = appends(size, quick, directory)
            yield measure(NAME, case)
            close()
    for size in SLOT_SIZES:
        for case in publications(size, quick):
            yield measure(NAME, case)
