"""Logs to test, and what they hold."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE
from iovec_rs.pmem import PmemLog

from support.sums import self_summed

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 16
RING = 2 * PAGE_SIZE
"""Where the ring begins, behind both superblocks, in bytes."""


def make(path: Path, size: int = SIZE) -> PmemLog:
    return PmemLog.open(path, size=size, create=True)


def header(
    crc: int, generation: int, sequence: int, *, length: int, position: int, previous: int, crc64: int = 0
) -> bytes:
    """The header line of a record, with the right sum of its own. `crc` and `crc64` are those of the data; without the
    latter it is a header of an earlier version. What is too large for its field loses its upper bits.
    """
    words = (generation, sequence, length, position, previous, crc64)
    line = struct.pack("<4sI6Q4x", b"RECD", crc, *(word % (1 << 64) for word in words))
    return self_summed(line)


def contents(log: PmemLog) -> dict[int, bytes]:
    return {record.sequence: log.read(record.sequence) for record in log}
