"""Broken memory behind exported buffers: user kinds return a short count, trusted kinds raise, and both copy the same
bytes.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from itertools import product
from typing import TYPE_CHECKING

import iovec_rs
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    IovIter,
    PipeRing,
    copy_from_iter,
    copy_from_iter_full,
    copy_iter,
    copy_to_iter,
    copy_to_iter_full,
)

from guest import outcome
from guest.harness import equal, test
from guest.memory import MEMORIES, Arena, KernelLog, address_of, fill_of, good, inject, pattern, poisoned
from guest.shapes import SHAPES, TRUSTED, over

if TYPE_CHECKING:
    from collections.abc import Callable

LEADS = (0, 5, PAGE_SIZE + 200)
BEYOND = 900

FROM: dict[str, Callable[[memoryview, IovIter], int]] = {
    "copy_from_iter": copy_from_iter,
    "copy_from_iter_nocache": iovec_rs.copy_from_iter_nocache,
    "copy_from_iter_flushcache": iovec_rs.copy_from_iter_flushcache,
    "copy_page_from_iter": lambda to, i: iovec_rs.copy_page_from_iter(to, 0, len(to), i),
    "copy_page_from_iter_atomic": lambda to, i: iovec_rs.copy_page_from_iter_atomic(to, 0, len(to), i),
}
TO: dict[str, Callable[[memoryview, IovIter], int]] = {
    "copy_to_iter": copy_to_iter,
    "copy_to_iter_flushcache": iovec_rs.copy_to_iter_flushcache,
    "hash_and_copy_to_iter": lambda data, i: iovec_rs.hash_and_copy_to_iter(data, i, hashlib.sha256()),
    "copy_page_to_iter": lambda data, i: iovec_rs.copy_page_to_iter(data, 0, len(data), i),
    "zero": lambda data, i: i.zero(len(data)),
}


@test(flavour=FROM, kind=SHAPES, memory=MEMORIES)
def a_broken_source_ends_the_copy_at_its_first_byte(flavour: str, kind: str, memory: str) -> None:
    fill = fill_of(memory)
    arena, log = poisoned(memory, fill), KernelLog()
    for lead in LEADS:
        start, out = arena.bad - lead, good(lead + BEYOND)
        iterator = over(kind, arena, WRITE, start, lead + BEYOND)
        result = outcome.of(iterator, lambda: FROM[flavour](out.view, iterator))  # noqa: B023 - called at once
        outcome.check(result, arena, "source", lead, origin=outcome.origin(kind, result))
        outcome.check_bytes(out.view, fill[start : arena.bad])
        equal(result.raised, kind in TRUSTED, "raised")
        outcome.check_touches(log, arena, result)


@test(flavour=TO, kind=SHAPES, memory=MEMORIES)
def a_broken_destination_ends_the_copy_at_its_first_byte(flavour: str, kind: str, memory: str) -> None:
    lead = LEADS[-1]
    arena, log = poisoned(memory), KernelLog()
    data = memoryview(bytes(lead + BEYOND) if flavour == "zero" else pattern(lead + BEYOND))
    start = arena.bad - lead
    iterator = over(kind, arena, READ, start, len(data))
    result = outcome.of(iterator, lambda: TO[flavour](data, iterator))
    outcome.check(result, arena, "destination", lead, origin=outcome.origin(kind, result))
    outcome.check_touches(log, arena, result)
    outcome.check_bytes(arena.view[start - 64 : start], b"")
    equal(bytes(arena.view[start : arena.bad]) == data[:lead], True, "the bytes before")
    outcome.check_bytes(arena.view[arena.bad + arena.extent :][:PAGE_SIZE], b"")
    equal(result.raised, kind in TRUSTED, "raised")


@test(flavour=sorted(TO.keys() - {"zero"}), kind=SHAPES, memory=MEMORIES)
def a_broken_flat_source_is_survived(flavour: str, kind: str, memory: str) -> None:
    fill, lead = fill_of(memory), 1000
    arena, out, log = poisoned(memory, fill), good(4 * PAGE_SIZE), KernelLog()
    data = arena.view[arena.bad - lead : arena.bad + BEYOND]
    iterator = over(kind, out, READ, 100, len(data))
    result = outcome.of(iterator, lambda: TO[flavour](data, iterator))
    outcome.check(result, arena, "source", lead, origin=outcome.origin(kind, result))
    outcome.check_bytes(out.view[100:], fill[arena.bad - lead : arena.bad])
    outcome.check_touches(log, arena, result)


@test(flavour=FROM, kind=SHAPES, memory=MEMORIES)
def a_broken_flat_destination_is_survived(flavour: str, kind: str, memory: str) -> None:
    fill, lead = pattern(8 * PAGE_SIZE), 1000
    arena, source, log = poisoned(memory), good(8 * PAGE_SIZE, fill), KernelLog()
    target = arena.view[arena.bad - lead : arena.bad + BEYOND]
    iterator = over(kind, source, WRITE, 100, len(target))
    result = outcome.of(iterator, lambda: FROM[flavour](target, iterator))
    outcome.check(result, arena, "destination", lead, origin=outcome.origin(kind, result))
    equal(bytes(target[:lead]) == fill[100 : 100 + lead], True, "the bytes before")
    outcome.check_touches(log, arena, result)


@test(memory=MEMORIES)
def a_hash_covers_what_was_copied(memory: str) -> None:
    fill, lead = fill_of(memory), LEADS[-1]
    arena, out, hashed = poisoned(memory, fill), good(4 * PAGE_SIZE), hashlib.sha256()
    data = arena.view[arena.bad - lead : arena.bad + BEYOND]
    equal(iovec_rs.hash_and_copy_to_iter(data, over("iovec", out, READ, 0, len(data)), hashed), lead, "bytes copied")
    equal(hashed.hexdigest(), hashlib.sha256(fill[arena.bad - lead : arena.bad]).hexdigest(), "hash")


@test(memory=MEMORIES)
def what_is_discarded_is_never_touched(memory: str) -> None:
    arena, log = poisoned(memory), KernelLog()
    data = arena.view[arena.bad - 100 : arena.bad + BEYOND]
    iterator = IovIter.discard(READ, len(data))
    equal((copy_to_iter(data, iterator), iterator.count, iterator.fault), (len(data), 0, None), "copied, left, fault")
    equal(log.touches(arena), [], "touches")


def whole_chunks(iterator: IovIter, arena: Arena) -> int:
    """The bytes before the chunk that has the broken byte. A chunk that fails is neither counted nor summed."""
    total = 0
    for chunk in iterator.ranges():
        before = min(chunk.length, arena.address + arena.bad - chunk.address)
        if before < chunk.length:
            # The chunks of a bvec are its pages, and the broken stretch begins at a page.
            return total + (before if iterator.kind == "bvec" else 0)
        total += chunk.length
    return total


@test(kind=SHAPES, memory=MEMORIES)
def a_sum_covers_the_chunks_before_the_broken_one(kind: str, memory: str) -> None:
    fill, lead = fill_of(memory), PAGE_SIZE + 200
    arena, log = poisoned(memory, fill), KernelLog()
    start, out = arena.bad - lead, good(lead + BEYOND)
    iterator = over(kind, arena, WRITE, start, lead + BEYOND)
    copied = whole_chunks(iterator, arena)
    sums: list[int] = []
    result = outcome.of(iterator, lambda: keep(iovec_rs.csum_and_copy_from_iter(out.view, iterator), sums))
    outcome.check(result, arena, "source", copied, origin=outcome.origin(kind, result))
    outcome.check_touches(log, arena, result)
    equal(bytes(out.view[:copied]) == fill[start : start + copied], True, "the bytes")
    equal(result.raised, kind in TRUSTED, "raised")
    if not result.raised:
        sound = IovIter.ubuf(WRITE, fill[start : start + copied])
        equal(sums, [iovec_rs.csum_and_copy_from_iter(bytearray(copied), sound)[1]], "sum")


@test(kind=SHAPES, memory=MEMORIES)
def a_sum_into_broken_memory_covers_the_chunks_before_it(kind: str, memory: str) -> None:
    lead = PAGE_SIZE + 200
    arena, data, log = poisoned(memory), pattern(lead + BEYOND), KernelLog()
    iterator = over(kind, arena, READ, arena.bad - lead, len(data))
    copied = whole_chunks(iterator, arena)
    sums: list[int] = []
    result = outcome.of(iterator, lambda: keep(iovec_rs.csum_and_copy_to_iter(data, iterator), sums))
    outcome.check(result, arena, "destination", copied, origin=outcome.origin(kind, result))
    outcome.check_touches(log, arena, result)
    equal(result.raised, kind in TRUSTED, "raised")
    if not result.raised:
        sound = IovIter.ubuf(WRITE, data[:copied])
        equal(sums, [iovec_rs.csum_and_copy_from_iter(bytearray(copied), sound)[1]], "sum")


def keep(result: tuple[int, int], sums: list[int]) -> int:
    sums.append(result[1])
    return result[0]


FULL: dict[str, Callable[[bytearray, IovIter], bool]] = {
    "copy_from_iter_full": copy_from_iter_full,
    "csum_and_copy_from_iter_full": lambda to, i: iovec_rs.csum_and_copy_from_iter_full(to, i)[0],
    "copy_from_iter_full_nocache": iovec_rs.copy_from_iter_full_nocache,
    "copy_to_iter_full": copy_to_iter_full,
}


@test(flavour=FULL, kind=SHAPES, memory=MEMORIES)
def all_or_nothing_leaves_the_iterator_where_it_was(flavour: str, kind: str, memory: str) -> None:
    arena, flat = poisoned(memory), bytearray(1000)
    iterator = over(kind, arena, READ if flavour == "copy_to_iter_full" else WRITE, arena.bad - 500, 1000)
    before = (iterator.count, iterator.iov_offset, iterator.nr_segs)
    result = outcome.of(iterator, lambda: int(FULL[flavour](flat, iterator)))
    equal((result.copied, result.raised), (0, kind in TRUSTED), "complete, raised")
    equal(result.fault and result.fault.cause, "poison", "cause")
    equal((iterator.count, iterator.iov_offset, iterator.nr_segs), before, "position")


@test(broken=("source", "destination"), memory=MEMORIES)
def copies_between_iterators_of_any_two_kinds_stop_there(broken: str, memory: str) -> None:
    fill, lead, length = pattern(8 * PAGE_SIZE), 1500, 1500 + BEYOND
    for first, second in product(SHAPES, SHAPES):
        if memory in ("thp", "hugetlb") and first != second:
            continue  # each round uses up a huge page
        arena = poisoned(memory, fill if broken == "source" and memory != "hugetlb" else None)
        if broken == "source":
            whole = good(4 * PAGE_SIZE)
            source, target = over(first, arena, WRITE, arena.bad - lead, length), over(second, whole, READ, 100, length)
        else:
            whole = good(8 * PAGE_SIZE, fill)
            source, target = over(first, whole, WRITE, 100, length), over(second, arena, READ, arena.bad - lead, length)
        result = outcome.of(target, lambda: copy_iter(target, source))  # noqa: B023 - called at once
        equal((result.copied, first, second), (lead, first, second), "bytes copied")
        if result.fault is None:
            raise AssertionError(f"no fault is told from {first} to {second}")
        equal(
            (result.fault.cause, result.fault.side, result.fault.offset),
            ("poison", broken, lead),
            f"{first} to {second}",
        )
        bad_kind = first if broken == "source" else second
        equal(result.raised, bad_kind in TRUSTED, f"raised from {first} to {second}")


@test(kind=SHAPES)
def another_mapping_of_the_memory_is_broken_at_the_same_byte(kind: str) -> None:
    fd = os.memfd_create("twice")
    os.ftruncate(fd, 8 * PAGE_SIZE)
    first, second = mmap.mmap(fd, 8 * PAGE_SIZE), memoryview(mmap.mmap(fd, 8 * PAGE_SIZE))
    second[:] = pattern(8 * PAGE_SIZE)
    inject(first, 5 * PAGE_SIZE)
    arena, out = Arena(second, address_of(second), 5 * PAGE_SIZE, PAGE_SIZE, 12), good(LEADS[-1] + BEYOND)
    iterator = over(kind, arena, WRITE, arena.bad - LEADS[-1], LEADS[-1] + BEYOND)
    result = outcome.of(iterator, lambda: copy_from_iter(out.view, iterator))
    outcome.check(result, arena, "source", LEADS[-1], origin=outcome.origin(kind, result))


@test(flavour=("copy_to_iter", "hash_and_copy_to_iter"), memory=MEMORIES)
def a_pipe_takes_what_came_before_the_broken_page(flavour: str, memory: str) -> None:
    fill, lead = fill_of(memory), PAGE_SIZE + 300
    arena, ring, log = poisoned(memory, fill), PipeRing(), KernelLog()
    data = arena.view[arena.bad - lead : arena.bad + BEYOND]
    iterator = IovIter.pipe(READ, ring, len(data))
    result = outcome.of(iterator, lambda: TO[flavour](data, iterator))
    outcome.check(result, arena, "source", lead)
    outcome.check_touches(log, arena, result)
    equal((result.raised, iterator.count), (True, BEYOND), "raised, left")
    equal(ring.read() == fill[arena.bad - lead : arena.bad], True, "what the ring holds")


@test(memory=MEMORIES)
def a_broken_page_in_a_ring_is_not_read_to_death(memory: str) -> None:
    arena, ring = poisoned(memory), PipeRing()
    page = arena.view[arena.bad : arena.bad + PAGE_SIZE]
    equal(iovec_rs.copy_page_to_iter(page, 0, 100, IovIter.pipe(READ, ring, 100)), 100, "referred to")
    try:
        ring.read()
    except OSError:
        return
    raise AssertionError("a broken page was read")


@test(memory=MEMORIES)
def a_ring_is_not_written_to_death_from_broken_memory(memory: str) -> None:
    arena, ring = poisoned(memory), PipeRing()
    try:
        written = ring.write(arena.view[arena.bad - 100 : arena.bad + 100])
    except OSError:
        return
    equal(written, 100, "bytes written")
