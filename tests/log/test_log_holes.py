"""Recovery of a log whose file is far larger than what was ever stored in it."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PAGE_SIZE, CorruptError, PmemLog
from support.logs import RING, contents, header, make
from support.sums import bit_by_bit

if TYPE_CHECKING:
    from pathlib import Path

LARGE = 64 << 40
"""Bytes of the log: reading them would take hours."""


@pytest.fixture
def generation(path: Path) -> int:
    """Makes a log of two records that was not closed and is, up to the size of `LARGE`, a hole; its generation."""
    with make(path) as log:
        log.append(b"0")
        log.append(b"1")
    file = os.open(path, os.O_RDWR)
    size = LARGE
    while True:
        try:
            os.truncate(file, size)
            break
        except OSError:  # The file system's files cannot be as large.
            size //= 2
    for slot in range(2):
        page = bytearray(os.pread(file, PAGE_SIZE, slot * PAGE_SIZE))
        page[32:40] = struct.pack("<Q", size)
        page[56:72] = b"\xff" * 16  # where it ended if it was closed
        page[-4:] = struct.pack("<I", bit_by_bit(bytes(page[:-4])))
        os.pwrite(file, page, slot * PAGE_SIZE)
    os.close(file)
    return int.from_bytes(page[16:24], "little")


@pytest.mark.usefixtures("generation")
def test_a_log_of_holes_is_opened_without_reading_them(path: Path) -> None:
    with PmemLog.open(path, writable=False) as log:
        assert contents(log) == {0: b"0", 1: b"1"}
        assert log.verify() == []


def test_a_record_between_holes_is_found(path: Path, generation: int) -> None:
    position = (path.stat().st_size // 3 * 2) // 64 * 64 - RING
    data = b"far behind".ljust(64, b"\0")
    line = header(bit_by_bit(data[:10]), generation, 3, length=10, position=position, previous=position - 128)
    with path.open("r+b") as file:
        file.seek(RING + position)
        file.write(line + data)
    with PmemLog.open(path, writable=False) as log:
        assert log.last == 3
        assert log.read(3) == b"far behind"
        with pytest.raises(CorruptError):
            log.read(2)
        assert contents(log) == {0: b"0", 1: b"1", 3: b"far behind"}
