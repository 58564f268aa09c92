"""The mcsafe copies never raise, are exact at every alignment, and never access the same broken page twice."""

from __future__ import annotations

import ctypes
import mmap
import os
from itertools import product
from typing import TYPE_CHECKING

import iovec_rs
from iovec_rs import (
    PAGE_SIZE,
    READ,
    FaultMap,
    IovIter,
    PipeRing,
    cpu,
    fault_handler,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
)

from guest import outcome
from guest.harness import equal, test
from guest.memory import HUGE, MEMORIES, KernelLog, fill_of, good, inject, pattern, poisoned
from guest.shapes import SHAPES, over

if TYPE_CHECKING:
    from collections.abc import Callable

    from iovec_rs import Fault, McResult, UserRange

    from guest.memory import Arena

NAMES = ("copy_to_iter_mcsafe", "copy_mc_to_iter")
FLAT: dict[str, Callable[[memoryview | UserRange, memoryview | UserRange], McResult]] = {
    "memcpy_mcsafe": memcpy_mcsafe,
    "memcpy_nocache": memcpy_nocache,
    "memcpy_flushcache": memcpy_flushcache,
}
LEADS = (0, 1, 7, 8, 9, 63, 64, 65, 127, 129, 511, 513, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE + 77)
SHIFTS = (0, 1, 7, 33, 63)
BEYOND = 600
_libc = ctypes.CDLL(None, use_errno=True)


@test(name=NAMES, kind=SHAPES, memory=MEMORIES)
def a_broken_source_comes_short_in_every_kind(name: str, kind: str, memory: str) -> None:
    fill = fill_of(memory)
    arena = poisoned(memory, fill)
    for lead in LEADS[::3]:
        out, start = good(4 * PAGE_SIZE), arena.bad - lead
        iterator = over(kind, out, READ, 50, lead + BEYOND)
        data = arena.view[start : arena.bad + BEYOND]
        result = outcome.of(iterator, lambda: getattr(iovec_rs, name)(data, iterator))  # noqa: B023 - called at once
        outcome.check(result, arena, "source", lead)
        outcome.check_bytes(out.view[50:], fill[start : arena.bad])
        equal((result.raised, iterator.count), (False, BEYOND), "raised, left")


@test(name=NAMES, kind=SHAPES, memory=MEMORIES)
def a_broken_destination_comes_short_in_every_kind(name: str, kind: str, memory: str) -> None:
    lead = LEADS[-1]
    arena, data, log = poisoned(memory), pattern(lead + BEYOND), KernelLog()
    start = arena.bad - lead
    iterator = over(kind, arena, READ, start, len(data))
    result = outcome.of(iterator, lambda: getattr(iovec_rs, name)(data, iterator))
    outcome.check(result, arena, "destination", lead)
    outcome.check_touches(log, arena, result)
    outcome.check_bytes(arena.view[start : arena.bad], data[:lead])
    outcome.check_bytes(arena.view[arena.bad + arena.extent :][:PAGE_SIZE], b"")
    equal((result.raised, iterator.count), (False, BEYOND), "raised, left")


@test(kind=SHAPES)
def a_retry_goes_on_at_the_broken_byte_and_behind_it(kind: str) -> None:
    fill = pattern(8 * PAGE_SIZE)
    arena, out, lead = poisoned("anonymous", fill), good(8 * PAGE_SIZE), 700
    length = lead + PAGE_SIZE + BEYOND
    iterator = over(kind, out, READ, 50, length)
    copy = iovec_rs.copy_to_iter_mcsafe
    equal(copy(arena.view[arena.bad - lead : arena.bad + PAGE_SIZE + BEYOND], iterator), lead, "first")
    equal(copy(arena.view[arena.bad : arena.bad + PAGE_SIZE + BEYOND], iterator), 0, "at the broken byte")
    equal(iterator.fault and iterator.fault.offset, 0, "offset")
    iterator.advance(PAGE_SIZE)
    equal(copy(arena.view[arena.bad + PAGE_SIZE :][:BEYOND], iterator), BEYOND, "behind")
    equal(iterator.fault, None, "fault")
    want = fill[arena.bad - lead : arena.bad] + b"\xa5" * PAGE_SIZE + fill[arena.bad + PAGE_SIZE :][:BEYOND]
    outcome.check_bytes(out.view[50:], want)


@test(memory=MEMORIES)
def a_pipe_holds_exactly_what_was_counted(memory: str) -> None:
    fill, lead = fill_of(memory), PAGE_SIZE + 300
    arena, ring = poisoned(memory, fill), PipeRing()
    data = arena.view[arena.bad - lead : arena.bad + BEYOND]
    iterator = IovIter.pipe(READ, ring, len(data))
    outcome.check(outcome.of(iterator, lambda: iovec_rs.copy_to_iter_mcsafe(data, iterator)), arena, "source", lead)
    equal(
        (iterator.count, ring.read() == fill[arena.bad - lead : arena.bad]), (BEYOND, True), "left, what the ring holds"
    )


@test(flavour=FLAT, memory=MEMORIES)
def flat_copies_are_exact_at_every_alignment_and_instruction_set(flavour: str, memory: str) -> None:
    fill = fill_of(memory)
    arena = poisoned(memory, fill)
    for isa in cpu.available():
        with cpu.use_isa(isa):
            for lead, shift in product(LEADS, SHIFTS):
                out = good(4 * PAGE_SIZE)
                target = out.view[shift : shift + lead + BEYOND]
                result = FLAT[flavour](target, arena.view[arena.bad - lead : arena.bad + BEYOND])
                try:
                    equal((result.copied, result.remaining), (lead, BEYOND), "copied, remaining")
                    outcome.check_fault(result.fault, arena, "source", lead)
                    outcome.check_bytes(out.view[shift:], fill[arena.bad - lead : arena.bad])
                    outcome.check_bytes(out.view[:shift], b"")
                except AssertionError as error:
                    raise AssertionError(f"{isa}, {lead} bytes before, destination at {shift}: {error}") from None


@test(flavour=FLAT, memory=MEMORIES)
def flat_copies_into_broken_memory_are_exact_too(flavour: str, memory: str) -> None:
    fill = pattern(4 * PAGE_SIZE)
    arena = poisoned(memory)
    for isa in cpu.available():
        with cpu.use_isa(isa):
            for lead, shift in product(LEADS, SHIFTS):
                arena.view[arena.bad - lead : arena.bad] = bytes(lead)
                source = memoryview(fill)[shift : shift + lead + BEYOND]
                result = FLAT[flavour](arena.view[arena.bad - lead : arena.bad + BEYOND], source)
                try:
                    equal((result.copied, result.remaining), (lead, BEYOND), "copied, remaining")
                    outcome.check_fault(result.fault, arena, "destination", lead)
                    equal(bytes(arena.view[arena.bad - lead : arena.bad]) == source[:lead], True, "the bytes before")
                except AssertionError as error:
                    raise AssertionError(f"{isa}, {lead} bytes before, source at {shift}: {error}") from None


@test(offset=(0, 1, PAGE_SIZE, HUGE // 2 + 12345, HUGE - 1))
def any_byte_of_a_broken_huge_page_is_broken(offset: int) -> None:
    arena, out = poisoned("hugetlb"), good(PAGE_SIZE)
    start = arena.bad + offset
    length = min(PAGE_SIZE, HUGE - offset)
    result = memcpy_mcsafe(out.view[:length], arena.view[start : start + length])
    equal((result.copied, result.remaining), (0, length), "copied, remaining")
    outcome.check_fault(result.fault, arena, "source", 0)


@test(flavour=FLAT, memory=MEMORIES)
def raw_addresses_work_as_buffers_do(flavour: str, memory: str) -> None:
    fill, lead = fill_of(memory), 321
    arena, out = poisoned(memory, fill), good(PAGE_SIZE)
    result = FLAT[flavour](out.range(3, lead + BEYOND), arena.range(arena.bad - lead, lead + BEYOND))
    equal((result.copied, result.remaining), (lead, BEYOND), "copied, remaining")
    equal(result.fault and result.fault.cause, "poison", "cause")
    outcome.check_bytes(out.view[3:], fill[arena.bad - lead : arena.bad])


@test(memory=MEMORIES)
def the_copies_without_a_signal_handler_find_the_same_byte(memory: str) -> None:
    fill, lead = fill_of(memory), PAGE_SIZE + 321
    arena, out, log = poisoned(memory, fill), good(4 * PAGE_SIZE), KernelLog()
    with fault_handler.mode("syscall"):
        result = memcpy_mcsafe(out.view[: lead + BEYOND], arena.view[arena.bad - lead : arena.bad + BEYOND])
    equal((result.copied, result.remaining), (lead, BEYOND), "copied, remaining")
    outcome.check_fault(result.fault, arena, "source", lead, origin="syscall")
    outcome.check_bytes(out.view, fill[arena.bad - lead : arena.bad])
    equal(log.touches(arena), [], "touches from user space")


def once_and_again(arena: Arena, known: FaultMap, lead: int, log: KernelLog) -> tuple[McResult, McResult]:
    """Makes the same copy twice with one map. The first adds the broken page to the map, so the second must not access
    it.
    """
    source = arena.view[arena.bad - lead : arena.bad + BEYOND]
    results = []
    for touches in (1, 0):
        out = good(4 * PAGE_SIZE)
        results.append(memcpy_mcsafe(out.view[: lead + BEYOND], source, fault_map=known))
        equal(len(log.touches(arena)), touches, "touches")
    return results[0], results[1]


@test(memory=MEMORIES)
def a_map_learns_the_broken_stretch_and_saves_the_second_touch(memory: str) -> None:
    arena, known, log = poisoned(memory), FaultMap(), KernelLog()
    first, second = once_and_again(arena, known, 456, log)
    outcome.check_fault(first.fault, arena, "source", 456)
    equal([(entry.start - arena.address, entry.length) for entry in known], [(arena.bad, arena.extent)], "the map")
    equal((second.copied, second.remaining), (456, BEYOND), "copied, remaining")
    told = fault_of(second)
    equal((told.cause, told.origin, told.side, told.offset), ("poison", "map", "source", 456), "fault")
    equal((told.address - arena.address, told.length), (arena.bad, arena.extent), "extent")


def fault_of(result: McResult) -> Fault:
    if result.fault is None:
        raise AssertionError("no fault is told")
    return result.fault


@test(kind=SHAPES)
def an_iterator_with_a_map_touches_a_broken_page_once(kind: str) -> None:
    fill, lead = pattern(8 * PAGE_SIZE), 777
    arena, known, log = poisoned("anonymous", fill), FaultMap(), KernelLog()
    for touches, origin in ((1, "signal"), (0, "map")):
        out = good(4 * PAGE_SIZE)
        iterator = over(kind, out, READ, 50, lead + BEYOND)
        data = arena.view[arena.bad - lead : arena.bad + BEYOND]
        equal(iovec_rs.copy_to_iter_mcsafe(data, iterator, fault_map=known), lead, "bytes copied")
        equal(iterator.fault and iterator.fault.origin, origin, "origin")
        outcome.check_bytes(out.view[50:], fill[arena.bad - lead : arena.bad])
        equal(len(log.touches(arena)), touches, "touches")


@test(flavour=FLAT)
def without_a_map_each_copy_touches_the_page_exactly_once(flavour: str) -> None:
    arena, log = poisoned("anonymous"), KernelLog()
    for isa in cpu.available():
        with cpu.use_isa(isa):
            out = good(4 * PAGE_SIZE)
            FLAT[flavour](out.view[: PAGE_SIZE + BEYOND], arena.view[arena.bad - PAGE_SIZE : arena.bad + BEYOND])
            equal(log.touches(arena), [0], f"{isa}: touches")


@test()
def a_page_that_was_replaced_is_copied_again_once_the_map_forgets_it() -> None:
    fd = os.memfd_create("hole")
    os.ftruncate(fd, 4 * PAGE_SIZE)
    mapping, known = mmap.mmap(fd, 4 * PAGE_SIZE), FaultMap()
    mapping[:] = bytes(4 * PAGE_SIZE)
    inject(mapping, PAGE_SIZE)
    view, out = memoryview(mapping), bytearray(4 * PAGE_SIZE)
    equal(memcpy_mcsafe(out, view, fault_map=known).copied, PAGE_SIZE, "while broken")
    punch_hole(fd, PAGE_SIZE, PAGE_SIZE)
    equal(os.pread(fd, PAGE_SIZE, PAGE_SIZE), bytes(PAGE_SIZE), "the file")
    equal(memcpy_mcsafe(out, view).copied, PAGE_SIZE, "what the mapping still holds")
    mapping.madvise(mmap.MADV_DONTNEED, PAGE_SIZE, PAGE_SIZE)
    equal(memcpy_mcsafe(out, view).copied, 4 * PAGE_SIZE, "once replaced")
    equal(memcpy_mcsafe(out, view, fault_map=known).copied, PAGE_SIZE, "with what the map still says")
    known.unpoison(view, PAGE_SIZE, PAGE_SIZE)
    equal(memcpy_mcsafe(out, view, fault_map=known).copied, 4 * PAGE_SIZE, "once forgotten")


def punch_hole(fd: int, offset: int, length: int) -> None:
    keep_size_and_punch_hole = 3
    equal(_libc.fallocate(fd, keep_size_and_punch_hole, ctypes.c_long(offset), ctypes.c_long(length)), 0, "fallocate")
