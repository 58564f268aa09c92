"""Flat copies at distances where some C libraries' memcpy falls off a cliff, which ``mv[:] = mv`` inherits."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import PAGE_SIZE, READ, IovIter, copy_to_iter
from iovec_rs._bench.harness import Contestant, Row, Table, gigabytes, per_op, prove, race, ratio

from benches.arena import huge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "cliff"
MEMORY = 4 << 20
SIZES = (2 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20)
QUICK_SIZES = (2 << 10, 16 << 10)
# The first copy of memory that can go away asks the kernel who owns the signals, which takes half a microsecond; those
# right after it need not. So a sample is so many copies, or as many as move so many bytes.
IN_A_ROW = 512
BYTES_IN_A_ROW = 16 << 20
WARMUP = 20
DISTANCES = (0, 1, 4, 8, 15, 16, 17, 64, 2048)

# rep movsb is 16 to 30 times slower there than the vector loop: a quarter of the best is far from both.
CLIFF = 4.0


def settled() -> memoryview:
    """The interpreter's own memory, from a page boundary on."""
    owner = bytearray(MEMORY + PAGE_SIZE)
    start = -int(np.frombuffer(owner, np.uint8).ctypes.data) % PAGE_SIZE
    return memoryview(owner)[start : start + MEMORY]


def mapped() -> memoryview:
    """A mapping, which can go away: a fault has to be survived, so a handler has to be known to be there."""
    return memoryview(huge(MEMORY))


KINDS: dict[str, Callable[[], memoryview]] = {"bytearray": settled, "mmap": mapped}


def named(distance: int) -> str:
    return f"(dst - src) mod 4096 = {distance}"


class Lane:
    """One distance: where its copies go, and for every copy of a sample an iterator, and a view for the rival."""

    def __init__(self, memory: memoryview, size: int, distance: int, copies: int) -> None:
        half = len(memory) // 2
        self.source = memory[:size]
        self.target = memory[half + distance : half + distance + size]
        self.iterators = [IovIter.ubuf(READ, self.target) for _ in range(copies)]
        self.start = self.iterators[0].save_state()
        self.views = [self.target[:] for _ in range(copies)]
        self.name = named(distance)

    def rewind(self) -> None:
        for i in self.iterators:
            i.restore(self.start)

    def ours(self) -> None:
        source = self.source
        for i in self.iterators:
            copy_to_iter(source, i)

    def slicing(self) -> None:
        source = self.source
        for target in self.views:
            target[:] = source

    def scrub(self) -> None:
        self.target[:] = bytes(len(self.target))

    def contestants(self) -> list[Contestant]:
        return [
            Contestant(f"iovec_rs, {self.name}", self.ours, self.result, self.rewind),
            Contestant(f"mv[:] = mv, {self.name}", self.slicing, self.result),
        ]

    def result(self) -> memoryview:
        return self.target


def flat(kind: str, size: int, rounds: int) -> tuple[Table, set[int]]:
    """A race for each distance; also the distances at which this host's memcpy is on its cliff."""
    copies = max(8, min(IN_A_ROW, BYTES_IN_A_ROW // size))
    memory = KINDS[kind]()
    memory[:size] = random.Random(size).randbytes(size)
    races = {}
    for distance in DISTANCES:
        lane = Lane(memory, size, distance, copies)
        prove(lane.contestants(), lane.scrub)
        races[distance] = race(lane.contestants(), rounds, WARMUP)
    best = min(per_op(theirs, copies)[0] for _, theirs in races.values())

    table = Table(NAME, f"flat copy of {size} B of {kind} through a ubuf iterator", "ns/op", identical=True)
    fallen = set()
    for distance, samples in races.items():
        mine, rival = (per_op(taken, copies) for taken in samples)
        on_cliff = rival[0] > best * CLIFF
        if on_cliff:
            fallen.add(distance)
        table.rows.append(Row(named(distance), *mine, gigabytes(size, mine[0])))
        name = "  mv[:] = mv, on its cliff" if on_cliff else "  mv[:] = mv"
        table.rows.append(Row(name, *rival, gigabytes(size, rival[0]), ratio(samples[0], samples[1])))
    return table, fallen


def run(quick: bool) -> Iterator[Table]:
    cliffs: dict[int, set[int]] = {}
    sizes = QUICK_SIZES if quick else SIZES
    for kind in KINDS:
        for size in sizes:
            table, cliffs[size] = flat(kind, size, 3 if quick else 61)
            if size == sizes[-1] and not quick:
                table.notes.append(_verdict_on_host(cliffs))
            yield table


def _verdict_on_host(cliffs: dict[int, set[int]]) -> str:
    found = [f"{size} B at {sorted(fallen)}" for size, fallen in cliffs.items() if fallen]
    if not found:
        return "This host's memcpy has no such cliff at these sizes: there is nothing to win here."
    return "This host's memcpy is on its cliff for " + "; ".join(found) + "."
