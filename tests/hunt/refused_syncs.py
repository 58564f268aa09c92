"""A medium that refuses an msync now and then: what a call reported as durable is there, and a log opened from it has
exactly the records that were acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, WRITE, IovIter, PmemLog, SafeMap, copy_from_iter_flushcache
from iovec_rs.pmem import PmemRegion
from support.judged_calls import MSYNC, judged, unavailable
from support.logs import contents
from support.places import MEMORY
from support.refusing_medium import ERRORS, Medium
from support.sums import any_data

from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random

__all__ = ["hunt", "unavailable"]

CHANCES = (0, 0, 0.2, 0.6, 0.9, 1)
"""How often an msync is refused during one operation."""


class Log:
    """A log on such a medium, and what it must have."""

    def __init__(self, medium: Medium) -> None:
        self.medium, self.rng, self.path = medium, medium.rng, medium.path
        size = 2 * PAGE_SIZE + self.rng.choice((4096, 8192, 20_000))
        self.log = PmemLog.open(self.path, size=size, create=True)
        medium.settle()
        self.records: dict[int, bytes] = {}
        self.first = self.next = 0
        self.doubt: bytes | None = None
        """A record that could perhaps be neither made durable nor erased, and may be there after a failure."""
        self.firsts = {0}
        """Where the log may begin after a failure."""
        self.may_refuse = False
        """Whether the log may refuse appends until it is opened again."""
        self.follow()

    def follow(self) -> None:
        """A reader follows from now on, and looks whenever an msync is waited for: nothing of that need stay."""
        self.reader = PmemLog.open(self.path, writable=False)
        self.medium.beside = self.glance

    def glance(self) -> None:
        if self.rng.random() < 0.5:
            list(self.reader)

    def append(self) -> None:
        free = self.log.free
        data = any_data(self.rng, self.rng.choice((0, 1, 100, 1000, 2500)))
        try:
            number = self.log.append(data)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                expect(len(data) > free or free == 0, "free is larger than what an append takes", len(data), free)
            elif "neither" in str(error):
                expect(self.may_refuse, "an append is refused for no reason", error)
            else:
                expect(error.errno in ERRORS and self.medium.chance, "an append fails for no reason", error)
                self.may_refuse = self.medium.was_refused
                self.doubt, self.firsts = data if self.may_refuse else None, {self.first}
        else:
            expect(number == self.next, "a number is left out or given again", number, self.next)
            self.doubt, self.firsts, self.may_refuse = None, {self.first}, False
            self.records[number] = data
            self.next += 1

    def discard(self) -> None:
        sequence = self.rng.randrange(self.first, self.next + 1)
        try:
            self.log.discard_before(sequence)
        except OSError as error:
            expect(self.medium.chance, "a discard is refused for no reason", error)
            if self.medium.was_refused:
                self.firsts.add(sequence)
                self.may_refuse = True
        else:
            if sequence > self.first:
                self.firsts = {sequence}
            self.first = sequence
            self.records = {number: data for number, data in self.records.items() if number >= sequence}

    def reopen(self) -> None:
        """Opens the log again, perhaps after the power has failed, and perhaps several times until it is let."""
        is_failure = self.rng.random() < 0.6
        if is_failure:
            self.medium.chance = 0
            left = self.path.with_suffix(".left")
            self.medium.fails(left)
        with contextlib.suppress(OSError):
            self.log.close()
        if is_failure:
            self.reader.close()
            left.rename(self.path)
            self.medium.settle()
            self.follow()
        while True:
            try:
                self.log = PmemLog.open(self.path)
            except OSError as error:
                expect(self.medium.chance, "a log is not opened for no reason", error)
                self.medium.chance = self.rng.choice(CHANCES)
            else:
                break
        expect(self.log.first in self.firsts, "the log begins elsewhere", self.log.first, self.firsts)
        if self.doubt is not None and self.log.last == self.next:
            expect(self.log.read(self.next) == self.doubt, "another record is there than the one in doubt")
            self.records[self.next] = self.doubt
            self.next += 1
        in_doubt = self.doubt is not None
        expect(in_doubt or not self.log.recovered, "a withdrawn record is a torn tail", self.log.recovered)
        self.first, self.doubt, self.may_refuse = self.log.first, None, False
        self.firsts = {self.first}
        self.records = {number: data for number, data in self.records.items() if number >= self.first}

    def look(self) -> None:
        numbers = self.first, self.next - 1
        expect((self.log.first, self.log.last) == numbers, "the numbers are wrong", self.log, numbers)
        expect(not self.log.verify(), "a record is taken for damaged", self.log.verify())
        for number, data in self.records.items():
            expect(self.log.read(number) == data, "a record is read with other bytes", number)
        if not self.may_refuse:
            found = contents(self.reader)
            expect(found == self.records, "a reader that followed finds others", self.reader, list(found), numbers)


def _log(medium: Medium) -> None:
    state = Log(medium)
    actions = [state.append] * 6 + [state.discard] * 2 + [state.reopen] * 2
    for _ in range(medium.rng.randrange(10, 80)):
        action = medium.rng.choice(actions)
        medium.chance = medium.rng.choice(CHANCES)
        doing(f"{action.__name__}, refusing {medium.chance:g}")
        action()
        state.look()
    medium.chance = 0
    state.log.close()


def _region(medium: Medium) -> None:
    rng, size = medium.rng, 6 * PAGE_SIZE
    with PmemRegion.open(medium.path, size=size, create=True) as region, memoryview(region) as whole:
        medium.settle()
        told = 0
        for _ in range(rng.randrange(10, 80)):
            offset = rng.randrange(size)
            data = rng.randbytes(rng.choice((0, 1, 64, 3000, 9000)))[: size - offset]
            how = rng.choice(("write", "write_crc32c", "flushcache", "persist"))
            medium.chance = rng.choice(CHANCES)
            doing(f"{how} of {len(data)} at {offset}, refusing {medium.chance:g}")
            before, i = medium.refusals, IovIter.ubuf(WRITE, data)
            try:
                match how:
                    case "write":
                        count = region.write(offset, i)
                    case "write_crc32c":
                        count, _ = region.write_crc32c(offset, i)
                    case "flushcache":
                        with whole[offset : offset + len(data)] as part:
                            count = copy_from_iter_flushcache(part, i)
                    case _:
                        before = told  # It reports whatever has failed since it was called last.
                        whole[offset : offset + len(data)] = data
                        region.persist(offset, len(data))
                        count = len(data)
            except OSError as error:
                expect(medium.refusals > before and error.errno in ERRORS, f"{how} is refused for no reason", error)
                expect(i.count == len(data), f"a refused {how} has moved the iterator", i.count)
            else:
                expect(count == len(data), f"{how} is short for no reason", count, len(data))
                expect(medium.at(offset, count) == data, f"{how}: durable by its report, and not on the medium")
            if how == "persist":
                told = medium.refusals


def _safe_map(medium: Medium) -> None:
    rng, size = medium.rng, 6 * PAGE_SIZE
    medium.path.write_bytes(bytes(size))
    with SafeMap.open(medium.path, "r+") as map_:
        for _ in range(rng.randrange(10, 80)):
            offset = rng.randrange(size)
            data = rng.randbytes(rng.choice((0, 1, 64, 3000, 9000)))[: size - offset]
            map_.write(offset, data)
            medium.chance = rng.choice(CHANCES)
            doing(f"flush, refusing {medium.chance:g}")
            try:
                map_.flush()
            except OSError as error:
                expect(medium.chance and error.errno in ERRORS, "a flush is refused for no reason", error)
            else:
                there = medium.at(0, size) == medium.path.read_bytes()
                expect(there, "a flush returned, and something is not on the medium")


def hunt(rng: random.Random) -> None:
    program = rng.choice((_log, _log, _region, _safe_map))
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        medium = Medium(rng, Path(name, "file"))
        judged([MSYNC], medium.judge, lambda: program(medium))
