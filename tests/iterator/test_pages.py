"""The pages of the next bytes: faulting them in and listing them."""

import ctypes
import errno

import iovec_rs
import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, PageSpan
from support.arena import Arena, Page
from support.every_query import NONE, Pages, iovec, kernel_backed, pipe, ubuf
from support.refusal import os_error


def test_fault_in_reports_what_lies_beyond_count() -> None:
    with Arena([Page.GOOD]) as arena:
        i = IovIter.ubuf(READ, arena.range(0, 10))
        assert (i.fault_in_readable(20), i.fault_in_writeable(20)) == (10, 10)
        assert (i.fault_in_readable(10), i.fault_in_readable(3), i.fault_in_readable(0)) == (0, 0, 0)
        i = IovIter.iovec(READ, [arena.range(0, 4), arena.range(9, 0), arena.range(16, 6)])
        assert (i.fault_in_readable(20), i.fault_in_writeable(20)) == (10, 10)
        assert (i.count, i.iov_offset, i.nr_segs) == (10, 0, 3)


@pytest.mark.parametrize("bad", [Page.PROTECTED, Page.UNMAPPED, Page.GONE, Page.READ_ONLY])
def test_fault_in_looks_at_every_segment_and_stops_at_the_first_bad_page(bad: Page) -> None:
    with Arena([Page.GOOD, bad, Page.GOOD]) as arena:
        i = IovIter.iovec(
            READ, [arena.range(0, 8), arena.range(1, 0), arena.range(PAGE_SIZE - 5, 12), arena.range(2, 9)]
        )
        assert i.fault_in_writeable(29) == 29 - 8 - 5
        assert i.fault_in_writeable(13) == 0
        assert i.fault_in_writeable(14) == 1
        assert i.fault_in_readable(29) == (0 if bad.readable else 29 - 8 - 5)
        i.advance(8 + 6)
        assert i.fault_in_writeable(15) == 15, "no progress is possible"
        u = IovIter.ubuf(READ, arena.range(100, 2 * PAGE_SIZE))
        assert u.fault_in_writeable(2 * PAGE_SIZE) == 2 * PAGE_SIZE - (PAGE_SIZE - 100)
        assert u.fault_in_writeable(9 * PAGE_SIZE) == 9 * PAGE_SIZE - (PAGE_SIZE - 100)


def test_faulting_in_for_writing_changes_no_byte() -> None:
    content = bytes(range(1, 256)) * 16
    with Arena([Page.GOOD, Page.GOOD], content) as arena:
        before = arena.image()
        i = IovIter.iovec(READ, [arena.range(0, 100), arena.range(PAGE_SIZE - 1, 100)])
        assert i.fault_in_writeable(200) == 0
        assert arena.image() == before


def test_fault_in_of_trusted_memory_reports_no_missing_bytes() -> None:
    pages = Pages(2)
    for i in [*kernel_backed(pages), pages.xarray(0, 5, holes=(0,))]:
        assert (i.fault_in_readable(99), i.fault_in_writeable(99)) == (0, 0)


@pytest.mark.parametrize("getter", ["get_pages", "extract_pages"])
def test_user_pages_of_the_first_segment_that_is_not_empty(getter: str) -> None:
    with Arena([Page.GOOD] * 4) as arena:
        base = arena.address
        i = IovIter.iovec(READ, [arena.range(7, 0), arena.range(PAGE_SIZE - 2, 4), arena.range(0, 9)])
        assert getattr(i, getter)(100, 16) == PageSpan((base, base + PAGE_SIZE), PAGE_SIZE - 2, 4)
        assert (i.nr_segs, i.iov_offset, i.count) == (1, 0, 9)
        u = IovIter.ubuf(READ, arena.range(5, 3 * PAGE_SIZE))
        assert getattr(u, getter)(10 * PAGE_SIZE, 2) == PageSpan((base, base + PAGE_SIZE), 5, 2 * PAGE_SIZE - 5)
        assert getattr(u, getter)(6, 2) == PageSpan((base + 2 * PAGE_SIZE,), 0, 6)
        assert (u.iov_offset, u.count) == (2 * PAGE_SIZE + 1, PAGE_SIZE - 1)


@pytest.mark.parametrize("getter", ["get_pages", "extract_pages"])
@pytest.mark.parametrize("bad", [Page.PROTECTED, Page.UNMAPPED, Page.GONE, Page.READ_ONLY])
def test_pages_before_a_bad_one_are_listed_and_none_is_efault(bad: Page, getter: str) -> None:
    """As many pages as can be faulted in are listed. If there is none, the result is EFAULT and the iterator does not
    move.
    """
    with Arena([Page.GOOD, bad]) as arena:
        i = IovIter.ubuf(READ, arena.range(5, PAGE_SIZE))
        assert getattr(i, getter)(PAGE_SIZE, 2) == PageSpan((arena.address,), 5, PAGE_SIZE - 5)
        assert i.count == 5
        with os_error(errno.EFAULT):
            getattr(i, getter)(PAGE_SIZE, 2)
        assert (i.count, i.iov_offset) == (5, PAGE_SIZE - 5)
        source = IovIter.ubuf(WRITE, arena.range(PAGE_SIZE + 5, 6))
        if bad.readable:
            assert getattr(source, getter)(99, 9) == PageSpan((arena.address + PAGE_SIZE,), 5, 6), "only to be read"
        else:
            with os_error(errno.EFAULT):
                getattr(source, getter)(99, 9)


def test_an_iterator_of_0_bytes_lists_no_pages() -> None:
    for i in [ubuf(0x1000, 5), iovec((0x1000, 5)), *kernel_backed(Pages(2))]:
        assert i.get_pages(0, 5) == i.extract_pages(0, 5) == NONE, i.kind
        assert i.get_pages(5, 0) == NONE, i.kind
        assert i.count == 5
        i.truncate(0)
        assert i.get_pages(5, 5) == i.extract_pages(5, 5) == NONE, i.kind


@pytest.mark.parametrize(
    ("kind", "getter"),
    [("kvec", "get_pages"), ("discard", "get_pages"), ("discard", "extract_pages"), ("pipe", "extract_pages")],
)
def test_kinds_without_pages_to_list_are_efault(kind: str, getter: str) -> None:
    ring, piped = pipe(count=5)
    i = {"kvec": Pages(1).kvec((0, 5)), "discard": IovIter.discard(READ, 5), "pipe": piped}[kind]
    with os_error(errno.EFAULT):
        getattr(i, getter)(5, 5)
    assert (i.count, ring.used) == (5, 0)


def test_extract_pages_of_a_kvec_leaves_empty_segments_behind() -> None:
    pages = Pages(3)
    i = pages.kvec((9, 0), (10, 0), (PAGE_SIZE - 3, 10), (0, 7))
    assert i.extract_pages(100, 8) == PageSpan(pages.pages(0, 1), PAGE_SIZE - 3, 10)
    assert (i.nr_segs, i.count) == (1, 7), "one segment at a time"
    i = pages.kvec((5, 2 * PAGE_SIZE))
    assert i.extract_pages(2 * PAGE_SIZE, 2) == PageSpan(pages.pages(0, 1), 5, 2 * PAGE_SIZE - 5)
    assert (i.iov_offset, i.count) == (2 * PAGE_SIZE - 5, 5)


@pytest.mark.parametrize("getter", ["get_pages", "extract_pages"])
def test_a_bvec_element_of_several_pages_lists_them_all(getter: str) -> None:
    pages = Pages(4)
    i = pages.bvec((0, PAGE_SIZE + 100, 2 * PAGE_SIZE), (0, 0, 9))
    assert getattr(i, getter)(2 * PAGE_SIZE, 2) == PageSpan(pages.pages(1, 2), 100, 2 * PAGE_SIZE - 100)
    assert (i.nr_segs, i.iov_offset) == (2, 2 * PAGE_SIZE - 100)
    assert getattr(i, getter)(2 * PAGE_SIZE, 2) == PageSpan(pages.pages(3), 0, 100)
    assert (i.nr_segs, i.iov_offset, i.count) == (1, 0, 9)


def test_only_extract_pages_joins_elements_and_only_where_both_sides_end_a_page() -> None:
    pages = Pages(6)
    i = pages.bvec((4, 10, PAGE_SIZE - 10), (1, 0, PAGE_SIZE), (3, 0, 20), (0, 0, PAGE_SIZE))
    assert i.extract_pages(10 * PAGE_SIZE, 10) == PageSpan(pages.pages(4, 1, 3), 10, 2 * PAGE_SIZE + 10)
    assert (i.nr_segs, i.iov_offset, i.count) == (1, 0, PAGE_SIZE), "a gap behind, a page not full"
    i = pages.bvec((4, 0, PAGE_SIZE), (1, 1, PAGE_SIZE - 1))
    assert i.extract_pages(10 * PAGE_SIZE, 10) == PageSpan(pages.pages(4), 0, PAGE_SIZE)
    assert i.extract_pages(10 * PAGE_SIZE, 10) == PageSpan(pages.pages(1), 1, PAGE_SIZE - 1)
    i = pages.bvec((2, 0, PAGE_SIZE), (0, 0, PAGE_SIZE))
    assert i.get_pages(2 * PAGE_SIZE, 8) == PageSpan(pages.pages(2), 0, PAGE_SIZE), "get_pages joins nothing"
    assert (i.nr_segs, i.iov_offset, i.count) == (1, 0, PAGE_SIZE)


@pytest.mark.parametrize("getter", ["get_pages", "extract_pages"])
def test_pages_of_an_xarray_end_at_a_hole(getter: str) -> None:
    pages = Pages(5)
    i = pages.xarray(PAGE_SIZE + 7, 3 * PAGE_SIZE, holes=(3,))
    assert getattr(i, getter)(3 * PAGE_SIZE, 8) == PageSpan(pages.pages(1, 2), 7, 2 * PAGE_SIZE - 7)
    assert (i.iov_offset, i.count) == (2 * PAGE_SIZE - 7, PAGE_SIZE + 7)
    found = getattr(i, getter)(PAGE_SIZE, 8)
    assert (found.pages, found.nbytes) == ((), 0), "not even the first"
    assert (i.iov_offset, i.count) == (2 * PAGE_SIZE - 7, PAGE_SIZE + 7)
    i = pages.xarray(7, 3 * PAGE_SIZE)
    assert getattr(i, getter)(3 * PAGE_SIZE, 1) == PageSpan(pages.pages(0), 7, PAGE_SIZE - 7)


@pytest.mark.parametrize("getter", ["get_pages", "extract_pages"])
def test_pages_of_a_folio_queue_go_on_in_the_next_folio(getter: str) -> None:
    pages = Pages(6)
    i = pages.folioq(1, 2, 1, 2, offset=9, count=6 * PAGE_SIZE - 9)
    assert getattr(i, getter)(4 * PAGE_SIZE, 3) == PageSpan(pages.pages(0, 1, 2), 9, 3 * PAGE_SIZE - 9)
    assert getattr(i, getter)(PAGE_SIZE + 1, 8) == PageSpan(pages.pages(3, 4), 0, PAGE_SIZE + 1)
    assert (i.iov_offset, i.count) == (1, 2 * PAGE_SIZE - 1)


@pytest.mark.parametrize("getter", ["get_pages", "extract_pages"])
@pytest.mark.parametrize("slot", [0, 1])
def test_pages_at_the_end_of_a_folio_begin_with_the_next(slot: int, getter: str) -> None:
    """Also if the next folio is in the next node."""
    pages = Pages(3)
    i = pages.folioq(1, 1, 1, slot=slot, offset=PAGE_SIZE, count=100)
    assert getattr(i, getter)(100, 8) == PageSpan(pages.pages(slot + 1), 0, 100)
    assert (i.iov_offset, i.count) == (100, 0)


def test_get_pages_of_a_pipe_appends_them() -> None:
    ring, i = pipe(slots=4, max_usage=3)
    iovec_rs.copy_to_iter(b"x" * 100, i)
    span = i.get_pages(PAGE_SIZE + 1000, 8)
    assert (span.offset0, span.nbytes, len(span.pages)) == (100, PAGE_SIZE + 1000, 2)
    assert [length for _, _, length, _ in ring.slots] == [PAGE_SIZE, 1100]
    assert i.count == 100_000 - 100 - PAGE_SIZE - 1000
    ctypes.memmove(span.pages[0] + 100, b"there", 5)
    ctypes.memmove(span.pages[1], b"here", 4)
    assert i.get_pages(10 * PAGE_SIZE, 8).nbytes == PAGE_SIZE - 1100 + PAGE_SIZE
    assert ring.full
    with os_error(errno.EFAULT):
        i.get_pages(1, 1)
    content = ring.read()
    assert content[:105] == b"x" * 100 + b"there"
    assert content[PAGE_SIZE:][:4] == b"here"
