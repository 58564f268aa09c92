"""A slot's header and data that are written over: a publication is read whole or is torn, and the numbers go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import Slot, TornError
from support.sums import any_data

from hunt.finding import doing, expect

if TYPE_CHECKING:
    import random

LINE = 64
CAPACITY = 1000


def hunt(rng: random.Random) -> None:
    memory = bytearray(Slot.size_for(CAPACITY))
    slot, data, number = Slot(memory), b"", 0
    for _ in range(rng.randrange(1, 9)):
        data = any_data(rng, rng.choice((0, 3, 32, 33, 100, CAPACITY)))
        number = slot.publish(data)
    before = bytes(memory)
    how = rng.choice(("a bit", "bytes", "zeroes", "data"))
    if how == "a bit":
        bit = rng.randrange(8 * LINE)
        memory[bit // 8] ^= 1 << bit % 8
    elif how == "data":
        at = rng.randrange(LINE, len(memory))
        memory[at] ^= rng.randrange(1, 256)
    else:
        at = rng.randrange(LINE)
        length = rng.randrange(1, LINE - at + 1)
        memory[at : at + length] = rng.randbytes(length) if how == "bytes" else bytes(length)
    is_changed = bytes(memory[:LINE]) != before[:LINE]
    doing(f"{how}, {len(data)} bytes, number {number}")

    is_same = rng.random() < 0.5
    reader = slot if is_same else Slot(memory)
    buffer = bytearray(CAPACITY)
    try:
        length, found = reader.consume(buffer)
    except (TornError, ValueError):
        expect(is_changed or how == "data", "a whole publication is torn", how)
    else:
        is_zero = not any(memory[:LINE])
        expect(
            (found, bytes(buffer[:length])) == (number, data) or (found == 0 and is_zero), "a mix is read", how, found
        )
        expect(not is_changed or is_zero, "a changed header passes", how)

    writer = slot if is_same else Slot(memory)
    try:
        after = writer.publish(b"next")
    except OSError as error:
        expect(not is_same, "the slot that published last is refused", how, error)
        return
    # A writer that has not published yet knows the number from the header alone.
    if how in ("a bit", "data"):
        expect(after == number + 1, "a number is left out or given again", how, after, number)
    expect(after > number or not is_same, "a number goes back", how, after, number)
    length, found = Slot(memory).consume(buffer)
    is_there = (found, bytes(buffer[:length])) == (after, b"next")
    expect(is_there, "a publication behind it is not there", how, found, after)
