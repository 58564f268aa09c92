"""One buffer into another, copy after copy: source and destination are cold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import WRITE, IovIter, copy_from_iter_flushcache, memcpy_flushcache, memcpy_nocache, pmem
from iovec_rs._bench.harness import Case, Contestant
from iovec_rs._core import least_copy

from benches.arena import address, as_array, fill, huge
from benches.durable.ground import FLUSHCACHE, GATHER, LIMIT, SLICE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iovec_rs._bench.harness import Table
    from iovec_rs._bench.libpmem import Libpmem

    from benches.durable.ground import Ground

SIZES = (1 << 20, 16 << 20, 256 << 20, 1 << 30)
QUICK_SIZES = (64 << 10,)

# Of a sample. What memcpy leaves dirty in the caches is not on its bill, so it must not be most of what it copies.
AT_LEAST = 128 << 20
LIMIT_OVER = 256 << 20
"""Of the fastest copy known, which has memory of its own: past all caches, more memory is copied no more slowly."""


class Lane:
    """Source and destination of every copy of a sample."""

    def __init__(self, size: int, total: int) -> None:
        self.size = size
        self.source, self.target = huge(total), huge(total)
        fill(as_array(self.source), size)
        slots = range(0, total, size)
        sources = [memoryview(self.source)[at : at + size] for at in slots]
        self.targets = [memoryview(self.target)[at : at + size] for at in slots]
        self.pairs = list(zip(self.targets, sources, strict=True))
        self.iterators = [IovIter.ubuf(WRITE, view) for view in sources]
        to, source = address(self.target), address(self.source)
        self.addresses = [(to + at, source + at) for at in slots]

    def each(self, copy: Callable[[memoryview, memoryview], object]) -> None:
        for d, s in self.pairs:
            copy(d, s)

    def gather(self) -> None:
        for d, i in zip(self.targets, self.iterators, strict=True):
            copy_from_iter_flushcache(d, i)

    def slicing(self) -> None:
        for d, s in self.pairs:
            d[:] = s

    def slicing_persisted(self) -> None:
        for d, s in self.pairs:
            d[:] = s
            pmem.persist(d)

    def by_libpmem(self, library: Libpmem) -> None:
        for d, s in self.addresses:
            library.persist(d, s, self.size)


def _limits(ground: Ground, size: int, sample: int) -> list[Contestant]:
    """The fastest copy known, if any is, of as many bytes a sample in pieces of that size."""
    once = min(sample, LIMIT_OVER)
    copy = least_copy(once)
    if copy is None:
        return []

    def run() -> None:
        for _ in range(0, sample, once):
            copy.run(size)

    return [Contestant(LIMIT, run, bytes, ground.sweep)]


def _tables(ground: Ground, size: int) -> Iterator[Table]:
    total = size * 2 if ground.quick else max(size, AT_LEAST)
    lane = Lane(size, total)
    limits = _limits(ground, size, total)

    def contestant(name: str, run: Callable[[], object], prepare: Callable[[], object] = ground.sweep) -> Contestant:
        return Contestant(name, run, lambda: memoryview(lane.target), prepare)

    def case(ours: Contestant, rivals: list[Contestant]) -> Case:
        return Case(
            title=f"flat, {size >> 10} KiB, {ours.name}",
            ours=ours,
            rivals=rivals,
            ops=len(lane.pairs),
            op_bytes=size,
            rounds=3 if ground.quick else 21 if size < 1 << 30 else 11,
            scrub=lambda: as_array(lane.target).fill(0),
            limits=limits,
        )

    assigned = contestant(SLICE, lane.slicing)
    rivals = [
        contestant("memcpy_nocache", lambda: lane.each(memcpy_nocache)),
        assigned,
        contestant(f"{SLICE}, pmem.persist", lane.slicing_persisted),
    ]
    library = ground.library
    if library is not None:
        rivals.append(contestant("libpmem by ctypes", lambda: lane.by_libpmem(library)))
    gather = contestant(GATHER, lane.gather, ground.rewinding(lane.iterators))
    flushcache = contestant(FLUSHCACHE, lambda: lane.each(memcpy_flushcache))
    yield ground.measure(case(flushcache, rivals))
    yield ground.measure(case(gather, [assigned]))


def run(ground: Ground) -> Iterator[Table]:
    for size in QUICK_SIZES if ground.quick else SIZES:
        yield from _tables(ground, size)
