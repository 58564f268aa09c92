"""Batches of tensors into a mapping, as the caches of language models go to a DAX device or a file in memory."""

from __future__ import annotations

import ctypes
import mmap
import random
from typing import TYPE_CHECKING

from iovec_rs import WRITE, IovIter, copy_from_iter_flushcache, pmem
from iovec_rs._bench.harness import Case, Contestant
from iovec_rs.pmem import PmemRegion

from benches.arena import address, as_array, fill, huge, tmpfs_file
from benches.durable.ground import GATHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iovec_rs._bench.harness import Table
    from iovec_rs._bench.libpmem import Libpmem

    from benches.durable.ground import Ground

TENSOR = 64 << 10
TENSORS = 256  # of a batch
BATCHES = 8  # of a sample, one after the other

REGION = "PmemRegion.write"
MEMMOVE = "ctypes.memmove each"


class Batches:
    """Tensors at shuffled places of a pool, and the mapping that all of them go to, batch after batch."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self.mapping = mapping
        self.pool = huge(len(mapping))
        fill(as_array(self.pool), TENSOR)
        places = list(range(0, len(mapping), TENSOR))
        random.Random(TENSOR).shuffle(places)
        views = [memoryview(self.pool)[at : at + TENSOR] for at in places]
        self.iterators = [IovIter.kvec(WRITE, views[at : at + TENSORS]) for at in range(0, len(views), TENSORS)]
        self.size = TENSOR * TENSORS
        self.offsets = range(0, len(mapping), self.size)
        self.targets = [memoryview(mapping)[at : at + self.size] for at in self.offsets]
        to, source = address(mapping), address(self.pool)
        self.moves = [(to + number * TENSOR, source + at) for number, at in enumerate(places)]

    def gather(self) -> None:
        for target, i in zip(self.targets, self.iterators, strict=True):
            copy_from_iter_flushcache(target, i)

    def write(self, region: PmemRegion) -> None:
        for at, i in zip(self.offsets, self.iterators, strict=True):
            region.write(at, i)

    def memmove(self) -> None:
        for d, s in self.moves:
            ctypes.memmove(d, s, TENSOR)

    def memmove_persisted(self) -> None:
        for number, target in enumerate(self.targets):
            for d, s in self.moves[number * TENSORS : (number + 1) * TENSORS]:
                ctypes.memmove(d, s, TENSOR)
            pmem.persist(target)

    def by_libpmem(self, library: Libpmem) -> None:
        for d, s in self.moves:
            library.persist(d, s, TENSOR)


def _tables(ground: Ground, where: str, mapping: mmap.mmap, region: PmemRegion | None) -> Iterator[Table]:
    batches = Batches(mapping)
    rewind = ground.rewinding(batches.iterators)

    def contestant(name: str, run: Callable[[], object], prepare: Callable[[], object] = ground.sweep) -> Contestant:
        return Contestant(name, run, lambda: memoryview(mapping), prepare)

    def case(ours: Contestant, rivals: list[Contestant]) -> Case:
        return Case(
            title=f"{TENSORS} tensors of {TENSOR >> 10} KiB to {where}, {ours.name}",
            ours=ours,
            rivals=rivals,
            ops=len(batches.targets),
            op_bytes=batches.size,
            rounds=3 if ground.quick else 21,
            unit="ns/batch",
            scrub=lambda: as_array(mapping).fill(0),
        )

    moved = contestant(MEMMOVE, batches.memmove)
    rivals = [moved, contestant(f"{MEMMOVE}, pmem.persist", batches.memmove_persisted)]
    library = ground.library
    if library is not None:
        rivals.append(contestant("libpmem each, by ctypes", lambda: batches.by_libpmem(library)))
    yield ground.measure(case(contestant(GATHER, batches.gather, rewind), rivals))
    if region is not None:
        table = ground.measure(case(contestant(REGION, lambda: batches.write(region), rewind), [moved]))
        table.notes.append(f"The region's granularity is {region.granularity!r}.")
        yield table


def run(ground: Ground) -> Iterator[Table]:
    size = TENSOR * TENSORS * (1 if ground.quick else BATCHES)
    with tmpfs_file(size) as path, path.open("r+b") as file, PmemRegion.open(path) as region:
        yield from _tables(ground, "a tmpfs file", mmap.mmap(file.fileno(), size), region)
    yield from _tables(ground, "anonymous memory", huge(size), None)
