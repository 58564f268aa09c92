"""A writer that is stopped after each of its instructions: what readers beside it find then, and what is found if it
was killed there. It is what was there before the call or what is there after it, whole.
"""

from __future__ import annotations

import mmap
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, PmemLog, Slot, TornError, cpu
from support.logs import contents
from support.places import MEMORY
from support.stepping import images, unavailable
from support.sums import any_data

from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["hunt", "unavailable"]

SIZE = 2 * PAGE_SIZE + PAGE_SIZE
LENGTHS = (0, 1, 10, 64, 100, 300, 700, 900)
ROOM = 1300
"""What is left free: for the longest data and four bytes behind them, each with a header and in whole lines."""

State = tuple[int, dict[int, bytes]]
"""A log's first number, and its records."""


def _data(rng: random.Random) -> bytes:
    return any_data(rng, rng.choice(LENGTHS))


def _fill(rng: random.Random, log: PmemLog) -> None:
    """Appends, so that the next record is in the first lap or in a later one."""
    for _ in range(rng.choice((0, 1, 3, 30))):
        data = _data(rng)
        while log.free < len(data) + ROOM:
            log.discard_before(log.first + 1)
        log.append(data)


def _state(log: PmemLog) -> State:
    return log.first, contents(log)


def _look(log: PmemLog, allowed: Sequence[State], who: str) -> None:
    expect(not log.verify(), f"{who} takes a record for damaged", log.verify())
    found = _state(log)
    sizes = [(first, {number: len(data) for number, data in records.items()}) for first, records in (found, *allowed)]
    expect(found in allowed, f"{who} finds neither what was there before nor what is there after", *sizes)


def _at_each_step(path: Path, allowed: Sequence[State], call: Callable[[PmemLog], object]) -> None:
    """Steps a writer's call that leads from one of these states to the other."""
    _check(path, allowed, images(path, lambda: PmemLog.open(path), call))


def _check(path: Path, allowed: Sequence[State], steps: Iterator[bytes]) -> None:
    first, records = allowed[0]
    end = first + len(records)
    copy = path.with_suffix(".copy")
    with PmemLog.open(path, writable=False) as reader:
        for step, image in enumerate(steps):
            doing(f"change {step}")
            _look(reader, allowed, "a reader that was open")
            with PmemLog.open(path, writable=False) as fresh:
                _look(fresh, allowed, "a new reader")
            copy.write_bytes(image)
            with PmemLog.open(copy) as log:
                _look(log, allowed, "the next writer")
                first, records = _state(log)
                expect(log.append(b"next") in (end, end + 1), "a number is given again or left out", log, end)
                records[log.last] = b"next"
            with PmemLog.open(copy) as log:
                expect(log.recovered == 0, "a tail is cut twice", log.recovered)
                _look(log, [(first, records)], "the writer after that")


def _append(rng: random.Random, path: Path, before: State) -> None:
    (first, records), data = before, _data(rng)
    after = first, {**records, first + len(records): data}
    _at_each_step(path, [before, after], lambda log: log.append(data))


def _discard(rng: random.Random, path: Path, before: State) -> None:
    first, records = before
    sequence = first + rng.randrange(len(records) + 1)
    after = sequence, {number: data for number, data in records.items() if number >= sequence}
    _at_each_step(path, [before, after], lambda log: log.discard_before(sequence))


def _close(_rng: random.Random, path: Path, before: State) -> None:
    _at_each_step(path, [before], lambda log: log.close())


def _open(rng: random.Random, path: Path, before: State) -> None:
    """Opens a log whose last append was interrupted."""
    with PmemLog.open(path) as log:
        data = log.record(log.append(_data(rng) + b"end"))
        torn = bytearray(path.read_bytes())
    at = data.offset + rng.choice((-64, -20, 0, data.length // 2, data.length - 1))
    stop = data.offset + (data.length if at >= data.offset else 0)
    torn[at:stop] = bytes(stop - at)
    path.write_bytes(torn)
    _check(path, [before], images(path, lambda: None, lambda _: PmemLog.open(path)))


def _log(rng: random.Random, path: Path) -> None:
    with PmemLog.open(path, size=SIZE, create=True) as log:
        _fill(rng, log)
        before = _state(log)
    # Opening a log takes fifty times as many instructions as appending to it.
    rng.choice((*[_append] * 6, *[_discard] * 3, _close, _open))(rng, path, before)


def _new_log(rng: random.Random, path: Path) -> None:
    """Making a log can begin again wherever it was interrupted."""
    there = rng.choice((None, 0, SIZE))
    if there is not None:
        path.write_bytes(bytes(there))
    copy = path.with_suffix(".copy")

    def make(_: None) -> None:
        PmemLog.open(path, size=SIZE, create=True)

    for step, image in enumerate(images(path, lambda: None, make)):
        doing(f"change {step} of a new log")
        copy.write_bytes(image)
        with PmemLog.open(copy, size=SIZE, create=True) as log:
            _look(log, [(0, {})], "the next writer")
            log.append(b"next")
        with PmemLog.open(copy) as log:
            _look(log, [(0, {0: b"next"})], "the writer after that")


def _slot(rng: random.Random, path: Path) -> None:
    """A reader gets the publication or the one before. If the header's line is stored in pieces, it is perhaps torn."""
    shift, offset = rng.choice((0, 0, 1, 8)), 64 * rng.randrange(3)
    capacity = rng.choice((5, 32, 33, 100, 1000, 5000))
    nbytes = offset + Slot.size_for(capacity)
    path.write_bytes(bytes(shift + nbytes))
    with path.open("r+b") as file:
        ours, theirs = (memoryview(mmap.mmap(file.fileno(), 0))[shift:] for _ in range(2))
    slot, reader, buffer = Slot(ours, offset, capacity), Slot(theirs, offset, capacity), bytearray(capacity)
    before, length = b"", rng.randrange(capacity + 1)
    for _ in range(rng.randrange(4)):
        before = any_data(rng, rng.choice((length, rng.randrange(capacity + 1))))
        slot.publish(before)
        slot.consume(buffer)
    number = slot.consume(buffer)[1]
    data = any_data(rng, length)
    is_in_one = shift == 0 and cpu.isa() == "avx512"
    lines, torn = [], []
    for step, image in enumerate(images(path, lambda: slot, lambda slot: slot.publish(data))):
        doing(f"change {step} of a publication of {len(data)} behind {len(before)}")
        lines.append(image[shift + offset :][:64])
        try:
            length, found = reader.consume(buffer)
        except TornError:
            torn.append(lines[-1])
        else:
            is_right = (found, bytes(buffer[:length])) in ((number, before), (number + 1, data))
            expect(is_right, "a reader gets neither of two publications", found, number, length)
        left = memoryview(bytearray(image))[shift:]
        following = Slot(left, offset, capacity)
        found = following.publish(b"next")
        expect(found in (number + 1, number + 2), "a number is given again or left out", found, number)
        length, again = following.consume(buffer)
        is_there = (again, bytes(buffer[:length])) == (found, b"next")
        expect(is_there, "a publication behind it is not there", found, again)
    whole = [line for line in torn if line in (lines[0], lines[-1])]
    expect(not whole, "a publication is torn whose header is whole", len(whole))
    expect(not (torn and is_in_one), "a header is torn that is stored in one piece", len(torn))


def hunt(rng: random.Random) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        rng.choice((*[_log] * 10, *[_slot] * 9, _new_log))(rng, Path(name, "file"))
