"""What is appended, published and summed, from sources of every kind, some of which turn out bad or have a hole, under
every instruction set and mode: a log and a slot have exactly what a list and a value have, and sums are another's.
"""

from __future__ import annotations

import errno
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iovec_rs import (
    PAGE_SIZE,
    WRITE,
    FaultError,
    FolioQueue,
    IovIter,
    PmemLog,
    Slot,
    XArray,
    cpu,
    crc32c,
    crc32c_and_copy_from_iter,
    crc32c_and_copy_from_iter_flushcache,
)
from support.arena import Arena, Page
from support.places import MEMORY
from support.sums import any_data
from support.sums import crc32c as other_sum

from hunt.copies import circumstances
from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random

LENGTHS = (0, 1, 31, 32, 33, 63, 64, 65, 100, 4096)
KINDS = ("bytes", "list", "kvec", "iovec", "bvec", "xarray", "folioq", "bad ubuf", "bad iovec")
ACTIONS = 60


@dataclass
class Source:
    """What is given to a call, and the bytes that can be read of it."""

    given: Any
    good: bytes
    length: int
    is_bad: bool = False
    has_hole: bool = False

    @property
    def is_whole(self) -> bool:
        return not self.is_bad and not self.has_hole


def _source(rng: random.Random, arena: Arena) -> Source:
    kind = rng.choice(KINDS)
    data = any_data(rng, rng.choice((*LENGTHS, rng.randrange(9000))))
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randrange(5)))
    parts = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole = Source(None, data, len(data))
    match kind:
        case "bytes":
            whole.given = data
        case "list":
            whole.given = parts
        case "kvec" | "iovec":
            whole.given = getattr(IovIter, kind)(WRITE, parts)
        case "bvec":
            whole.given = IovIter.bvec(WRITE, [(bytes(7) + part + b"end", 7, len(part)) for part in parts])
        case "folioq":
            folios = [part for part in parts if part] or [b"none"]
            whole.given = IovIter.folioq(WRITE, FolioQueue(folios), 0, 0, len(data))
        case "xarray":
            start = rng.randrange(PAGE_SIZE)
            raw = bytes(start) + data
            pages = {at // PAGE_SIZE: bytearray(PAGE_SIZE) for at in range(0, len(raw), PAGE_SIZE)}
            for number, page in pages.items():
                part = raw[number * PAGE_SIZE :][:PAGE_SIZE]
                page[: len(part)] = part
            if len(pages) > 1 and rng.random() < 0.2:
                missing = max(pages)
                del pages[missing]
                whole.good, whole.has_hole = data[: missing * PAGE_SIZE - start], True
            whole.given = IovIter.xarray(WRITE, XArray(pages), start, len(data))
        case _:
            # The arena's third page is bad.
            good = rng.choice((0, 1, 63, 64, 100, PAGE_SIZE, 2 * PAGE_SIZE))
            start, length = 2 * PAGE_SIZE - good, good + rng.choice((1, 64, 100))
            whole = Source(None, arena.read(start, good), length, is_bad=True)
            ranges = [arena.range(start, good // 2), arena.range(start + good // 2, length - good // 2)]
            is_one = kind == "bad ubuf"
            ubuf = IovIter.ubuf(WRITE, arena.range(start, length))
            whole.given = ubuf if is_one else IovIter.iovec(WRITE, ranges)
    return whole


class Model:
    """A log and a slot, and what they must have."""

    def __init__(self, rng: random.Random, path: Path) -> None:
        self.rng, self.path = rng, path
        self.log = PmemLog.open(path, size=rng.choice((12_288, 16_384, 40_000, 100_000)), create=True)
        self.slot = Slot(bytearray(rng.choice((64, 4096, 10_000, 50_000))))
        self.records: dict[int, bytes] = {}
        self.first = self.next = self.number = 0
        self.published = b""

    def append(self, source: Source) -> None:
        free = self.log.free
        try:
            number = self.log.append(source.given)
        except OSError as error:
            if error.errno != errno.ENOSPC or isinstance(error, FaultError):
                raise
            expect(source.length > free or not free, "free is larger than what an append takes", source.length, free)
            sequence = self.rng.randrange(self.first, self.next + 1)
            self.log.discard_before(sequence)
            self.first = sequence
            self.records = {number: data for number, data in self.records.items() if number >= sequence}
            return
        expect(source.is_whole, "a record of bad data is taken")
        expect(number == self.next, "a number is left out or given again", number, self.next)
        self.records[number] = source.good
        self.next += 1

    def publish(self, source: Source) -> None:
        if source.length > self.slot.capacity:
            return
        number = self.slot.publish(source.given)
        expect(source.is_whole, "a publication of bad data is taken")
        expect(number == self.number + 1, "a number is left out or given again", number, self.number)
        self.number, self.published = number, source.good

    def sum(self, source: Source) -> None:
        if not isinstance(source.given, list):
            found = crc32c(source.given)
            expect(source.is_whole, "bad data have a sum")
            expect(found == other_sum(source.good), "a sum is wrong", found)

    def copy(self, source: Source) -> None:
        """Copies with a sum, which is that of what was copied, wherever it ended."""
        if not isinstance(source.given, IovIter):
            return
        how = self.rng.choice((crc32c_and_copy_from_iter, crc32c_and_copy_from_iter_flushcache))
        out, wanted = bytearray(source.length + 10), self.rng.randrange(source.length + 1)
        copied, crc = how(out, source.given, wanted)
        expect(copied == min(wanted, len(source.good)), "a copy has another length", copied, wanted, len(source.good))
        expect(out[:copied] == source.good[:copied], "a copy has other bytes")
        expect(not any(out[copied:]) or not source.is_whole, "a copy stores bytes that it does not count")
        expect(crc == other_sum(source.good[:copied]), "a copy has another sum")
        expect(source.given.count == source.length - copied, "an iterator moved by other bytes", source.given.count)

    def look(self) -> None:
        if self.rng.random() < 0.2:
            self.log.close()
            self.log = PmemLog.open(self.path)
            expect(self.log.recovered == 0, "a closed log has a torn tail", self.log.recovered)
        numbers = self.first, self.next - 1
        expect((self.log.first, self.log.last) == numbers, "the numbers are wrong", self.log, numbers)
        expect(not self.log.verify(), "a record is taken for damaged", self.log.verify())
        for number, data in self.records.items():
            expect(self.log.read(number) == data, "a record is read with other bytes", number)
        buffer = bytearray(self.slot.capacity)
        length, number = self.slot.consume(buffer)
        expect((number, bytes(buffer[:length])) == (self.number, self.published), "another publication", number)


def _act(rng: random.Random, model: Model, arena: Arena) -> None:
    source = _source(rng, arena)
    action = rng.choice((model.append, model.publish, model.sum, model.copy))
    doing(f"{action.__name__}: {cpu.isa()}, {source.given!r}, bad {source.is_bad}, hole {source.has_hole}")
    try:
        action(source)
    except FaultError as error:
        expect(source.is_bad, "good memory is bad", error)
        if action == model.sum:
            found = error.copied, getattr(error, "crc32c", None)
            expect(found == (len(source.good), other_sum(source.good)), "a sum of the good bytes is wrong", found)
    except ValueError as error:
        expect(source.has_hole, "data are refused for no reason", error)
    if isinstance(source.given, IovIter) and action != model.copy:
        is_moved = source.given.count == 0
        expect(is_moved or source.given.count == source.length, "an iterator stands in its middle", source.given)
        expect(source.is_whole or not is_moved or not source.length, "a refused iterator has moved", source.given)


def hunt(rng: random.Random) -> None:
    pages = [Page.GOOD, Page.GOOD, Page.PROTECTED, Page.PROTECTED]
    with (
        tempfile.TemporaryDirectory(dir=MEMORY) as name,
        Arena(pages, rng.randbytes(2 * PAGE_SIZE)) as arena,
        circumstances(rng),
    ):
        model = Model(rng, Path(name, "log"))
        for _ in range(ACTIONS):
            _act(rng, model, arena)
            if rng.random() < 0.2:
                model.look()
        model.look()
        model.log.close()
