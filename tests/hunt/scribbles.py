"""A closed log whose ring was written over: its numbers stay, each record is read whole or told of, appends go on.

The superblocks stay whole: both of them written over are an error of `open`, which tests of the log have.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import CorruptError, PmemLog
from support.logs import RING
from support.places import MEMORY
from support.sums import any_data

from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random

LENGTHS = (0, 1, 64, 100, 500, 3000)


def _filled(log: PmemLog, rng: random.Random) -> dict[int, bytes]:
    """Appends, and discards where the ring is full: the records that are in the log then."""
    records: dict[int, bytes] = {}
    for _ in range(rng.randrange(1, 80)):
        data = any_data(rng, rng.choice(LENGTHS))
        try:
            records[log.append(data)] = data
        except OSError:
            first = rng.randrange(log.first, log.last + 2)
            log.discard_before(first)
            records = {number: kept for number, kept in records.items() if number >= first}
    return records


def _scribble(image: bytearray, rng: random.Random) -> str:
    how, at = rng.choice(("a bit", "bytes", "zeroes", "lines")), rng.randrange(RING, len(image))
    doing(f"{how} at {at}")
    if how == "a bit":
        image[at] ^= 1 << rng.randrange(8)
        return how
    if how == "lines":
        source, at = (rng.randrange(RING // 64, len(image) // 64) * 64 for _ in range(2))
        new = bytes(image[source : source + 64 * rng.choice((1, 2, 16))])
    else:
        new = rng.randbytes(rng.randrange(1, 200)) if how == "bytes" else bytes(rng.randrange(1, 5000))
    image[at : at + len(new)] = new[: len(image) - at]
    return how


def _look(log: PmemLog, records: dict[int, bytes], whole: set[int]) -> None:
    damaged = 0
    for number, data in records.items():
        try:
            found = log.read(number)
        except CorruptError as error:
            damaged += 1
            expect(error.sequence == number, "damage is told of another record", number, error)
            expect(number not in whole, "a record whose bytes are there is lost", number, error)
        else:
            expect(found == data, "a record is read with other bytes", number)
    expect(len(log.verify()) == damaged, "verify and read do not agree", damaged)


def hunt(rng: random.Random) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        path = Path(name, "log")
        with PmemLog.open(path, size=RING + rng.choice((4096, 8192, 20_000, 40_000)), create=True) as log:
            records, numbers = _filled(log, rng), (log.first, log.last)
            places = {number: log.record(number).offset for number in records}
        before = path.read_bytes()
        image = bytearray(before)
        how = [_scribble(image, rng) for _ in range(rng.randrange(1, 6))]
        path.write_bytes(image)
        # A record's header is the line before its data, but where those begin the ring.
        spans = {number: slice(place - 64, place + len(records[number])) for number, place in places.items()}
        whole = {n for n, span in spans.items() if places[n] > RING and image[span] == before[span]}
        with PmemLog.open(path, writable=False) as reader:
            expect((reader.first, reader.last) == numbers, "damage changes the numbers", how, numbers, reader)
            _look(reader, records, whole)
        with PmemLog.open(path) as log:
            expect((log.first, log.last) == numbers, "damage changes the numbers", how, numbers, log)
            _look(log, records, whole)
            try:
                added = log.append(b"new")
            except OSError:
                return
        with PmemLog.open(path) as log:
            expect(added == numbers[1] + 1, "a number is given again, or left out", added, numbers)
            expect(log.read(added) == b"new", "what was appended behind damage is not there", added)
            _look(log, records, whole)
