"""How costs grow: with the number of segments, and with the number of ranges that a map knows."""

from __future__ import annotations

import random
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import READ, WRITE, FaultMap, IovIter, IterState, UserRange, copy_from_iter, copy_to_iter_mcsafe
from iovec_rs._bench.harness import MismatchError, Row, Table

from benches.arena import address, huge
from benches.bench_fault import scattered
from benches.bench_memory import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "growth"
SEGMENTS = tuple(10**n for n in range(3, 8))
RANGES = (0, *(10**n for n in range(3, 8)))
QUICK_SEGMENTS, QUICK_RANGES = (1_000,), (0, 1_000)
LENGTH = 8
SPACING = 16
CALLS = 2_000
MAP_LIMIT = 100.0  # ns of a call


def timed(run: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median and minimum, in nanoseconds."""
    taken = []
    for _ in range(rounds):
        start = perf_counter_ns()
        run()
        taken.append(perf_counter_ns() - start)
    return median(taken), min(taken)


def _row(name: str, taken: tuple[float, float] | int, count: int) -> Row:
    middle, least = taken if isinstance(taken, tuple) else (taken, taken)
    return Row(name, middle / count, least / count)


def segments(counts: tuple[int, ...], rounds: int) -> Iterator[Table]:
    """An iterator over so many segments of eight bytes, made from a range object for each."""
    tables = {
        job: Table(NAME, f"{job}, a segment of {LENGTH} B", "ns/seg", identical=True)
        for job in ("IovIter.iovec of UserRange", "gather", "advance")
    }
    memory = Table(NAME, "resident memory of an iterator, a segment", "bytes/seg", identical=True)
    for count in counts:
        arena = huge(count * SPACING)
        words = np.frombuffer(arena, np.uint64)
        words[:] = np.arange(words.size, dtype=np.uint64)
        out = bytearray(count * LENGTH)
        base, name, fewer = address(arena), f"{count} segments", rounds if count < 10**6 else 3

        def made(base: int = base, count: int = count) -> IovIter:
            return IovIter.iovec(WRITE, (UserRange(base + at, LENGTH) for at in range(0, count * SPACING, SPACING)))

        tables["IovIter.iovec of UserRange"].rows.append(_row(name, timed(made, fewer), count))
        before = resident()
        i = made()
        memory.rows.append(_row(name, max(resident() - before, 1), count))
        start = i.save_state()

        def gather(i: IovIter = i, out: bytearray = out, start: IterState = start) -> None:
            i.restore(start)
            copy_from_iter(out, i)

        def advance(i: IovIter = i, start: IterState = start) -> None:
            i.restore(start)
            i.advance(i.count)

        tables["gather"].rows.append(_row(name, timed(gather, fewer), count))
        if not np.array_equal(np.frombuffer(out, np.uint64), words[:: SPACING // LENGTH]):
            raise MismatchError(f"{name}: what was gathered is not what lies there")
        tables["advance"].rows.append(_row(name, timed(advance, fewer), count))
    yield from tables.values()
    yield memory


def ranges(counts: tuple[int, ...], rounds: int, quick: bool) -> Iterator[Table]:
    """64 B between two buffers, with a map of so many ranges, none of which they meet."""
    source, target = random.Random(1).randbytes(64), bytearray(64)
    iterators = [IovIter.ubuf(READ, target) for _ in range(10 if quick else CALLS)]
    start = iterators[0].save_state()
    elsewhere = Table(NAME, "64 B with a map of ranges, a call", "ns/call", identical=True)
    memory = Table(NAME, "resident memory of a map, a range", "bytes/range", identical=True)
    base = 0.0
    for count in counts:
        before = resident()
        known = scattered(0x1000_0000_0000, count) if count else FaultMap()
        name = f"{count} ranges"
        if count:
            memory.rows.append(_row(name, max(resident() - before, 1), count))

        def run(known: FaultMap = known) -> None:
            for i in iterators:
                copy_to_iter_mcsafe(source, i, fault_map=known)

        def rewound(run: Callable[[], None] = run) -> float:
            for i in iterators:
                i.restore(start)
            return timed(run, 1)[0]

        taken = [rewound() for _ in range(rounds)]
        if target != source:
            raise MismatchError(f"{name}: the copy did not copy")
        row = _row(name, (median(taken), min(taken)), len(iterators))
        base = base or row.median
        row.target = f"<{base + MAP_LIMIT:.0f}"
        row.verdict = "" if quick else "met" if row.median < base + MAP_LIMIT else "MISSED"
        elsewhere.rows.append(row)
    yield elsewhere
    yield memory


def run(quick: bool) -> Iterator[Table]:
    yield from segments(QUICK_SEGMENTS if quick else SEGMENTS, 3 if quick else 7)
    yield from ranges(QUICK_RANGES if quick else RANGES, 3 if quick else 31, quick)
