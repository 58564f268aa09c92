"""Former bugs of iov_iter: pages, pipe slots and folios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    READ,
    WRITE,
    FolioQueue,
    IovIter,
    IterKind,
    PageSpan,
    PipeRing,
    copy_page_from_iter,
    copy_page_from_iter_atomic,
    copy_page_to_iter,
    copy_to_iter,
)
from support.arena import PAGE_SIZE
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

if TYPE_CHECKING:
    from collections.abc import Callable

CAN_MERGE = 0x10


@pytest.fixture
def memory() -> memoryview:
    return three_pages()


def address_of(view: memoryview) -> int:
    return IovIter.kvec(WRITE, [view]).ranges()[0].address


def pipe_with_stale_flags(slots: int, start: int) -> PipeRing:
    """An empty pipe, all of whose slots last had data that a later write could append to."""
    ring = PipeRing(slots)
    for nbytes in (slots * PAGE_SIZE, start * PAGE_SIZE):
        assert ring.write(bytes(nbytes)) == nbytes
        assert [flags for *_, flags in ring.slots] == [CAN_MERGE] * (nbytes // PAGE_SIZE)
        assert len(ring.read()) == nbytes
    assert ring.used == 0
    return ring


def test_an_ordinary_pipe_write_appends_to_the_last_slot() -> None:
    """This makes the stale flag dangerous; otherwise the next tests would prove nothing."""
    ring = PipeRing(4)
    assert (ring.write(b"one"), ring.write(b"two")) == (3, 3)
    assert [(offset, length, flags) for _, offset, length, flags in ring.slots] == [(0, 6, CAN_MERGE)]
    assert ring.read() == b"onetwo"


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("length", [1, 100, PAGE_SIZE - 1])
def test_bug_06_dirty_pipe_let_a_write_change_a_referenced_page(start: int, length: int) -> None:
    ring = pipe_with_stale_flags(4, start)
    page = bytearray(b"P" * PAGE_SIZE)
    iterator = IovIter.pipe(READ, ring, PAGE_SIZE)
    assert copy_page_to_iter(page, 0, length, iterator) == length
    assert [flags for *_, flags in ring.slots] == [0]
    assert ring.write(b"overwritten") == 11
    assert page == b"P" * PAGE_SIZE
    assert [flags for *_, flags in ring.slots] == [0, CAN_MERGE]
    assert ring.read() == b"P" * length + b"overwritten"


@pytest.mark.parametrize("start", range(4))
def test_bug_06_dirty_pipe_left_the_flag_on_the_iterators_own_pages(start: int) -> None:
    ring = pipe_with_stale_flags(4, start)
    iterator = IovIter.pipe(READ, ring, 3 * PAGE_SIZE)
    assert copy_to_iter(b"own" + bytes(PAGE_SIZE), iterator) == PAGE_SIZE + 3
    assert iterator.zero(5) == 5
    assert [flags for *_, flags in ring.slots] == [0, 0]
    assert ring.write(b"written") == 7
    assert [flags for *_, flags in ring.slots] == [0, 0, CAN_MERGE]
    assert ring.read() == b"own" + bytes(PAGE_SIZE + 5) + b"written"


@pytest.mark.parametrize("room", [0, 1, 99, 100, 101])
def test_bug_12_a_discarded_page_was_counted_beyond_the_count(room: int) -> None:
    iterator = IovIter.discard(READ, room)
    assert copy_page_to_iter(bytes(PAGE_SIZE), 0, 100, iterator) == min(room, 100)
    assert iterator.count == room - min(room, 100)


@pytest.mark.parametrize("kind", DATA_KINDS)
@pytest.mark.parametrize(("offset", "nbytes"), [(4000, 5000), (0, 3 * PAGE_SIZE), (PAGE_SIZE, 1), (4095, 2)])
def test_bug_14_data_that_cross_a_page_inside_a_compound_one_were_refused(
    kind: IterKind, offset: int, nbytes: int, memory: memoryview
) -> None:
    compound = bytearray((index * 11 + index // 253) % 256 for index in range(4 * PAGE_SIZE))
    before = bytes(memory)
    destination = build(kind, READ, memory)
    assert copy_page_to_iter(compound, offset, nbytes, destination) == nbytes
    assert memory[:nbytes] == compound[offset : offset + nbytes]
    assert memory[nbytes:] == before[nbytes:]
    memory[:] = before
    image = bytes(compound)
    assert copy_page_from_iter(compound, offset, nbytes, build(kind, WRITE, memory)) == nbytes
    assert compound == image[:offset] + before[:nbytes] + image[offset + nbytes :]
    with pytest.raises(ValueError, match=str(4 * PAGE_SIZE)):
        copy_page_to_iter(compound, 4 * PAGE_SIZE - nbytes + 1, nbytes, destination)
    assert destination.count == TOTAL - nbytes


def test_bug_14_a_compound_page_goes_into_one_pipe_slot() -> None:
    compound = bytes(index // 64 % 256 for index in range(4 * PAGE_SIZE))
    ring = PipeRing(1)
    iterator = IovIter.pipe(READ, ring, 1 << 20)
    assert copy_page_to_iter(compound, 4000, 5000, iterator) == 5000
    assert [(offset, length) for _, offset, length, _ in ring.slots] == [(4000, 5000)]
    assert ring.read() == compound[4000:9000]


@pytest.mark.parametrize("lengths", [[0, 0, 10], [0, 10], [0, 0, 0, 10, 0]])
def test_bug_16_empty_segments_in_front_hid_the_pages_behind_them(lengths: list[int], memory: memoryview) -> None:
    segments = [memory[40 : 40 + length] for length in lengths]
    for iterator in (
        IovIter.kvec(WRITE, segments),
        IovIter.iovec(WRITE, segments),
        IovIter.bvec(WRITE, [(memory, 40, length) for length in lengths]),
    ):
        span = iterator.extract_pages(100, 8)
        assert (span.pages, span.offset0, span.nbytes) == ((address_of(memory),), 40, 10)
        assert iterator.count == 0


@pytest.mark.parametrize("position", ["built there", "advanced there", "reverted to there"])
@pytest.mark.parametrize("get", [IovIter.get_pages, IovIter.extract_pages])
def test_bug_17_standing_at_the_end_of_a_folio_gave_an_empty_page(
    get: Callable[[IovIter, int, int], PageSpan], position: str, memory: memoryview
) -> None:
    folios = [memory[:PAGE_SIZE], memory[PAGE_SIZE : 2 * PAGE_SIZE], memory[2 * PAGE_SIZE :]]
    for slots_per_node in (1, 2, 31):
        queue = FolioQueue(folios, slots_per_node)
        if position == "built there":
            iterator = IovIter.folioq(WRITE, queue, 0, PAGE_SIZE, 2 * PAGE_SIZE)
        else:
            iterator = IovIter.folioq(WRITE, queue, 0, 0, TOTAL)
            iterator.advance(PAGE_SIZE + (position == "reverted to there"))
            iterator.revert(position == "reverted to there")
        span = get(iterator, 2 * PAGE_SIZE, 8)
        assert span.pages == (address_of(folios[1]), address_of(folios[2]))
        assert (span.offset0, span.nbytes) == (0, 2 * PAGE_SIZE)
        assert iterator.count == 0


@pytest.mark.parametrize("kind", DATA_KINDS)
@pytest.mark.parametrize("offset", [0, 1, 100, PAGE_SIZE - 1, PAGE_SIZE])
def test_bug_18_an_atomic_copy_into_a_large_page_ran_over_its_first_part(
    kind: IterKind, offset: int, memory: memoryview
) -> None:
    nbytes = TOTAL - 50
    for start in (0, 7):
        iterator = build(kind, WRITE, memory)
        iterator.advance(start)
        large = bytearray(b"\xa5" * 5 * PAGE_SIZE)
        assert copy_page_from_iter_atomic(large, offset, nbytes, iterator) == nbytes
        assert large[offset : offset + nbytes] == memory[start : start + nbytes]
        assert large.count(0xA5, 0, offset) == offset
        assert large.count(0xA5, offset + nbytes) == len(large) - offset - nbytes
        assert iterator.count == TOTAL - start - nbytes


def test_bug_23_free_slots_were_counted_by_the_ring_not_by_its_limit() -> None:
    ring = PipeRing(4, 2)
    iterator = IovIter.pipe(READ, ring, 1 << 20)
    assert iterator.npages(100) == 2
    assert iterator.npages(1) == 1
    assert copy_page_to_iter(bytes(PAGE_SIZE), 0, 10, iterator) == 10
    assert iterator.npages(100) == 1
    span = iterator.get_pages(1 << 20, 100)
    assert (len(span.pages), span.nbytes) == (1, PAGE_SIZE)
    assert (iterator.npages(100), ring.used, ring.full) == (0, 2, True)
    assert copy_to_iter(b"x", iterator) == 0


def test_bug_35_equal_pages_were_dropped_as_if_they_were_one() -> None:
    """Only the same page, continued exactly where the last slot ended, may extend that slot."""
    zeros, other = bytes(2 * PAGE_SIZE), bytearray(2 * PAGE_SIZE)
    ring = PipeRing(16)
    iterator = IovIter.pipe(READ, ring, 1 << 20)
    references: list[tuple[bytes | bytearray, int, int, str]] = [
        (zeros, 0, PAGE_SIZE, "new"),
        (zeros, 0, PAGE_SIZE, "new"),
        (zeros, PAGE_SIZE, 10, "merged"),
        (zeros, PAGE_SIZE, 10, "new"),
        (zeros, PAGE_SIZE + 10, 10, "merged"),
        (zeros, PAGE_SIZE + 21, 10, "new"),
        (other, PAGE_SIZE + 31, 10, "new"),
        (other, PAGE_SIZE + 41, 10, "merged"),
        (zeros, PAGE_SIZE + 51, 10, "new"),
    ]
    used = 0
    for page, offset, nbytes, outcome in references:
        assert copy_page_to_iter(page, offset, nbytes, iterator) == nbytes
        used += outcome == "new"
        assert ring.used == used
    assert ring.read() == bytes(sum(nbytes for _, _, nbytes, _ in references))


def test_bug_35_data_after_a_reference_never_go_into_the_referenced_page() -> None:
    """Nor does a reference extend a page of the pipe, even if the offsets fit."""
    page = bytearray(b"P" * PAGE_SIZE)
    ring = PipeRing(8)
    iterator = IovIter.pipe(READ, ring, 1 << 20)
    assert copy_page_to_iter(page, 0, 10, iterator) == 10
    assert copy_to_iter(b"own", iterator) == 3
    assert copy_page_to_iter(page, 3, 4, iterator) == 4
    assert copy_page_to_iter(page, 10, 2, iterator) == 2
    assert [(offset, length) for _, offset, length, _ in ring.slots] == [(0, 10), (0, 3), (3, 4), (10, 2)]
    assert page == b"P" * PAGE_SIZE
    assert ring.read() == b"P" * 10 + b"own" + b"P" * 6
