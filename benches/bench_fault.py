"""Copies that may meet bad memory: what it costs to be ready for it, and what it costs when it comes."""

from __future__ import annotations

import argparse
import mmap
import random
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING

from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultMap,
    IovIter,
    UserRange,
    copy_from_iter,
    copy_to_iter,
    copy_to_iter_mcsafe,
    fault_handler,
    memcpy_mcsafe,
    testing,
)
from iovec_rs._bench.harness import Case, Contestant, MismatchError, Row, Table, measure

from benches.bench_memory import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "fault"
SIZES = (64, 4 << 10, 64 << 10, 1 << 20)
QUICK_SIZES = (64, 4 << 10)
RANGES, QUICK_RANGES = 1_000_000, 1_000
GONE, QUICK_GONE = 1 << 30, 1 << 22
STEP = 4096
LINE = 64

PLAIN, EMPTY = "copy_to_iter", "mcsafe, an empty map"
ELSEWHERE, AROUND = "mcsafe, a million ranges elsewhere", "mcsafe, a million ranges around it"
FAULT_LIMIT, GONE_LIMIT, MAP_LIMIT = 5_000.0, 10_000.0, 100.0  # ns, us, ns


def scattered(start: int, count: int) -> FaultMap:
    """So many single lines, one in every page from there on."""
    known = FaultMap()
    for at in range(start, start + count * STEP, STEP):
        known.add(at, LINE)
    return known


def _around(address: int, length: int, count: int) -> FaultMap:
    """Half of them below the range, half above it."""
    below = address - count // 2 * STEP - STEP
    known = scattered(below, count // 2)
    for at in range(0, (count - count // 2) * STEP, STEP):
        known.add(address + length + STEP + at, LINE)
    return known


def ready(size: int, ranges: int, quick: bool) -> Iterator[Table]:
    """The same copies with and without the promise to survive, and with maps that do not concern them."""
    data = random.Random(size).randbytes(size)
    memory = bytearray(2 * size)
    memory[:size] = data
    source, target = memoryview(memory)[:size], memoryview(memory)[size:]
    copies = 4 if quick else max(8, min(2000, (8 << 20) // size))
    iterators = [IovIter.ubuf(READ, target) for _ in range(copies)]
    start = iterators[0].save_state()
    base = IovIter.ubuf(WRITE, source).ranges()[0].address
    maps = {
        EMPTY: FaultMap(),
        ELSEWHERE: scattered(0x1000_0000_0000, ranges),
        AROUND: _around(base, len(memory), ranges),
    }

    def rewind() -> None:
        for i in iterators:
            i.restore(start)

    def plain() -> None:
        for i in iterators:
            copy_to_iter(source, i)

    def careful() -> None:
        for i in iterators:
            copy_to_iter_mcsafe(source, i)

    def with_map(known: FaultMap) -> Callable[[], None]:
        def run() -> None:
            for i in iterators:
                copy_to_iter_mcsafe(source, i, fault_map=known)

        return run

    def slicing() -> None:
        for _ in iterators:
            target[:] = source

    def idle() -> None:
        for _ in iterators:
            pass

    def scrub() -> None:
        target[:] = bytes(size)

    table = measure(
        NAME,
        Case(
            f"{size} B into a ubuf iterator, ready for bad memory",
            Contestant("copy_to_iter_mcsafe", careful, lambda: target, rewind),
            [
                Contestant(PLAIN, plain, lambda: target, rewind),
                *(Contestant(name, with_map(known), lambda: target, rewind) for name, known in maps.items()),
                Contestant("mv[:] = mv", slicing, lambda: target),
            ],
            ops=copies,
            op_bytes=size,
            rounds=3 if quick else 101,
            scrub=scrub,
            idle=idle,
        ),
    )
    cost = {row.name: row.median for row in table.rows}
    for row in table.rows:
        if row.name in (ELSEWHERE, AROUND) and size <= STEP:  # larger copies vary by more
            row.target = f"+{MAP_LIMIT:.0f} ns"
            row.verdict = "" if quick else "met" if row.median - cost[EMPTY] < MAP_LIMIT else "MISSED"
    table.notes.append("A map's target is against the empty one.")
    yield table


class Stopwatch:
    """Rows of a table whose lines do different things: no race, one after the other."""

    def __init__(self, table: Table, quick: bool) -> None:
        self.table = table
        self.quick = quick
        self.unit = {"ns": 1.0, "us": 1e3}[table.unit]

    def time(self, name: str, run: Callable[[], object], rounds: int, *, below: float | None = None) -> Row:
        """The median of the rounds in the table's unit; `below` is what it is to stay below."""
        samples = []
        for _ in range(3 if self.quick else rounds):
            begin = perf_counter_ns()
            run()
            samples.append((perf_counter_ns() - begin) / self.unit)
        row = Row(name, median(samples), min(samples))
        if below is not None:
            row.target = f"<{below:.0f}"
            row.verdict = "" if self.quick else "met" if row.median < below else "MISSED"
        self.table.rows.append(row)
        return row


def _against_first(table: Table) -> Table:
    for row in table.rows[1:]:
        row.ratio = row.median / table.rows[0].median
    return table


def recovered(quick: bool) -> Table:
    """A copy that stops at its first byte, so that the fault is all there is."""
    table = Table(NAME, "one recovered fault: the copy that meets it", "ns", identical=True)
    watch = Stopwatch(table, quick)
    out, rounds = bytearray(LINE), 2001
    with testing.truncated(2, keep=1) as memory:
        lines = {
            "nothing mapped": UserRange(LINE, LINE),
            "memory gone": memory.range(PAGE_SIZE, LINE),
            "memory gone, by system calls": memory.range(PAGE_SIZE, LINE),
        }
        for name, line in lines.items():
            source = IovIter.ubuf(WRITE, line)

            def meet(source: IovIter = source) -> None:
                if copy_from_iter(out, source):
                    raise MismatchError("bytes came from bad memory")

            by_calls = "system" in name
            with fault_handler.mode("syscall" if by_calls else "signal"):
                watch.time(name, meet, rounds, below=None if by_calls else FAULT_LIMIT)
    return _against_first(table)


def gone(size: int, quick: bool) -> Table:
    """Until all of a mapping whose file was cut to one page is known to be gone: copy, skip the extent, go on."""
    table = Table(NAME, f"{size >> 20} MiB, all gone but a page: copy, skip the damage, go on", "us", identical=True)
    watch = Stopwatch(table, quick)
    dst = memoryview(mmap.mmap(-1, size))
    with testing.truncated(size // PAGE_SIZE, 1) as source:
        src, base = source.buffer, source.address

        def rescue(piece: int, end: int) -> None:
            at = saved = 0
            known = FaultMap()
            while at < end:
                copied, _, fault = memcpy_mcsafe(dst[at : at + piece], src[at : at + piece], fault_map=known)
                saved += copied
                at += copied
                if fault is not None:
                    at = fault.address + fault.length - base
            if saved != PAGE_SIZE or known.first_in(base, size) != known.first_in(base + PAGE_SIZE, 1):
                raise MismatchError(f"{saved} bytes were saved, not {PAGE_SIZE}")

        watch.time("in one copy", lambda: rescue(size, size), 21, below=GONE_LIMIT)
        watch.time("in copies of 1 MiB", lambda: rescue(1 << 20, size), 21, below=GONE_LIMIT)
        by_page = watch.time("in copies of a page (64th part)", lambda: rescue(PAGE_SIZE, size // 64), 3)
    by_page.median *= 64
    by_page.minimum *= 64
    table.notes.append("Copies of a page: a fault for each, measured over a 64th of them.")
    return _against_first(table)


def weigh(access: str, count: int) -> float:
    """In this process: bytes a range takes in a map of so many."""
    before = resident()
    known = FaultMap()
    for at in range(0, count * STEP, STEP):
        known.add(0x1000_0000_0000 + at, LINE, access)
    taken = resident() - before
    if len(known) != count:
        raise MismatchError(f"the map has {len(known)} ranges, not {count}")
    return taken / count


def weighed(count: int) -> Table:
    table = Table(NAME, f"resident memory of a map of {count} ranges", "bytes", identical=True)
    root = Path(__file__).resolve().parent.parent
    for access in ("read", "both"):
        command = [sys.executable, "-m", "benches.bench_fault", access, str(count)]
        done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
        taken = max(float(done.stdout), 1.0)
        table.rows.append(Row(f"a range that cannot be {'read' if access == 'read' else 'touched'}", taken, taken))
    return _against_first(table)


def run(quick: bool) -> Iterator[Table]:
    for size in QUICK_SIZES if quick else SIZES:
        yield from ready(size, QUICK_RANGES if quick else RANGES, quick)
    yield recovered(quick)
    yield gone(QUICK_GONE if quick else GONE, quick)
    yield weighed(QUICK_RANGES if quick else RANGES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("access", choices=("read", "both"))
    parser.add_argument("count", type=int)
    args = parser.parse_args()
    print(weigh(args.access, args.count))
    return 0


if __name__ == "__main__":
    sys.exit(main())
