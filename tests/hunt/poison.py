"""Memory under a log and under a slot that turns bad at any moment, by UFFDIO_POISON: acknowledged records stay.

The poison is in one mapping of the file, and its bytes stay as they are. So whatever was acknowledged can be read
through another mapping at any time, and by the writer itself once the log is opened again. Until then a record is read
whole or is a FaultError; it is never damage, and never another's bytes.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, WRITE, FaultError, IovIter, PmemLog, Slot
from support.places import MEMORY, address
from support.poison import mappings_of, poison, unavailable
from support.sums import any_data

from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

__all__ = ["hunt", "unavailable"]

RING_PAGE = 2
"""The first page of the ring, behind the two superblocks."""
MOST_BAD = 4


class Log:
    """A log, what it must have, and the pages that are bad."""

    def __init__(self, rng: random.Random, path: Path) -> None:
        self.rng, self.path = rng, path
        self.pages = rng.choice((1, 2, 4, 8, 20))
        size = (RING_PAGE + self.pages) * PAGE_SIZE + rng.choice((0, 0, 64, 100))
        self.log = PmemLog.open(path, size=size, create=True)
        self.records: dict[int, bytes] = {}
        self.first = self.next = 0
        self.bad: set[int] = set()
        self.may_refuse = False
        """Whether a superblock's memory is bad. A bad page of the ring cannot be noted then, and an append that meets
        one can perhaps not be erased until the log is opened again.
        """

    def append(self) -> None:
        rng, free = self.rng, self.log.free
        length = rng.choice((0, 1, 64, 65, rng.randrange(6000), free, free + 1))
        data = any_data(rng, length)
        cut = rng.randrange(length + 1)
        i = IovIter.kvec(WRITE, [data[:cut], data[cut:]])
        doing(f"append of {length}, free {free}, bad {sorted(self.bad)}")
        try:
            with self.beside():
                number = self.log.append(i)
        except FaultError:
            expect(self.bad, "an append meets bad memory where there is none")
            expect(i.count == length, "a refused append has moved the iterator", i.count, length)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                expect(length > free or free == 0, "free is larger than what an append takes", length, free)
            else:
                expect(error.errno == errno.EIO and self.may_refuse, "an append is refused", error)
        else:
            expect(length <= free, "an append took more than free", length, free)
            expect(number == self.next, "a number is left out or given again", number, self.next)
            self.records[number] = data
            self.next += 1

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """Now and then, a thread makes pages bad meanwhile."""
        if self.rng.random() < 0.8 or len(self.bad) >= MOST_BAD:
            yield
            return
        page = self.rng.randrange(RING_PAGE, RING_PAGE + self.pages)
        self.bad.add(page)
        thread = threading.Thread(target=poison, args=(mappings_of(self.path)[0], page))
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def discard(self) -> None:
        sequence = self.rng.randrange(self.first, self.next + 1)
        doing(f"discard before {sequence}")
        try:
            self.log.discard_before(sequence)
        except (FaultError, OSError) as error:
            expect(self.may_refuse, "a discard is refused", error)
        else:
            self.first = max(self.first, sequence)
            self.records = {number: data for number, data in self.records.items() if number >= sequence}

    def spoil(self) -> None:
        """Makes a page bad, rarely one of the superblocks'."""
        if len(self.bad) >= MOST_BAD:
            return
        page = self.rng.randrange(RING_PAGE, RING_PAGE + self.pages)
        if self.rng.random() < 0.1 and not self.may_refuse:
            page = self.rng.randrange(RING_PAGE)
            self.may_refuse = True
        if page not in self.bad:
            doing(f"poison of page {page}")
            self.bad.add(page)
            poison(mappings_of(self.path)[0], page)

    def reopen(self) -> None:
        """Closes the log, or stops as a crash does: the mapping and its poison end, and the bytes are there."""
        doing("reopen")
        image = self.path.read_bytes()
        try:
            self.log.close()
        except (FaultError, OSError) as error:
            expect(self.may_refuse, "a close is refused", error)
        if self.rng.random() < 0.5:
            other = self.path.with_suffix(".copy")
            other.write_bytes(image)
            other.rename(self.path)
        self.bad.clear()
        self.log = PmemLog.open(self.path)
        expect(self.log.recovered == 0 or self.may_refuse, "a withdrawn record is a torn tail", self.log.recovered)
        self.may_refuse = False
        self.read(self.log, may_fault=False)

    def read(self, log: PmemLog, *, may_fault: bool) -> None:
        numbers = self.first, self.next - 1
        expect((log.first, log.last) == numbers, "the numbers are wrong", (log.first, log.last), numbers)
        faults = 0
        for number, data in self.records.items():
            try:
                found = log.read(number)
            except FaultError as error:
                faults += 1
                expect(may_fault, "a record is bad memory where there is none", number, error)
            else:
                expect(found == data, "a record is read with other bytes", number)
        for fault in log.verify():
            expect(may_fault and fault.cause != "unknown", "a record in bad memory is taken for damaged", fault)
            faults -= 1
        expect(faults <= 0, "verify does not report what read does", faults)

    def look(self) -> None:
        """Looks through the writer's mapping and through one without poison."""
        doing("look")
        self.read(self.log, may_fault=bool(self.bad))
        with PmemLog.open(self.path, writable=False) as reader:
            self.read(reader, may_fault=False)


def _log(rng: random.Random, path: Path) -> None:
    state = Log(rng, path)
    actions = [state.append] * 6 + [state.discard] * 2 + [state.spoil, state.look, state.reopen]
    for _ in range(rng.randrange(5, 120)):
        rng.choice(actions)()
    state.look()
    state.reopen()
    state.log.close()


def _slot(rng: random.Random, path: Path) -> None:
    """A publication that meets bad memory leaves the one before, which a reader with good memory gets whole."""
    npages = rng.choice((2, 5))
    path.write_bytes(bytes(npages * PAGE_SIZE))
    capacity = rng.choice((32, 100, 1000, (npages * PAGE_SIZE - 64) // 2 // 64 * 64 - 64))
    offset = rng.randrange((npages * PAGE_SIZE - Slot.size_for(capacity)) // 64 + 1) * 64
    with path.open("r+b") as file:
        ours, theirs = (mmap.mmap(file.fileno(), 0) for _ in range(2))
    slot, reader = Slot(ours, offset, capacity), Slot(theirs, offset, capacity)
    last, number, bad, buffer = b"", 0, set[int](), bytearray(capacity)
    for _ in range(rng.randrange(5, 60)):
        if rng.random() < 0.1:
            page = rng.randrange(npages)
            if page not in bad:
                poison(address(ours), page)
                bad.add(page)
        data = any_data(rng, rng.choice((0, 1, 32, 33, capacity)) % (capacity + 1))
        doing(f"publication of {len(data)}, bad {sorted(bad)}")
        try:
            published = slot.publish(data)
        except FaultError:
            expect(bad, "a publication meets bad memory where there is none")
        else:
            expect(published == number + 1, "a number of a publication is left out or given again", published, number)
            last, number = data, published
        length, found = reader.consume(buffer)
        expect((found, bytes(buffer[:length])) == (number, last), "a reader gets another publication", found, number)
        try:
            length, found = slot.consume(buffer)
        except FaultError:
            expect(bad, "a reader meets bad memory where there is none")
        else:
            expect((found, bytes(buffer[:length])) == (number, last), "a reader gets another publication", found)


def hunt(rng: random.Random) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        rng.choice((_log, _log, _slot))(rng, Path(name, "file"))
