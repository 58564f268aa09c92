"""Superblocks and record headers with right sums and any fields: a log is opened or refused, and works if it is opened.

Nothing that somebody wrote there may hang or end the process, and a log that was opened for writing stays openable.
"""

from __future__ import annotations

import contextlib
import errno
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, CorruptError, PmemLog
from support.logs import RING, header
from support.places import MEMORY
from support.sums import any_data, crc32c, crc64, self_summed

from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random

CAPACITY = 4 * PAGE_SIZE
LARGEST = (1 << 64) - 1
EXTENTS = 249
"""The bad extents that a superblock has room for."""


def _packed(*fields: int) -> bytes:
    return struct.pack(f"<{len(fields)}Q", *(field & LARGEST for field in fields))


def _extents(rng: random.Random) -> list[tuple[int, int]]:
    found, at = [], 0
    for _ in range(rng.choice((0, 0, 1, 3, 20, EXTENTS))):
        start = at + rng.choice((0, 64, 128, 640))
        at = start + rng.choice((64, 64, 128, 1024, 0))
        found.append((start, at))
    return found


class Fields:
    """What a superblock says: where the oldest record is, and where the log ended."""

    def __init__(self, rng: random.Random, size: int) -> None:
        wild = rng.random() < 0.2
        self.generation = rng.choice((0, 7, LARGEST))
        self.update = rng.choice((2, 5, (1 << 62) - 1, *((0, 1, 1 << 62, LARGEST) if wild else ())))
        self.size = rng.choice(
            (size, size, size, size - 1, size + PAGE_SIZE, 3 * PAGE_SIZE, *((1 << 62, 1 << 63) * wild))
        )
        places = (0, 64, 4096, CAPACITY - 64, CAPACITY, CAPACITY * 10, CAPACITY * 10 + 640)
        self.position = rng.choice((*places, *((1 << 62, (1 << 62) - 64 - CAPACITY, 1 << 63, LARGEST - 63) * wild)))
        self.sequence = rng.choice((0, 1, self.position // 64, *((1 << 55, LARGEST) * wild)))
        used = rng.choice((0, 64, 128, 640, CAPACITY - 64, CAPACITY, *((CAPACITY + 64,) * wild)))
        self.known = self.sequence + rng.choice((0, 1, 2, used // 64)), self.position + used
        self.closed = rng.choice(
            (self.known, (LARGEST, LARGEST), (LARGEST, LARGEST), (self.known[0] + 1, self.known[1]))
        )
        self.bad = _extents(rng)

    def limit(self) -> int:
        """The position behind which the log has no records: its end if it was closed, or else a lap from its start."""
        limit = self.position + (self.size - RING) // 64 * 64
        return min(limit, self.known[1]) if self.closed == self.known else limit

    def encoded(self) -> bytes:
        page = b"IOVECLOG" + struct.pack("<II", 1, len(self.bad))
        page += _packed(
            self.generation, self.update, self.size, self.sequence, self.position, *self.closed, *self.known
        )
        page += b"".join(_packed(*extent) for extent in self.bad)
        page = page.ljust(PAGE_SIZE - 4, b"\0")
        return self_summed(page)


def _records(rng: random.Random, image: bytearray, fields: Fields, limit: int) -> None:
    """Stores records that follow each other, more or less, up to a position behind which the log has none."""
    position, sequence, previous = fields.position, fields.sequence, fields.position
    for _ in range(rng.randrange(40)):
        length = rng.choice((0, 1, 64, 100, 1000, 1000, CAPACITY - 64, 1 << 62, 1 << 63, LARGEST))
        data = any_data(rng, min(length, 1000))
        crc = crc32c(data) if rng.random() < 0.9 else 5
        if length <= CAPACITY and position + 64 + (length + 63) // 64 * 64 > limit:
            break
        second = rng.choice((0, 0, 0, crc64(data), 1))
        line = header(
            crc, fields.generation, sequence, length=length, position=position, previous=previous, crc64=second
        )
        at = RING + position % CAPACITY
        image[at : at + 64 + len(data)] = (line + data)[: len(image) - at]
        position += 64 + (len(data) + 63) // 64 * 64
        previous = position if rng.random() < 0.95 else previous
        sequence += rng.choice((1, 1, 1, 1, 1, 1, 1, 2, 0, 1 << 63))
        position += 64 * rng.choice((0, 0, 0, 0, 0, 3))


def _read(log: PmemLog) -> None:
    """Everything that can be asked of a log."""
    expect(log.nbytes >= 0 and log.free >= 0, "a log has a size below 0", log.nbytes, log.free)
    list(log)
    for number in {log.first, log.last, log.first + 1, log.last - 1}:
        if number >= 0:
            with contextlib.suppress(IndexError, CorruptError):
                log.read(number)


def _write(log: PmemLog) -> None:
    for data in (b"mine" * 10, b"", bytes(3000), None, b"x"):
        try:
            if data is None:
                log.discard_before(log.last + 1)
            else:
                expect(log.read(log.append(data)) == data, "an append is read with other bytes")
        except OSError as error:
            expect(error.errno in (errno.ENOSPC, errno.EOVERFLOW), "a log that was opened cannot be changed", error)


def hunt(rng: random.Random) -> None:
    size = RING + CAPACITY + rng.choice((0, 0, 100))
    image = bytearray(size)
    fields = Fields(rng, size)
    other = fields if rng.random() < 0.6 else Fields(rng, size)
    image[:RING] = fields.encoded() + other.encoded()
    _records(rng, image, fields, min(fields.limit(), other.limit()))
    doing(f"{vars(fields)}")
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name, "log")
        for writable in (False, True):
            path.write_bytes(image[:size])
            try:
                log = PmemLog.open(path, writable=writable)
            except (OSError, ValueError):
                continue
            with log:
                _read(log)
                log.verify()
                if writable:
                    _write(log)
                    numbers = log.first, log.last
            if writable:
                with PmemLog.open(path) as log:
                    expect(
                        (log.first, log.last) == numbers, "a log has other numbers once it is open again", numbers, log
                    )
