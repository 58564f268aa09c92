"""The kernel's own KUnit suite for iov_iter, re-created with its numbers: one megabyte, every kind it knows in there.

Its pages are vmapped out of order so that no code may take one page to follow another in memory; here the kinds that
are made of pages get them in that order.
"""

from collections.abc import Callable, Iterator

import iovec_rs
import numpy as np
import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, FolioQueue, IovIter, PageSpan, XArray
from numpy.typing import NDArray
from support.own_pages import OwnPages

pytestmark = pytest.mark.usefixtures("isa")

SIZE = 0x10_0000
NPAGES = SIZE // PAGE_SIZE
ORDER = [(index + 128) % NPAGES if index % 128 < 64 else index for index in range(NPAGES)]
"""The place of each page in memory: pages 0 to 63 have changed places with 128 to 191."""

RANGES = [
    (0x00002, 0x00002),
    (0x00027, 0x03000),
    (0x05193, 0x18794),
    (0x20000, 0x20000),
    (0x20000, 0x24000),
    (0x24000, 0x27001),
    (0x29000, 0xFFFFB),
    (0xFFFFD, 0xFFFFE),
]
TOTAL = 1_000_919

PAGE_RANGES = [
    (0, 0x0002, 0x0002),
    (1, 0x0027, 0x0893),
    (2, 0x0193, 0x0794),
    (3, 0x0000, 0x1000),
    (4, 0x0000, 0x1000),
    (5, 0x0000, 0x1000),
    (6, 0x0000, 0x0FFB),
    (6, 0x0FFD, 0x0FFE),
]
PAGE_TOTAL = 20_073

LISTED = 8
AT_ONCE = 100 * 1024

Image = NDArray[np.uint8]
Window = tuple[int, int]


def pattern(start: int, stop: int) -> Image:
    x = np.arange(start, stop, dtype=np.uint64)
    image: Image = ((x + (x >> np.uint64(8)) + (x >> np.uint64(16))) & np.uint64(0xFF)).astype(np.uint8)
    return image


class Area(OwnPages):
    """The megabyte, as contiguous bytes and as pages whose order in memory differs from their numbers."""

    def __init__(self, *, patterned: bool) -> None:
        super().__init__(NPAGES)
        self.line = memoryview(self.map)
        self.pages = [self.line[at * PAGE_SIZE :][:PAGE_SIZE] for at in ORDER]
        if patterned:
            for index, page in enumerate(self.pages):
                page[:] = pattern(index * PAGE_SIZE, (index + 1) * PAGE_SIZE).tobytes()

    def image(self) -> Image:
        """The contents of the pages in the order of their numbers."""
        return np.concatenate([np.frombuffer(page, np.uint8) for page in self.pages])

    def numbered(self, page: int) -> int:
        """The address of the page that has this number."""
        return self.address(ORDER[page])


def kvec(direction: iovec_rs.Direction, line: memoryview) -> IovIter:
    return IovIter.kvec(direction, [line[start:stop] for start, stop in RANGES])


def bvec(direction: iovec_rs.Direction, area: Area) -> IovIter:
    """A whole element is joined to the one before it if that one ends at the end of the preceding page in memory."""
    elements: list[tuple[memoryview, int, int]] = []
    follows = None
    for page, start, stop in PAGE_RANGES:
        if start == 0 and stop > start and ORDER[page] == follows:
            buffer, at, length = elements.pop()
            elements.append((buffer, at, length + stop - start))
        else:
            elements.append((area.line[ORDER[page] * PAGE_SIZE :], start, stop - start))
        follows = ORDER[page] + 1 if stop == PAGE_SIZE else None
    assert [length for *_, length in elements] == [0, 2156, 1537, 3 * PAGE_SIZE + 4091, 1]
    return IovIter.bvec(direction, elements)


def folioq(direction: iovec_rs.Direction, area: Area) -> Iterator[tuple[Window, IovIter]]:
    queue = FolioQueue(area.pages)
    for start, stop in RANGES:
        i = IovIter.folioq(direction, queue, 0, 0, stop)
        i.advance(start)
        assert i.count == stop - start
        yield (start, stop), i


def xarray(direction: iovec_rs.Direction, area: Area) -> Iterator[tuple[Window, IovIter]]:
    array = XArray(dict(enumerate(area.pages)))
    for start, stop in RANGES:
        yield (start, stop), IovIter.xarray(direction, array, start, stop - start)


Builder = Callable[[iovec_rs.Direction, Area], Iterator[tuple[Window, IovIter]]]


def spread(windows: list[Window], data: Image) -> Image:
    """Zeros, with the data in these windows, one after the other."""
    image, done = np.zeros(SIZE, np.uint8), 0
    for start, stop in windows:
        image[start:stop] = data[done : done + stop - start]
        done += stop - start
    return image


def gathered(windows: list[Window]) -> Image:
    """The pattern of these windows, one after the other, then zeros."""
    image, done = np.zeros(SIZE, np.uint8), 0
    for start, stop in windows:
        image[done : done + stop - start] = pattern(start, stop)
        done += stop - start
    return image


BVEC_WINDOWS = [(page * PAGE_SIZE + start, page * PAGE_SIZE + stop) for page, start, stop in PAGE_RANGES]


def test_the_tables_have_the_numbers_of_the_kernel_suite() -> None:
    assert [stop - start for start, stop in RANGES] == [0, 12249, 79361, 0, 16384, 12289, 880635, 1]
    assert sum(stop - start for start, stop in RANGES) == TOTAL
    assert sum(stop - start for start, stop in BVEC_WINDOWS) == PAGE_TOTAL
    assert sorted(ORDER) == list(range(NPAGES))
    assert sorted(ORDER) != ORDER


def test_copy_to_kvec() -> None:
    area, scratch = Area(patterned=False), pattern(0, SIZE)
    i = kvec(READ, area.line)
    assert iovec_rs.copy_to_iter(scratch.data, i, TOTAL) == TOTAL
    assert (i.count, i.nr_segs) == (0, 0)
    assert np.array_equal(np.frombuffer(area.line, np.uint8), spread(RANGES, scratch))


def test_copy_from_kvec() -> None:
    area, scratch = bytearray(pattern(0, SIZE).tobytes()), bytearray(SIZE)
    i = kvec(WRITE, memoryview(area))
    assert iovec_rs.copy_from_iter(scratch, i, TOTAL) == TOTAL
    assert (i.count, i.nr_segs) == (0, 0)
    assert np.array_equal(np.frombuffer(scratch, np.uint8), gathered(RANGES))


def test_copy_to_bvec() -> None:
    area, scratch = Area(patterned=False), pattern(0, SIZE)
    i = bvec(READ, area)
    assert iovec_rs.copy_to_iter(scratch.data, i, PAGE_TOTAL) == PAGE_TOTAL
    assert (i.count, i.nr_segs) == (0, 0)
    assert np.array_equal(area.image(), spread(BVEC_WINDOWS, scratch))


def test_copy_from_bvec() -> None:
    area, scratch = Area(patterned=True), bytearray(SIZE)
    i = bvec(WRITE, area)
    assert iovec_rs.copy_from_iter(scratch, i, PAGE_TOTAL) == PAGE_TOTAL
    assert (i.count, i.nr_segs) == (0, 0)
    assert np.array_equal(np.frombuffer(scratch, np.uint8), gathered(BVEC_WINDOWS))


@pytest.mark.parametrize("kind", [folioq, xarray])
def test_copy_to_pages(kind: Builder) -> None:
    area, scratch = Area(patterned=False), pattern(0, SIZE)
    done = 0
    for (start, stop), i in kind(READ, area):
        assert iovec_rs.copy_to_iter(scratch[done:].data, i, stop - start) == stop - start
        assert i.count == 0
        assert i.iov_offset == (stop % PAGE_SIZE if kind is folioq else stop - start)
        done += stop - start
    assert done == TOTAL
    assert np.array_equal(area.image(), spread(RANGES, scratch))


@pytest.mark.parametrize("kind", [folioq, xarray])
def test_copy_from_pages(kind: Builder) -> None:
    area, scratch = Area(patterned=True), bytearray(SIZE)
    done = 0
    for (start, stop), i in kind(WRITE, area):
        assert iovec_rs.copy_from_iter(memoryview(scratch)[done:], i, stop - start) == stop - start
        assert i.count == 0
        assert i.iov_offset == (stop % PAGE_SIZE if kind is folioq else stop - start)
        done += stop - start
    assert done == TOTAL
    assert np.array_equal(np.frombuffer(scratch, np.uint8), gathered(RANGES))


def extracted(i: IovIter) -> Iterator[PageSpan]:
    """Lists the remaining pages, and checks what must hold for each answer."""
    while True:
        before = i.count
        span = i.extract_pages(AT_ONCE, LISTED)
        assert 0 <= span.offset0 < PAGE_SIZE
        assert 0 <= span.nbytes <= min(before, AT_ONCE)
        assert i.count == before - span.nbytes
        assert len(span.pages) == -(-(span.offset0 + span.nbytes) // PAGE_SIZE) <= LISTED
        if not span.nbytes:
            return
        yield span


def expect_pages(i: IovIter, expected: list[tuple[int, int]]) -> None:
    """These pages, each with the offset of its data, in any number of answers. Only the first page of an answer may
    have an offset.
    """
    rest = iter(expected)
    for span in extracted(i):
        for nth, page in enumerate(span.pages):
            address, start = next(rest)
            assert page == address
            assert start == (0 if nth else span.offset0)
    assert list(rest) == []
    assert i.count == 0


def touched(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The numbers of a range's pages, each with the offset of the range in it."""
    while start < stop:
        yield divmod(start, PAGE_SIZE)
        start += PAGE_SIZE - start % PAGE_SIZE


def test_extract_pages_of_a_kvec() -> None:
    area = Area(patterned=False)
    expected = [(area.base + n * PAGE_SIZE, at) for start, stop in RANGES for n, at in touched(start, stop)]
    expect_pages(kvec(READ, area.line), expected)


def test_extract_pages_of_a_bvec() -> None:
    area = Area(patterned=False)
    expected = [(area.numbered(n), at) for start, stop in BVEC_WINDOWS for n, at in touched(start, stop)]
    expect_pages(bvec(READ, area), expected)


@pytest.mark.parametrize("kind", [folioq, xarray])
def test_extract_pages_of_pages(kind: Builder) -> None:
    area = Area(patterned=False)
    for (start, stop), i in kind(READ, area):
        expect_pages(i, [(area.numbered(n), at) for n, at in touched(start, stop)])
        if kind is xarray:
            assert i.iov_offset == stop - start
