"""Guards: what one costs that meets nothing, and what a bad page costs, until it is put back.

Bad pages are poisoned by userfaultfd (Linux 6.6 or later), every second page of a range, so that each is an extent of
its own and is kept aside. Per page: the fault, which is the time of a sum over them less that over as many good pages,
and the end of the block.
"""

from __future__ import annotations

import mmap
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np
from iovec_rs import PAGE_SIZE, guard, testing
from iovec_rs._bench.harness import Case, Contestant, Row, Table, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "guard"
CALLS = 1000
SUMMED, QUICK_SUMMED = 64 << 20, 1 << 20
SCATTERED, QUICK_SCATTERED = (1, 100, 1000, 10_000), (1, 100)
FAULT_LIMIT = 20_000.0  # ns


def entered() -> Table:
    mapping = mmap.mmap(-1, 16 * PAGE_SIZE)

    def ours() -> None:
        for _ in range(CALLS):
            with guard(mapping):
                pass

    def idle() -> None:
        for _ in range(CALLS):
            pass

    case = Case("with guard(mapping): pass", Contestant("guard", ours, lambda: b""), [], CALLS, idle=idle)
    return measure(NAME, case)


def summed(quick: bool) -> Table:
    size = QUICK_SUMMED if quick else SUMMED
    array: Any = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint64)
    array[:] = 3
    found = [b""]

    def plain() -> None:
        found[0] = bytes(array.sum())

    def guarded() -> None:
        with guard(array):
            plain()

    case = Case(
        f"a sum over {size >> 20} MiB that are there",
        Contestant("guarded", guarded, lambda: found[0]),
        [Contestant("unguarded", plain, lambda: found[0])],
        1,
        size,
    )
    return measure(NAME, case)


def scattered(npages: int, rounds: int, quick: bool) -> Table:
    """Fresh memory each round: a page that was put back is bad again, but its tables are there."""
    faults, ends = [], []
    for _ in range(rounds):
        with testing.poisoned(2 * npages, bad=[(page * PAGE_SIZE, 1) for page in range(1, 2 * npages, 2)]) as memory:
            array: Any = np.frombuffer(memory.buffer, dtype=np.uint8)
            bad, good = array[PAGE_SIZE :: 2 * PAGE_SIZE], array[:: 2 * PAGE_SIZE]
            good.sum()
            begin = perf_counter_ns()
            good.sum()
            read = perf_counter_ns() - begin
            with guard(array, on_fault="record") as watch:
                begin = perf_counter_ns()
                bad.sum()
                met = perf_counter_ns()
            end = perf_counter_ns()
            if watch.lost != npages * PAGE_SIZE or watch.not_restored:
                raise RuntimeError(f"{watch.lost} bytes were lost, {watch.not_restored} not restored")
            faults.append((met - begin - read) / npages)
            ends.append((end - met) / npages)
            del array, bad, good
    table = Table(NAME, f"{npages} scattered bad pages, kept aside", "ns/page", identical=True)
    took = median(faults)
    verdict = "" if quick else "met" if took < FAULT_LIMIT else "MISSED"
    fault = Row("a fault", took, min(faults), target=f"<{FAULT_LIMIT:.0f}", verdict=verdict)
    table.rows = [fault, Row("its end", median(ends), min(ends))]
    table.notes.append(f"{rounds} rounds.")
    return table


def run(quick: bool) -> Iterator[Table]:
    yield entered()
    yield summed(quick)
    for npages in QUICK_SCATTERED if quick else SCATTERED:
        yield scattered(npages, 3 if quick else max(9, min(301, 30_000 // npages)), quick)
