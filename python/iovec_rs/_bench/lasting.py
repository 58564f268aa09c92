"""Copies after which nothing is in the caches alone, and publications on memory that two hosts share."""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from typing import TYPE_CHECKING

import iovec_rs
from iovec_rs import cpu, pmem
from iovec_rs._core import LeastSlot, least_slot

from . import libpmem
from .harness import Case, Contestant
from .memory import Broom, address, fill, huge, scrub, tmpfs_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAMPLE = 4 << 20
MOST = 128


def _mapped(nbytes: int) -> mmap.mmap:
    """Pages of a file in memory. The mapping keeps them when the file has gone."""
    with tmpfs_file(nbytes) as path, path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), nbytes)
    scrub(mapping)
    return mapping


def _copies(size: int, quick: bool) -> int:
    return 2 if quick else max(1, min(MOST, SAMPLE // size))


def durable(size: int, quick: bool) -> Case:
    """To a mapped file, copy after copy to places of its own, cold before each sample."""
    copies = _copies(size, quick)
    stride = size + -size % mmap.PAGESIZE  # what mmap.flush takes begins at a page
    source_memory, mapping = huge(stride * copies), _mapped(stride * copies)
    fill(source_memory, size)
    broom = Broom(1 << 20 if quick else 96 << 20)
    slots = range(0, stride * copies, stride)
    sources = [memoryview(source_memory)[at : at + size] for at in slots]
    targets = [memoryview(mapping)[at : at + size] for at in slots]
    pairs = list(zip(targets, sources, strict=True))
    to, origin = address(mapping), address(source_memory)
    addresses = [(to + at, origin + at) for at in slots]
    flushed = list(zip(targets, sources, slots, strict=True))

    def ours() -> None:
        for d, s in pairs:
            iovec_rs.memcpy_flushcache(d, s)

    def persisted() -> None:
        for d, s in pairs:
            d[:] = s
            pmem.persist(d)

    def synced() -> None:
        for d, s, at in flushed:
            d[:] = s
            mapping.flush(at, size)

    def contestant(name: str, run: Callable[[], object]) -> Contestant:
        return Contestant(name, run, lambda: memoryview(mapping), broom.sweep)

    rivals = [
        contestant("d[:] = s, pmem.persist", persisted),
        contestant("d[:] = s, mmap.flush", synced),
    ]
    library = libpmem.load()
    if library is not None:

        def by_libpmem() -> None:
            for d, s in addresses:
                library.persist(d, s, size)

        rivals.append(contestant("pmem_memcpy_persist, ctypes", by_libpmem))
    return Case(
        title=f"durable copy of {size} B to a mapped file, cold",
        ours=contestant("memcpy_flushcache", ours),
        rivals=rivals,
        ops=copies,
        op_bytes=size,
        scrub=lambda: scrub(mapping),
    )


class Shared:
    """A slot in a mapped file, and beside it memory of the same length for whoever publishes by hand."""

    def __init__(self, size: int, quick: bool) -> None:
        self.repeats = range(_copies(size, quick))
        source = huge(size)
        fill(source, size)
        self.data = memoryview(source)
        room = iovec_rs.Slot.size_for(size)
        mapping = memoryview(_mapped(room + size))
        self.slot = iovec_rs.Slot(mapping[:room], capacity=size)
        self.plain = mapping[room:]
        self.best = cpu.flush_instruction() or "clflush"
        self.least = least_slot(size)

    def limits(self, name: str, run: Callable[[LeastSlot], None]) -> list[Contestant]:
        """The least that the job takes, if that can be said of this CPU."""
        least = self.least
        if least is None:
            return []

        def repeated() -> None:
            for _ in self.repeats:
                run(least)

        return [Contestant(name, repeated, bytes, self.by_the_best)]

    def by_the_best(self) -> None:
        """As the package does by itself. Chosen before the clock starts."""
        cpu.use_flush_instruction(self.best)

    def by_clflush(self) -> None:
        """As maru's `_cxl_flush` does: one call, a `clflush` for each line from the first to the last, a fence."""
        cpu.use_flush_instruction("clflush")


@contextmanager
def instruction_kept() -> Iterator[None]:
    """The contestants choose what they write lines back with; afterwards it is what it was."""
    before = cpu.flush_instruction()
    try:
        yield
    finally:
        if before is not None:
            cpu.use_flush_instruction(before)


def publish(size: int, quick: bool) -> Case:
    """What is published by hand has neither header nor sum: no reader could tell that it is torn."""
    them = Shared(size, quick)
    data, plain, slot = them.data, them.plain, them.slot

    def ours() -> None:
        for _ in them.repeats:
            slot.publish(data)

    def by_flush_range() -> None:
        for _ in them.repeats:
            plain[:] = data
            pmem.flush_range(plain)

    def by_clflush() -> None:
        for _ in them.repeats:
            plain[:] = data
            pmem.persist(plain)

    def streamed() -> None:
        for _ in them.repeats:
            iovec_rs.memcpy_nocache(plain, data)

    def published() -> bytearray:
        out = bytearray(size)
        slot.consume(out)
        return out

    def result() -> memoryview:
        return plain

    return Case(
        title=f"publish {size} B on shared memory",
        ours=Contestant("Slot.publish", ours, published, them.by_the_best),
        rivals=[
            Contestant("d[:] = s, flush_range", by_flush_range, result, them.by_the_best),
            Contestant("d[:] = s, clflush loop", by_clflush, result, them.by_clflush),
            Contestant("memcpy_nocache, no header, no sum", streamed, result, them.by_the_best),
        ],
        ops=len(them.repeats),
        op_bytes=size,
        scrub=lambda: scrub(plain),
        limits=them.limits("the least: stores, sums, fences", LeastSlot.publish),
    )


def consume(size: int, quick: bool) -> Case:
    """All drop the lines that this CPU has of the memory before they read it: another host may have written there."""
    them = Shared(size, quick)
    plain, slot = them.plain, them.slot
    slot.publish(them.data)
    plain[:] = them.data
    out = memoryview(huge(size))

    def ours() -> None:
        for _ in them.repeats:
            slot.consume(out)

    def by_flush_range() -> None:
        for _ in them.repeats:
            pmem.flush_range(plain)
            out[:] = plain

    def by_clflush() -> None:
        for _ in them.repeats:
            pmem.persist(plain)
            out[:] = plain

    def result() -> memoryview:
        return out

    return Case(
        title=f"consume {size} B from shared memory",
        ours=Contestant("Slot.consume", ours, result, them.by_the_best),
        rivals=[
            Contestant("flush_range, d[:] = s", by_flush_range, result, them.by_the_best),
            Contestant("clflush loop, d[:] = s", by_clflush, result, them.by_clflush),
        ],
        ops=len(them.repeats),
        op_bytes=size,
        scrub=lambda: scrub(out),
        limits=them.limits("the least: evict, copy, sums", LeastSlot.consume),
    )
