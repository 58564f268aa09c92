"""Other code over really broken memory under a guard. `bytes` stands for a library here, since it copies by itself."""

from __future__ import annotations

import os
import signal

from iovec_rs import PAGE_SIZE, FaultError, guard, memcpy_mcsafe

from guest import pmem
from guest.dax import LENGTH
from guest.harness import equal, test
from guest.memory import MEMORIES, Arena, fill_of, pattern, poisoned

BUS_MCEERR_AR = 4


def around(arena: Arena, page: int) -> slice:
    """The part that a test may read: the broken stretch and a page on either side."""
    return slice(arena.bad - PAGE_SIZE, arena.bad + page + PAGE_SIZE)


def still_bad(arena: Arena, lead: int = PAGE_SIZE) -> None:
    """Checks that a copy stops exactly at the first bad byte, so the page has not become zeroes silently."""
    out = bytearray(2 * lead)
    result = memcpy_mcsafe(out, arena.view[arena.bad - lead :][: 2 * lead])
    equal((result.copied, result.fault is not None), (lead, True), "copied after the block, a fault is told")


@test(kind=MEMORIES)
def poison_reads_as_zeroes_in_the_block_and_is_poison_after_it(kind: str) -> None:
    fill = fill_of(kind)
    arena = poisoned(kind, fill)
    part = around(arena, arena.extent)
    want = bytearray(fill[part])
    want[PAGE_SIZE : PAGE_SIZE + arena.extent] = bytes(arena.extent)
    with guard(arena.view, on_fault="record") as watch:
        equal(bytes(arena.view[part]) == want, True, "content in the block")
        equal(bytes(arena.view[part]) == want, True, "content, read again")
    equal(len(watch.faults), 1, "faults")
    fault = watch.faults[0]
    equal(
        (fault.cause, fault.side, fault.signo, fault.si_code),
        ("poison", "source", signal.SIGBUS, BUS_MCEERR_AR),
        "fault",
    )
    equal((fault.address - arena.address, fault.length, fault.lsb), (arena.bad, arena.extent, arena.lsb), "extent")
    equal(watch.lost, arena.extent, "lost")
    if kind == "hugetlb":
        equal(watch.not_restored, arena.extent, "no kernel keeps huge pages aside")
        return
    equal(watch.not_restored, 0, "bytes not restored")
    for good in (slice(arena.bad - PAGE_SIZE, arena.bad), slice(arena.bad + PAGE_SIZE, arena.bad + 2 * PAGE_SIZE)):
        equal(bytes(arena.view[good]) == fill[good], True, "neighbours after the block")
    still_bad(arena)


@test(kind=("anonymous", "tmpfs"))
def a_store_to_poison_is_lost_and_told(kind: str) -> None:
    arena = poisoned(kind, fill_of(kind))
    try:
        with guard(arena.view):
            arena.view[arena.bad + 77] = 7
            equal(arena.view[arena.bad + 77], 7, "read back in the block")
    except FaultError as error:
        equal((error.fault.side, error.fault.address - arena.address), ("destination", arena.bad), "fault")
    else:
        raise AssertionError("no error was raised")
    still_bad(arena)


@test(page=(0, 3, 7))
def a_bad_block_below_a_dax_file_costs_one_page(page: int) -> None:
    fill = pattern(LENGTH)
    with pmem.domain() as directory:
        fd, arena = pmem.spoiled_arena(directory, fill, bad_page=page)
        want = bytearray(fill)
        want[arena.bad : arena.bad + PAGE_SIZE] = bytes(PAGE_SIZE)
        with guard(arena.view, on_fault="record") as watch:
            equal(bytes(arena.view) == want, True, "content in the block")
        equal([(f.address - arena.address, f.length) for f in watch.faults], [(arena.bad, PAGE_SIZE)], "extents")
        equal(watch.faults[0].cause in ("gone", "poison"), True, "cause")
        equal((watch.lost, watch.not_restored), (PAGE_SIZE, 0), "lost, not restored")
        result = memcpy_mcsafe(bytearray(PAGE_SIZE), arena.view[arena.bad : arena.bad + PAGE_SIZE])
        equal(result.copied, 0, "copied of the page after the block")
        os.pwrite(fd, pattern(PAGE_SIZE, 2), arena.bad)
        want[arena.bad : arena.bad + PAGE_SIZE] = pattern(PAGE_SIZE, 2)
        with guard(arena.view):
            equal(bytes(arena.view) == want, True, "content once the page was written anew")
