"""Broken memory at raw addresses: copies by system call and by the CPU stop at the same byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, copy_from_iter, copy_to_iter, fault_handler, import_iovec

from guest import outcome
from guest.harness import equal, test
from guest.memory import MEMORIES, KernelLog, fill_of, good, pattern, poisoned
from guest.shapes import RANGES, over

if TYPE_CHECKING:
    from typing import Literal

    Mode = Literal["auto", "signal", "syscall"]

LEADS = (0, 1, 100, PAGE_SIZE + 63, 2 * PAGE_SIZE)
BEYOND = 700
MODES: tuple[Mode, ...] = ("syscall", "signal")  # also the origin of the fault in each mode


@test(mode=MODES, kind=sorted(RANGES), memory=MEMORIES)
def reading_stops_at_the_first_broken_byte(mode: Mode, kind: str, memory: str) -> None:
    fill = fill_of(memory)
    arena = poisoned(memory, fill)
    with fault_handler.mode(mode):
        for lead in LEADS:
            start, out = arena.bad - lead, good(lead + BEYOND)
            iterator = over(kind, arena, WRITE, start, lead + BEYOND)
            result = outcome.of(iterator, lambda: copy_from_iter(out.view, iterator))  # noqa: B023 - called at once
            outcome.check(result, arena, "source", lead, origin=mode)
            outcome.check_bytes(out.view, fill[start : arena.bad])
            equal((result.raised, iterator.count), (False, BEYOND), "raised, left")


@test(mode=MODES, kind=sorted(RANGES), memory=MEMORIES)
def writing_stops_at_the_first_broken_byte(mode: Mode, kind: str, memory: str) -> None:
    fill = pattern(2 * PAGE_SIZE + BEYOND)
    with fault_handler.mode(mode):
        for lead in LEADS[1::2]:
            arena = poisoned(memory)
            start = arena.bad - lead
            iterator = over(kind, arena, READ, start, lead + BEYOND)
            data = fill[: lead + BEYOND]
            result = outcome.of(iterator, lambda: copy_to_iter(data, iterator))  # noqa: B023 - called at once
            outcome.check(result, arena, "destination", lead, origin=mode)
            outcome.check_bytes(arena.view[start : arena.bad], fill[:lead])
            outcome.check_bytes(arena.view[arena.bad + arena.extent :][:PAGE_SIZE], b"")
            equal((result.raised, iterator.count), (False, BEYOND), "raised, left")


@test(memory=MEMORIES)
def a_broken_flat_range_stops_a_copy_of_either_direction(memory: str) -> None:
    fill = fill_of(memory)
    arena, lead = poisoned(memory, fill), 333
    broken = arena.range(arena.bad - lead, lead + BEYOND)
    out = good(lead + BEYOND)
    iterator = IovIter.ubuf(READ, out.view)
    result = outcome.of(iterator, lambda: copy_to_iter(broken, iterator))
    outcome.check(result, arena, "source", lead, origin=outcome.origin("ubuf of a range", result))
    outcome.check_bytes(out.view, fill[arena.bad - lead : arena.bad])
    data = pattern(lead + BEYOND, 2)
    iterator = IovIter.ubuf(WRITE, data)
    result = outcome.of(iterator, lambda: copy_from_iter(broken, iterator))
    outcome.check(result, arena, "destination", lead, origin=outcome.origin("ubuf of a range", result))
    equal(bytes(arena.view[arena.bad - lead : arena.bad]) == data[:lead], True, "bytes")


@test(memory=MEMORIES)
def the_system_calls_never_touch_the_broken_page_from_user_space(memory: str) -> None:
    arena, log = poisoned(memory), KernelLog()
    with fault_handler.mode("syscall"):
        iterator = IovIter.ubuf(WRITE, arena.range(arena.bad - 64, 128))
        equal(copy_from_iter(bytearray(128), iterator), 64, "copied")
        equal(fault_handler.status().installed, False, "installed")
    equal(log.touches(arena), [], "touches")


@test(memory=MEMORIES)
def faulting_in_counts_what_cannot_be_had(memory: str) -> None:
    arena = poisoned(memory)
    for direction, ask in ((WRITE, IovIter.fault_in_readable), (READ, IovIter.fault_in_writeable)):
        iterator = IovIter.ubuf(direction, arena.range(arena.bad - 100, 100 + BEYOND))
        equal(ask(iterator, 100 + BEYOND), BEYOND, "bytes not faulted in")


@test(memory=MEMORIES)
def a_vector_in_broken_memory_is_refused(memory: str) -> None:
    arena = poisoned(memory)
    arena.view[arena.bad - 16 : arena.bad] = bytes(16)  # an empty range, so that only the second range is bad
    for uvector in (arena.address + arena.bad, arena.address + arena.bad - 16, arena.view[arena.bad : arena.bad + 32]):
        try:
            import_iovec(WRITE, uvector, 2)
        except OSError as error:
            equal(type(error) is OSError and error.errno, 14, "errno")
        else:
            raise AssertionError("a vector was read out of a broken page")
