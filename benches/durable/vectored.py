"""Shuffled segments all over an arena, durable in one call or one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import READ, WRITE, copy_from_iter_flushcache, copy_to_iter_flushcache, memcpy_flushcache, pmem
from iovec_rs._bench.harness import Case, Contestant

from benches.arena import fill
from benches.bench_vectored import Scattered
from benches.durable.ground import FLUSHCACHE, GATHER, SCATTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from iovec_rs._bench.harness import Table
    from iovec_rs._bench.libpmem import Libpmem

    from benches.durable.ground import Ground

SIZES = (64, 512, 4096)
QUICK_SIZES = (64, 4096)
TOTAL = 64 << 20
QUICK_TOTAL = 64 << 10
MOST = 256 << 10  # segments: what goes one by one takes a microsecond each

EACH = f"{FLUSHCACHE} each"
LIBPMEM = "libpmem each, by ctypes"


class Each:
    """The rivals' way: segment by segment."""

    def __init__(
        self,
        views: Sequence[tuple[memoryview, memoryview]],
        addresses: Sequence[tuple[int, int]],
        size: int,
    ) -> None:
        self.views, self.addresses, self.size = views, addresses, size

    def flushcache(self) -> None:
        for d, s in self.views:
            memcpy_flushcache(d, s)

    def persist(self) -> None:
        for d, s in self.views:
            d[:] = s
            pmem.persist(d)

    def libpmem(self, library: Libpmem) -> None:
        persist, size = library.persist, self.size
        for d, s in self.addresses:
            persist(d, s, size)

    def libpmem_once(self, library: Libpmem) -> None:
        nodrain, size = library.nodrain, self.size
        for d, s in self.addresses:
            nodrain(d, s, size)
        library.drain()

    def contestants(self, ground: Ground, result: Callable[[], memoryview]) -> list[Contestant]:
        ways: list[tuple[str, Callable[[], None]]] = [
            (EACH, self.flushcache),
            ("d[:] = s, pmem.persist each", self.persist),
        ]
        library = ground.library
        if library is not None:
            ways += [
                (LIBPMEM, lambda: self.libpmem(library)),
                ("the same with one drain at the end", lambda: self.libpmem_once(library)),
            ]
        return [Contestant(name, run, result, ground.sweep) for name, run in ways]


def _gather(ground: Ground, size: int, total: int) -> Case:
    them = Scattered(size, total)
    fill(them.arena_bytes, size)
    i, _ = them.kvec(WRITE)
    views = list(zip(them.flat_views, them.views, strict=True))
    addresses = list(zip(them.flat_addresses(), them.addresses(), strict=True))

    def result() -> memoryview:
        return them.flat_view

    return Case(
        title=f"gather of {total >> 10} KiB in segments of {size} B",
        ours=Contestant(GATHER, lambda: copy_from_iter_flushcache(them.flat_view, i), result, ground.rewinding([i])),
        rivals=Each(views, addresses, size).contestants(ground, result),
        ops=them.count,
        op_bytes=size,
        rounds=_rounds(ground, size),
        unit="ns/seg",
        scrub=lambda: them.flat_bytes.fill(0),
    )


def _scatter(ground: Ground, size: int, total: int) -> Case:
    them = Scattered(size, total)
    fill(them.flat_bytes, size)
    i, _ = them.kvec(READ)
    views = list(zip(them.views, them.flat_views, strict=True))
    addresses = list(zip(them.addresses(), them.flat_addresses(), strict=True))

    def result() -> memoryview:
        return them.arena_view  # all of it: a byte written between the segments would show

    return Case(
        title=f"scatter of {total >> 10} KiB in segments of {size} B",
        ours=Contestant(SCATTER, lambda: copy_to_iter_flushcache(them.flat_view, i), result, ground.rewinding([i])),
        rivals=Each(views, addresses, size).contestants(ground, result),
        ops=them.count,
        op_bytes=size,
        rounds=_rounds(ground, size),
        unit="ns/seg",
        scrub=lambda: them.arena_bytes.fill(0),
    )


def _rounds(ground: Ground, size: int) -> int:
    return 3 if ground.quick else 11 if size < 4096 else 21


def run(ground: Ground) -> Iterator[Table]:
    for size in QUICK_SIZES if ground.quick else SIZES:
        total = QUICK_TOTAL if ground.quick else min(TOTAL, MOST * size)
        for build in (_gather, _scatter):
            yield ground.measure(build(ground, size, total))
