"""The same bytes by one thread and by two, each on a CPU of its own."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from iovec_rs import memcpy_flushcache
from iovec_rs._bench.harness import Case, Contestant

from benches.arena import as_array, fill, huge
from benches.durable.ground import FLUSHCACHE, SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iovec_rs._bench.harness import Table

    from benches.durable.ground import Ground

SIZES = (4 << 20, 16 << 20, 64 << 20, 256 << 20)
QUICK_SIZES = (1 << 20,)

CPUS = sorted(os.sched_getaffinity(0))  # before the process stays on one of them

Pair = tuple[memoryview, memoryview]


def _assign(d: memoryview, s: memoryview) -> None:
    d[:] = s


class Workers(ThreadPoolExecutor):
    """Two threads that wait for work on different CPUs, if the process may use more than one."""

    def __init__(self) -> None:
        super().__init__(2, initializer=self._settle)
        self._turn = itertools.count()

    def _settle(self) -> None:
        os.sched_setaffinity(0, {CPUS[next(self._turn) % len(CPUS)]})

    def all(self, copy: Callable[[memoryview, memoryview], object], pairs: list[Pair]) -> None:
        for future in [self.submit(copy, d, s) for d, s in pairs]:
            future.result()


def run(ground: Ground) -> Iterator[Table]:
    for size in QUICK_SIZES if ground.quick else SIZES:
        yield _table(ground, size)


def _table(ground: Ground, size: int) -> Table:
    source, target = huge(size), huge(size)
    fill(as_array(source), size)
    d, s, half = memoryview(target), memoryview(source), size // 2
    one, two = [(d, s)], [(d[:half], s[:half]), (d[half:], s[half:])]

    with Workers() as workers:

        def contestant(name: str, copy: Callable[[memoryview, memoryview], object], pairs: list[Pair]) -> Contestant:
            return Contestant(name, lambda: workers.all(copy, pairs), lambda: d, ground.sweep)

        case = Case(
            title=f"{size >> 20} MiB by two threads and by one",
            ours=contestant(f"{FLUSHCACHE}, two threads", memcpy_flushcache, two),
            rivals=[
                contestant(f"{FLUSHCACHE}, one thread", memcpy_flushcache, one),
                contestant(f"{SLICE}, two threads", _assign, two),
                contestant(f"{SLICE}, one thread", _assign, one),
            ],
            ops=1,
            op_bytes=size,
            rounds=3 if ground.quick else 21,
            scrub=lambda: as_array(target).fill(0),
        )
        table = ground.measure(case)
    if len(CPUS) == 1:
        table.notes.append("There is one CPU: the threads share it.")
    return table
