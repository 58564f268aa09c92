"""Appends against a flat durable write, a log of `os.pwritev` and `os.fdatasync`, and SQLite's; publications against
slices with `flush_range`, and with a loop of `clflush`.

The files lie in the directory for temporary files, `TMPDIR` in the environment: figures are those of its file system.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import PmemLog, pmem
from iovec_rs._bench import lasting
from iovec_rs._bench.harness import Case, Contestant, Table, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "log"
SIZES = (64, 4 << 10, 64 << 10)
SLOT_SIZES = (32, 4 << 10, 64 << 10, 1 << 20, 16 << 20)
QUICK_SLOT_SIZES = (32, 4 << 10)
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
            contestant("os.pwritev, crc32, os.fdatasync", sync),
            contestant("sqlite3, WAL, synchronous=FULL", insert),
        ],
        ops=times,
        op_bytes=size,
        rounds=1 if quick else ROUNDS,
    )
    return case, close


def publications(size: int, quick: bool) -> Iterator[Table]:
    for build in (lasting.publish, lasting.consume):
        with lasting.instruction_kept():
            case = build(size, quick)
            yield measure(NAME, replace(case, rounds=1 if quick else ROUNDS))


def run(quick: bool) -> Iterator[Table]:
    for size in SIZES:
        with tempfile.TemporaryDirectory() as directory:
            case, close = appends(size, quick, directory)
            yield measure(NAME, case)
            close()
    for size in QUICK_SLOT_SIZES if quick else SLOT_SIZES:
        yield from publications(size, quick)
