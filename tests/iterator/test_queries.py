"""The answers of an iterator about alignment, pages and faults, for every kind and every special case, as literal
numbers.

Addresses in the numbers are those of ranges that nothing is mapped at: a query never touches what it describes.
"""

import iovec_rs
import pytest
from iovec_rs import PAGE_SIZE, READ, IovIter
from support.every_query import EVERY_GAP, Pages, iovec, kernel_backed, pipe, ubuf


def test_single_seg_count_of_a_vector_may_be_zero() -> None:
    assert iovec((0x1000, 4), (0x2000, 6)).single_seg_count() == 4
    assert iovec((0x1000, 4), (0x2000, 6), count=3).single_seg_count() == 3
    assert iovec((0x1000, 0), (0x2000, 6)).single_seg_count() == 0
    pages = Pages(2)
    assert pages.kvec((5, 0), (9, 6)).single_seg_count() == 0
    assert pages.bvec((0, 5, 0), (1, 0, 6)).single_seg_count() == 0
    i = pages.bvec((0, 5, 10), (1, 0, 6))
    i.advance(3)
    assert i.single_seg_count() == 7


def test_single_seg_count_trusts_count_when_one_segment_is_left() -> None:
    assert ubuf(0x1000, 10, 7).single_seg_count() == 7
    i = iovec((0x1000, 4), (0x2000, 6))
    i.advance(5)
    assert i.single_seg_count() == 5
    i.advance(5)
    assert i.single_seg_count() == 0
    assert Pages(1).xarray(5, 3 * PAGE_SIZE).single_seg_count() == 3 * PAGE_SIZE
    assert IovIter.discard(READ, 77).single_seg_count() == 77
    assert pipe(count=99_999)[1].single_seg_count() == 99_999


def test_single_seg_count_of_a_folio_queue_ignores_the_offset() -> None:
    pages = Pages(3)
    i = pages.folioq(2, 1, offset=5000, count=6000)
    assert i.single_seg_count() == 6000
    i = pages.folioq(2, 1, count=10_000)
    i.advance(100)
    assert i.single_seg_count() == 2 * PAGE_SIZE
    i.advance(2 * PAGE_SIZE)
    assert i.single_seg_count() == 10_000 - 100 - 2 * PAGE_SIZE
    assert pages.folioq(1, count=0).single_seg_count() == 0


def test_alignment_of_user_memory_is_address_or_length() -> None:
    i = ubuf(0x1000, 0x800)
    assert i.alignment() == 0x1800
    i.advance(0x100)
    assert i.alignment() == 0x1100 | 0x700
    assert ubuf(0x1001, 0x800, 0).alignment() == 0
    assert iovec((0x1000, 0x200), (0x2001, 0), (0x4000, 0x400)).alignment() == 0x5600


def test_alignment_clips_the_last_segment_to_count() -> None:
    assert iovec((0x1000, 0x200), (0x4000, 0x404), count=0x600).alignment() == 0x5600
    assert iovec((0x1000, 0x200), (0x4000, 0x400), count=0x201).alignment() == 0x5201
    assert iovec((0x1000, 0x200), (0x4001, 0x400), count=0x200).alignment() == 0x1200


def test_alignment_starts_at_the_position() -> None:
    i = iovec((0x1001, 0x207), (0x4000, 0x400))
    i.advance(7)
    assert i.alignment() == 0x1008 | 0x200 | 0x4000 | 0x400


def test_alignment_at_count_0_still_includes_the_first_address() -> None:
    assert iovec((0x1234, 8), (0x2001, 8), count=0).alignment() == 0x1234
    assert iovec((0x1233, 0), (0x2001, 8), count=0).alignment() == 0, "an empty segment has none"
    pages = Pages(1)
    assert pages.kvec((0x21, 8), count=0).alignment() == pages.base + 0x21
    assert pages.bvec((0, 0x21, 8), count=0).alignment() == 0x21
    i = iovec((0x1235, 8))
    i.advance(8)
    assert i.alignment() == 0, "no segment is left to have one"
    assert iovec().alignment() == 0


def test_alignment_of_pages_uses_the_offset_in_the_page() -> None:
    pages = Pages(4)
    assert pages.bvec((0, 0x200, 0x400), (2, 0x800, 0x1000)).alignment() == 0x1E00
    assert pages.bvec((0, 0, 0x400), (2, 0x21, 0), (3, 0, 0x400)).alignment() == 0x421, "empty elements count"
    i = pages.bvec((0, 0x200, 0x1400))
    i.advance(0x1000)
    assert i.alignment() == 0x1200 | 0x400


def test_alignment_of_a_contiguous_kind_is_position_or_count() -> None:
    pages = Pages(4)
    i = pages.xarray(0x1200, 0x800)
    assert i.alignment() == 0x1A00
    i.advance(0x100)
    assert i.alignment() == 0x1300 | 0x700
    i = pages.folioq(1, 2, count=0x1400)
    assert i.alignment() == 0x1400
    i.advance(0x1080)
    assert i.alignment() == 0x80 | 0x380, "the offset in the folio"
    assert IovIter.discard(READ, 0x123).alignment() == 0
    ring, i = pipe(count=0x800)
    assert i.alignment() == 0x800
    iovec_rs.copy_to_iter(bytes(0x103), i)
    assert i.alignment() == 0x103 | 0x6FD, "a page half filled"
    iovec_rs.copy_page_to_iter(bytes(PAGE_SIZE), 0, 0x0D, i)
    assert i.alignment() == 0x6F0, "a page lent is not appended to"
    assert ring.used == 2


@pytest.mark.parametrize(
    ("segments", "count", "addr_mask", "len_mask", "aligned"),
    [
        (((0x1000, 0x200), (0x4000, 0x400)), None, 0x1FF, 0x1FF, True),
        (((0x1000, 0x200), (0x4100, 0x400)), None, 0x1FF, 0, False),
        (((0x1000, 0x200), (0x4100, 0x400)), None, 0, 0x1FF, True),
        (((0x1000, 0x200), (0x4000, 0x404)), None, 0, 0x1FF, False),
        (((0x1000, 0x200), (0x4000, 0x404)), 0x600, 0, 0x1FF, True),
        (((0x1000, 0x200), (0x4000, 0x400)), 0x201, 0, 0x1FF, False),
        (((0x1000, 0x200), (0x4001, 0x400)), 0x200, 0x1FF, 0x1FF, True),
        (((0x1001, 0), (0x4000, 0x400)), None, 0x1FF, 0, False),
        (((0x1001, 8),), 0, 0x1FF, 0x1FF, False),
        (((0x1000, 8),), 0, 0x1FF, 0x1FF, True),
        ((), None, 0x1FF, 0x1FF, True),
    ],
)
def test_is_aligned_of_vectors(
    segments: tuple[tuple[int, int], ...], count: int | None, addr_mask: int, len_mask: int, aligned: bool
) -> None:
    """Lengths are clipped to count. The address of an empty piece counts, and at count 0 so does the first one."""
    assert iovec(*segments, count=count).is_aligned(addr_mask, len_mask) is aligned
    pages = Pages(5)
    assert pages.kvec(*segments, count=count).is_aligned(addr_mask, len_mask) is aligned
    elements = [(address // PAGE_SIZE, address % PAGE_SIZE, length) for address, length in segments]
    assert pages.bvec(*elements, count=count).is_aligned(addr_mask, len_mask) is aligned


def test_is_aligned_of_a_contiguous_kind() -> None:
    assert ubuf(0x1200, 0x400).is_aligned(0x1FF, 0x1FF)
    assert not ubuf(0x1200, 0x401).is_aligned(0x1FF, 0x1FF)
    assert not ubuf(0x1201, 0x400).is_aligned(0x1FF, 0x1FF)
    assert not ubuf(0x1201, 0x400, 0).is_aligned(0x1FF, 0x1FF), "the address counts with nothing left"
    pages = Pages(4)
    i = pages.xarray(0x1200, 0x600)
    assert i.is_aligned(0x1FF, 0x1FF)
    i.advance(0x100)
    assert not i.is_aligned(0x1FF, 0)
    assert not i.is_aligned(0, 0x1FF)
    i = pages.folioq(1, 2, offset=0x200, count=0x1400)
    assert i.is_aligned(0x1FF, 0x1FF)
    i.advance(0xE01)
    assert not i.is_aligned(1, 0)
    assert IovIter.discard(READ, 0x123).is_aligned(EVERY_GAP, EVERY_GAP)
    _, i = pipe(count=0x801)
    assert i.is_aligned(0x1FF, 0)
    assert not i.is_aligned(0, 1)
    iovec_rs.copy_to_iter(bytes(0x101), i)
    assert not i.is_aligned(1, 0)
    assert i.is_aligned(0, 0xFF)


@pytest.mark.parametrize(
    ("segments", "count", "gaps"),
    [
        (((0x1000, 0x1000), (0x5000, 0x800), (0x9000, 0x1000)), 0x2800, 0xF800),
        (((0x1234, 0x1000),), None, 0),
        (((0x1FFF, 1), (0x3000, 7)), None, 0x3000),
        (((0x1001, 0xFFF), (0x3000, 0x1000)), None, 0x3000),
        (((0x1000, 0x1000), (0x3333, 0), (0x5000, 0x1000)), None, 0x7000),
        (((0x3333, 0), (0x1000, 0x1000), (0x5000, 0x1000)), None, 0x7000),
        (((0x1000, 0x1000), (0x5001, 0x1000)), 0x1000, 0),
        (((0x1000, 0x1000), (0x5001, 0x1000)), 0x1001, 0x7001),
        (((0x1000, 0x1000), (0x5001, 0x1000)), 0, 0),
        ((), None, 0),
    ],
)
def test_gap_alignment_of_an_iovec(segments: tuple[tuple[int, int], ...], count: int | None, gaps: int) -> None:
    """Only boundaries between whole segments count, as far as count reaches; empty segments have none."""
    assert iovec(*segments, count=count).gap_alignment() == gaps


def test_gap_alignment_ignores_the_offset_in_the_segment() -> None:
    i = iovec((0x1000, 0x1000), (0x5000, 0x800), (0x9000, 0x1000))
    i.advance(0x123)
    assert i.gap_alignment() == 0xF800
    i.advance(0x1000)
    assert i.gap_alignment() == 0x5800 | 0x9000
    i.truncate(0x800)
    assert i.gap_alignment() == 0, "the first segment counts whole"


def test_gap_alignment_is_for_user_memory() -> None:
    assert ubuf(0x1234, 5).gap_alignment() == 0
    assert {i.gap_alignment() for i in kernel_backed(Pages(2))} == {EVERY_GAP}


@pytest.mark.parametrize(
    ("address", "length", "npages"),
    [
        (0xFFF, 2, 2),
        (0x2000, 4096, 1),
        (0x2001, 4096, 2),
        (0x2FFF, 1, 1),
        (0x2000, 4097, 2),
        (0x2001, 0, 0),
        (0x2800, 0x2000, 3),
    ],
)
def test_npages_of_one_piece(address: int, length: int, npages: int) -> None:
    assert ubuf(address, length).npages(100) == npages
    assert iovec((address, length)).npages(100) == npages
    pages = Pages(6)
    assert pages.kvec((address, length)).npages(100) == npages
    assert pages.xarray(address, length).npages(100) == npages
    assert pages.bvec((0, address, length)).npages(100) == npages
    assert pages.folioq(6, offset=address, count=length).npages(100) == npages


def test_npages_counts_a_shared_page_twice_and_an_empty_segment_never() -> None:
    assert iovec((0x1000, 16), (0x1010, 16)).npages(100) == 2
    assert iovec((0x1000, 16), (0x1FFF, 0), (0x1010, 16)).npages(100) == 2
    assert iovec((0x1000, 16), (0x1010, 16), count=16).npages(100) == 1


def test_npages_counts_an_empty_element_that_begins_inside_a_page() -> None:
    pages = Pages(3)
    assert pages.bvec((0, 0, 16), (1, 32, 0), (2, 0, 16)).npages(100) == 3
    assert pages.bvec((0, 0, 16), (1, 0, 0), (2, 0, 16)).npages(100) == 2
    assert pages.bvec((0, 0, 16), (1, 32, 0), count=16).npages(100) == 1, "not one beyond count"


def test_npages_never_exceeds_the_maximum() -> None:
    pages = Pages(6)
    for i in (
        ubuf(0x1000, 0x5000),
        iovec((0x1000, 0x3000), (0x9000, 0x2000)),
        pages.kvec((0, 0x3000), (0x3000, 0x2000)),
        pages.bvec((0, 0, 0x3000), (3, 0, 0x2000)),
        pages.xarray(0, 0x5000),
        pages.folioq(3, 2, count=0x5000),
    ):
        assert [i.npages(n) for n in (0, 1, 4, 5, 6)] == [0, 1, 4, 5, 5]
        i.truncate(0)
        assert i.npages(6) == 0
    assert IovIter.discard(READ, 0x5000).npages(6) == 0


def test_npages_of_a_pipe_are_its_free_slots_and_a_partly_filled_page() -> None:
    _, i = pipe(slots=4, count=1)
    assert i.npages(100) == 4, "count does not matter"
    _, i = pipe(slots=4, max_usage=2)
    assert i.npages(100) == 2, "the limit for users, not the size"
    iovec_rs.copy_to_iter(bytes(10), i)
    assert i.npages(100) == 2
    iovec_rs.copy_to_iter(bytes(PAGE_SIZE - 10), i)
    assert i.npages(100) == 1
    iovec_rs.copy_page_to_iter(bytes(PAGE_SIZE), 0, 10, i)
    assert i.npages(100) == 0
    _, i = pipe(count=0)
    assert i.npages(100) == 0, "unless there is none"
