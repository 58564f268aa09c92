"""Bugs that the kernel's iov_iter once had with memory missing in the middle of a copy, and with checksums."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    READ,
    WRITE,
    Direction,
    FaultError,
    IovIter,
    IterKind,
    PageSpan,
    PipeRing,
    XArray,
    copy_from_iter,
    copy_page_from_iter_atomic,
    copy_page_to_iter,
    copy_to_iter,
    copy_to_iter_mcsafe,
    csum_and_copy_from_iter,
    csum_and_copy_from_iter_full,
    csum_and_copy_to_iter,
)
from support.arena import PAGE_SIZE, Arena, Page
from support.checksum import internet_checksum
from support.damage import Damage
from support.damaged_kinds import DATA, KINDS, PAGES, SKIP, TOTAL, TRUSTED, build
from support.every_kind import snapshot
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable

UNREADABLE = (Page.PROTECTED, Page.UNMAPPED, Page.GONE)
TRUSTED_MEMORY = [kind for kind in KINDS if kind in TRUSTED]
PATTERN = bytes((index * 13 + index // 241) % 256 for index in range(3 * PAGE_SIZE))


@pytest.mark.parametrize("kind", KINDS)
def test_bug_02_a_careful_copy_of_poison_forgot_to_advance(kind: IterKind) -> None:
    """The caller continues behind the bytes copied. When nothing more can be copied, it replaces the poisoned page."""
    with Arena.good(PAGES, DATA) as arena, Arena.good(PAGES) as target:
        arena.damage(1, Damage.POISON)
        i, steps = build(kind, READ, target.buffer), [0]
        while i.count:
            steps.append(copy_to_iter_mcsafe(arena.buffer[sum(steps) : TOTAL], i))
            assert i.count == TOTAL - sum(steps)
            if steps[-1] == 0:
                arena.mend(1)
        assert steps == [0, PAGE_SIZE, 0, TOTAL - PAGE_SIZE]
        assert target.image() == bytes(SKIP) + DATA[:TOTAL]


@pytest.mark.parametrize("poison", [0, 1, 2])
def test_bug_03_a_careful_copy_left_surplus_slots_in_the_pipe(poison: int) -> None:
    with Arena.good(3, PATTERN) as arena:
        arena.damage(poison, Damage.POISON)
        ring = PipeRing(8)
        i = IovIter.pipe(READ, ring, 3 * PAGE_SIZE)
        assert copy_to_iter_mcsafe(arena.buffer, i) == poison * PAGE_SIZE
        i.advance(0)
        assert (ring.used, i.count) == (poison, (3 - poison) * PAGE_SIZE)
        assert ring.read() == PATTERN[: poison * PAGE_SIZE]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bad", [*UNREADABLE, Page.READ_ONLY])
@pytest.mark.parametrize("through_page", [False, True])
def test_bug_07_a_retried_copy_overran_the_vector(bad: Page, through_page: bool) -> None:
    """The fault is in the middle of the second segment; a retry goes on from the returned position."""
    data = bytes(range(1, 251)) + bytes(range(1, 101))
    with Arena([Page.GOOD, bad, Page.GOOD]) as arena:
        segments = [arena.range(0, 100), arena.range(PAGE_SIZE - 100, 200), arena.range(2 * PAGE_SIZE, 50)]
        iterator = IovIter.iovec(READ, segments)

        def copy(done: int) -> int:
            if through_page:
                return copy_page_to_iter(data, done, len(data) - done, iterator)
            return copy_to_iter(memoryview(data)[done:], iterator)

        assert copy(0) == 200
        assert (iterator.count, iterator.nr_segs, iterator.iov_offset) == (150, 2, 100)
        assert copy(200) == 0
        assert iterator.count == 150
        arena.repair(1)
        assert copy(200) == 150
        assert (iterator.count, copy(350)) == (0, 0)
        expected = bytearray(3 * PAGE_SIZE)
        for offset, part in ((0, data[:100]), (PAGE_SIZE - 100, data[100:300]), (2 * PAGE_SIZE, data[300:])):
            expected[offset : offset + len(part)] = part
        assert arena.image() == expected


def write_accepting_short_copies(iterator: IovIter, chunk: int) -> bytes:
    """A file system's buffered write: it faults in the source, copies as much as it can, commits that, and continues
    behind it.
    """
    page, written = bytearray(chunk), b""
    for _ in range(20):
        want = min(chunk, iterator.count)
        if want == 0 or iterator.fault_in_readable(want) == want:
            return written
        copied = copy_page_from_iter_atomic(page, 0, want, iterator)
        written += page[:copied]
    raise AssertionError("the write does not end")


def write_refusing_short_copies(iterator: IovIter, chunk: int) -> bytes:
    """A buffered write that cannot commit a short copy: it takes the copy back and retries with exactly the bytes that
    were available.
    """
    page, written = bytearray(chunk), b""
    want = chunk
    for _ in range(20):
        want = min(want, iterator.count)
        if want == 0 or iterator.fault_in_readable(want) == want:
            return written
        copied = copy_page_from_iter_atomic(page, 0, want, iterator)
        if copied < want:
            iterator.revert(copied)
            want = copied or min(chunk, want // 2)
            continue
        written += page[:copied]
        want = chunk
    raise AssertionError("the write does not end")


@pytest.mark.parametrize("write", [write_accepting_short_copies, write_refusing_short_copies])
@pytest.mark.parametrize("bad", UNREADABLE)
@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("chunk", [64, 100, 256, PAGE_SIZE])
def test_bug_08_a_buffered_write_from_a_bad_segment_never_ended(
    write: Callable[[IovIter, int], bytes], bad: Page, position: int, chunk: int
) -> None:
    """One of four segments of 64 bytes stays bad: those before it are written, and then the write ends."""
    with Arena([Page.GOOD, bad], PATTERN[:PAGE_SIZE]) as arena:
        segments = [arena.range(PAGE_SIZE if index == position else 100 * index, 64) for index in range(4)]
        iterator = IovIter.iovec(WRITE, segments)
        assert write(iterator, chunk) == b"".join(arena.read(100 * index, 64) for index in range(position))
        assert iterator.count == 64 * (4 - position)


@pytest.mark.parametrize("write", [write_accepting_short_copies, write_refusing_short_copies])
@pytest.mark.parametrize("bad", UNREADABLE)
def test_bug_08_a_buffered_write_up_to_a_bad_page_never_ended(
    write: Callable[[IovIter, int], bytes], bad: Page
) -> None:
    with Arena([Page.GOOD, bad], PATTERN[:PAGE_SIZE]) as arena:
        iterator = IovIter.ubuf(WRITE, arena.range(PAGE_SIZE - 77, 200))
        assert write(iterator, 128) == arena.read(PAGE_SIZE - 77, 77)
        assert iterator.count == 123


def test_bug_09_a_dump_of_memory_that_gives_nothing_never_ended() -> None:
    """For trusted memory, faulting in reports that nothing is missing. So the caller must be able to stop when a copy
    returns 0.
    """
    iterator = IovIter.xarray(WRITE, XArray({0: PATTERN[:PAGE_SIZE]}), 0, 3 * PAGE_SIZE)
    page = bytearray(2 * PAGE_SIZE)
    dumped: list[int] = []
    while iterator.count and (not dumped or dumped[-1]):
        assert iterator.fault_in_readable(iterator.count) == 0
        dumped.append(copy_page_from_iter_atomic(page, 0, 2 * PAGE_SIZE, iterator))
        assert len(dumped) <= 2
    assert dumped == [PAGE_SIZE, 0]
    assert page[:PAGE_SIZE] == PATTERN[:PAGE_SIZE]
    assert (iterator.count, iterator.fault) == (2 * PAGE_SIZE, None)


@pytest.mark.parametrize("kind", TRUSTED_MEMORY)
def test_bug_09_a_dump_of_poisoned_memory_never_ended(kind: IterKind) -> None:
    """Here every copy raises and moves nothing, so a writer cannot overlook that it gets no data."""
    with Arena.good(PAGES, DATA) as arena:
        arena.damage(1, Damage.POISON)
        iterator, page = build(kind, WRITE, arena.buffer), bytearray(TOTAL)
        for copied in (PAGE_SIZE - SKIP, 0, 0):
            assert iterator.fault_in_readable(iterator.count) == 0
            with pytest.raises(FaultError) as caught:
                copy_page_from_iter_atomic(page, 0, TOTAL, iterator)
            assert caught.value.copied == copied
            assert iterator.count == TOTAL - (PAGE_SIZE - SKIP)
        assert page[: PAGE_SIZE - SKIP] == DATA[SKIP:PAGE_SIZE]


@pytest.mark.parametrize("bad", UNREADABLE)
@pytest.mark.parametrize("position", range(3))
def test_bug_10_only_the_first_segment_was_faulted_in(bad: Page, position: int) -> None:
    """The missing bytes are all those from the first bad segment on, and those requested beyond the count."""
    with Arena([Page.GOOD, bad]) as arena:
        segments = [arena.range(PAGE_SIZE if index == position else 100 * index, 64) for index in range(3)]
        for direction in (READ, WRITE):
            iterator = IovIter.iovec(direction, segments)
            there = snapshot(iterator)
            assert iterator.fault_in_readable(192) == 192 - 64 * position
            assert iterator.fault_in_writeable(192) == 192 - 64 * position
            assert iterator.fault_in_readable(64 * position) == 0
            assert iterator.fault_in_readable(500) == 500 - 64 * position
            assert snapshot(iterator) == there
    with Arena([Page.GOOD, Page.READ_ONLY]) as arena:
        iterator = IovIter.iovec(READ, [arena.range(0, 64), arena.range(PAGE_SIZE, 64)])
        assert (iterator.fault_in_readable(128), iterator.fault_in_writeable(128)) == (0, 64)


@pytest.mark.parametrize("bad", UNREADABLE)
@pytest.mark.parametrize("get", [IovIter.get_pages, IovIter.extract_pages])
@pytest.mark.parametrize("direction", [READ, WRITE])
def test_bug_15_no_page_at_all_became_a_negative_offset(
    direction: Direction, get: Callable[[IovIter, int, int], PageSpan], bad: Page
) -> None:
    with Arena([Page.GOOD, bad]) as arena:
        wild = arena.range(PAGE_SIZE + 5, 100)
        for iterator in (IovIter.iovec(direction, [wild, wild]), IovIter.ubuf(direction, wild)):
            there = snapshot(iterator)
            with os_error(errno.EFAULT):
                get(iterator, 100, 4)
            assert snapshot(iterator) == there
        half = IovIter.ubuf(direction, arena.range(PAGE_SIZE - 5, 100))
        assert get(half, 100, 4) == ((arena.address,), PAGE_SIZE - 5, 5)
        assert half.count == 95


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("first", [0, 1, 2, 3, 15, 63, 64, 500, 1000])
def test_bug_20_a_checksum_in_two_calls_was_wrong_when_the_first_ended_at_an_odd_byte(first: int) -> None:
    """The destination ends a segment at that byte, too, among other odd offsets."""
    data = PATTERN[:1001]
    lengths = [first, 1, 0, 333, 1001 - 334 - first] if first < 600 else [first, 1001 - first]
    for make in (IovIter.iovec, IovIter.kvec):
        buffers = [bytearray(length) for length in lengths]
        iterator = make(READ, buffers)
        assert csum_and_copy_to_iter(data, iterator) == (1001, internet_checksum(data))
        assert b"".join(buffers) == data
        assert csum_and_copy_from_iter(bytearray(1001), make(WRITE, buffers)) == (1001, internet_checksum(data))


@pytest.mark.usefixtures("isa")
def test_bug_20_every_split_of_a_checksum_gives_the_same_sum() -> None:
    data = PATTERN[:1001]
    whole = internet_checksum(data)
    buffers = [bytearray(7), bytearray(0), bytearray(993), bytearray(1)]
    iterator = IovIter.kvec(READ, buffers)
    for first in range(1002):
        copied, part = csum_and_copy_to_iter(data, iterator, first)
        assert (copied, part) == (first, internet_checksum(data[:first]))
        assert csum_and_copy_to_iter(memoryview(data)[first:], iterator, csum=part, offset=first) == (
            1001 - first,
            whole,
        )
        iterator.revert(1001)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bad", UNREADABLE)
def test_bug_34_a_chunk_with_a_fault_in_it_was_summed_although_it_did_not_count(bad: Page) -> None:
    """A user chunk that faults does not count at all; the sum covers only the chunks before it."""
    with Arena([Page.GOOD, bad], PATTERN[:PAGE_SIZE]) as arena:
        segments = [arena.range(1, 101), arena.range(PAGE_SIZE - 60, 200), arena.range(1000, 30)]
        summed = internet_checksum(arena.read(1, 101))
        iterator = IovIter.iovec(WRITE, segments)
        collected = bytearray(b"\xee" * 400)
        assert csum_and_copy_from_iter(collected, iterator, 331) == (101, summed)
        assert collected[:101] == arena.read(1, 101)
        assert collected[301:] == b"\xee" * 99
        assert iterator.count == 230
        assert copy_from_iter(collected, iterator) == 60
        whole = IovIter.iovec(WRITE, segments)
        assert csum_and_copy_from_iter_full(collected, whole, 331) == (False, summed)
        assert whole.count == 331
        destination = IovIter.iovec(READ, segments)
        data = PATTERN[5000:5331]
        assert csum_and_copy_to_iter(data, destination) == (101, internet_checksum(data[:101]))
        assert arena.read(1, 101) == data[:101]
        assert destination.count == 230
