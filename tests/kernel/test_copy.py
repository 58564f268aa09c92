"""Copies through an imported vector compared with the kernel's: preadv from and pwritev to a file in memory.

Both calls copy the file page by page and end at the first byte of user memory that faults. So on a memory file their
count is exact to the byte, as the iterator's is; a pipe or a socket would drop the whole page or packet. If nothing was
copied the calls return EFAULT, and a copy through an iterator returns 0.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pytest
from iovec_rs import (
    READ,
    WRITE,
    Direction,
    IovIter,
    IterKind,
    UserRange,
    copy_from_iter,
    copy_to_iter,
    fault_handler,
    import_iovec,
    import_ubuf,
)
from support.arena import PAGE_SIZE, Arena, Page, packed_iovec, window

from kernel.syscalls import memory_file, preadv, pwritev, require_comparable_kernel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Segment = tuple[int, int]

pytestmark = pytest.mark.usefixtures("way")

# The signal and its code: BUS_ADRERR, SEGV_ACCERR, SEGV_MAPERR.
SIGNALS = {"gone": (7, 2), "protection": (11, 2), "unmapped": (11, 1)}
NPAGES = 12
FILE_SIZE = 40_000
LAYOUTS = 50
VECTORS = 200
BAD_PAGES = (Page.READ_ONLY, Page.PROTECTED, Page.UNMAPPED, Page.GONE)
UNTOUCHED = 0xEE


@pytest.fixture(scope="module")
def array() -> Iterator[Arena]:
    """The memory for the arrays of struct iovec that are passed to the kernel."""
    require_comparable_kernel()
    with Arena([Page.GOOD]) as arena:
        yield arena


@dataclass
class Twins:
    """Two arenas with the same pages and contents, one for the kernel and one for the package."""

    theirs: Arena
    ours: Arena
    array: Arena
    direction: Direction

    def kernel(self, fd: int, segments: Sequence[Segment], position: int) -> int:
        """The kernel's count for these segments (offsets into the arena) and this place in the file."""
        self.array.write(0, packed_iovec([(self.theirs.address + offset, length) for offset, length in segments]))
        call = preadv if self.direction is READ else pwritev
        answer = call(fd, self.array.address, len(segments), position)
        return 0 if answer == -errno.EFAULT else answer

    def imported(self, segments: Sequence[Segment], rng: random.Random) -> IovIter:
        """The same segments as an iterator, imported from a packed array or from objects, some of which are buffers
        where the memory is good.
        """
        ranges = [self.ours.range(offset, length) for offset, length in segments]
        buffers = rng.choice((None, 0.5, 1.0))
        if buffers is None:
            return import_iovec(self.direction, packed_iovec(ranges))[1]
        return import_iovec(self.direction, [self._object(*segment, rng.random() < buffers) for segment in segments])[1]

    def _object(self, offset: int, length: int, buffer: bool) -> UserRange | memoryview:
        if buffer and self.ours.accessible(offset, length, write=self.direction is READ) == length:
            return memoryview(window(self.ours.address + offset, length))
        return self.ours.range(offset, length)

    def check_fault(self, iterator: IovIter, segments: Sequence[Segment], copied: int, wanted: int) -> None:
        """Checks that a copy that stopped early has a fault with the right page and cause, and any other copy has
        none.
        """
        if copied == wanted:
            assert iterator.fault is None
            return
        page = self._page_of(segments, copied)
        address = self.ours.address + page * PAGE_SIZE
        cause = self.ours.pages[page].cause
        fault = iterator.fault
        assert fault is not None
        assert fault[:5] == (self.side, copied, address, PAGE_SIZE, cause)
        by_kernel = fault_handler.status().mode == "syscall"
        assert fault[5:] == (("syscall", 0, 0, 0) if by_kernel else ("signal", *SIGNALS[cause], 0))

    @property
    def side(self) -> Literal["source", "destination"]:
        return "destination" if self.direction is READ else "source"

    @staticmethod
    def _page_of(segments: Sequence[Segment], index: int) -> int:
        for offset, length in segments:
            if index < length:
                return (offset + index) // PAGE_SIZE
            index -= length
        raise AssertionError("this byte is in none of the segments")


def twins(pages: Sequence[Page], array: Arena, direction: Direction, rng: random.Random) -> tuple[Arena, Arena, Twins]:
    content = rng.randbytes(len(pages) * PAGE_SIZE)
    theirs, ours = Arena(pages, content), Arena(pages, content)
    return theirs, ours, Twins(theirs, ours, array, direction)


def random_pages(rng: random.Random) -> list[Page]:
    return [rng.choice((Page.GOOD,) * 8 + BAD_PAGES) for _ in range(NPAGES)]


def random_segment(rng: random.Random) -> Segment:
    """A segment anywhere in the arena, mostly near a page boundary, because memory turns bad there."""
    end = NPAGES * PAGE_SIZE
    near = rng.randrange(NPAGES + 1) * PAGE_SIZE + rng.randint(-70, 70)
    offset = min(max(rng.choice((near, near, rng.randrange(end))), 0), end - 1)
    length = rng.choice((0, 1, 7, 8, 63, 64, 65, 100, 4095, 4096, 5000, 9000, rng.randrange(300)))
    return offset, min(length, end - offset)


def random_segments(rng: random.Random) -> list[Segment]:
    return [random_segment(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 8, 9, 12)))]


def total(segments: Sequence[Segment]) -> int:
    return sum(length for _, length in segments)


def compare_read(pair: Twins, source: bytes, fd: int, segments: Sequence[Segment], rng: random.Random) -> None:
    """Reads into one vector, in one call or in a few that together request as much."""
    position = rng.choice((0, 1, PAGE_SIZE - 1, PAGE_SIZE, rng.randrange(FILE_SIZE)))
    wanted = min(total(segments), len(source) - position)
    expected = pair.kernel(fd, segments, position)
    iterator = pair.imported(segments, rng)
    assert iterator.kind == (IterKind.UBUF if len(segments) == 1 else IterKind.IOVEC)
    cuts = sorted(rng.randrange(wanted + 1) for _ in range(rng.choice((0, 0, 1, 3))))
    copied = 0
    for start, end in zip((0, *cuts), (*cuts, wanted), strict=True):
        part = copy_to_iter(memoryview(source)[position + start : position + end], iterator)
        copied += part
        if part < end - start:
            break
    assert copied == expected
    assert iterator.count == total(segments) - copied
    assert pair.ours.image() == pair.theirs.image()
    if not cuts:
        pair.check_fault(iterator, segments, copied, wanted)


def compare_write(pair: Twins, segments: Sequence[Segment], rng: random.Random) -> None:
    """Writes one vector: the kernel gathers it into a file, and the package into a buffer."""
    position = rng.choice((0, 1, PAGE_SIZE - 1, PAGE_SIZE, rng.randrange(FILE_SIZE)))
    wanted = total(segments)
    iterator = pair.imported(segments, rng)
    collected = bytearray([UNTOUCHED]) * (wanted + 8)
    copied = copy_from_iter(collected, iterator)
    with memory_file() as fd:
        assert copied == pair.kernel(fd, segments, position)
        assert collected[:copied] == os.pread(fd, wanted, position)
    assert collected.count(UNTOUCHED, copied) == len(collected) - copied
    assert iterator.count == wanted - copied
    pair.check_fault(iterator, segments, copied, wanted)


@pytest.mark.usefixtures("isa")
def test_random_destinations_receive_the_same_bytes_and_stop_at_the_same_one(array: Arena) -> None:
    rng = random.Random("destinations")
    source = rng.randbytes(FILE_SIZE)
    with memory_file(source) as fd:
        for _ in range(LAYOUTS):
            theirs, ours, pair = twins(random_pages(rng), array, READ, rng)
            with theirs, ours:
                for _ in range(VECTORS):
                    compare_read(pair, source, fd, random_segments(rng), rng)


@pytest.mark.usefixtures("isa")
def test_random_sources_give_the_same_bytes_and_stop_at_the_same_one(array: Arena) -> None:
    rng = random.Random("sources")
    for _ in range(LAYOUTS):
        theirs, ours, pair = twins(random_pages(rng), array, WRITE, rng)
        with theirs, ours:
            for _ in range(VECTORS):
                compare_write(pair, random_segments(rng), rng)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bad", BAD_PAGES, ids=lambda page: page.name.lower())
@pytest.mark.parametrize("direction", [READ, WRITE])
def test_one_segment_that_runs_into_a_bad_page_from_every_distance(
    array: Arena, direction: Direction, bad: Page
) -> None:
    rng = random.Random(f"distance {direction} {bad.name}")
    source = rng.randbytes(3 * PAGE_SIZE)
    theirs, ours, pair = twins([Page.GOOD, bad, Page.GOOD], array, direction, rng)
    with theirs, ours, memory_file(source) as fd:
        for distance in range(140):
            offset = PAGE_SIZE - distance
            for length in (distance, distance + 1, distance + 9, distance + 64, distance + PAGE_SIZE + 1):
                expected = pair.kernel(fd, [(offset, length)], 0)
                iterator = import_ubuf(direction, ours.range(offset, length))
                if direction is READ:
                    assert copy_to_iter(source, iterator, length) == expected
                    assert ours.image() == theirs.image()
                else:
                    collected = bytearray(length)
                    assert copy_from_iter(collected, iterator) == expected
                    assert collected == ours.read(offset, expected) + bytes(length - expected)
                pair.check_fault(iterator, [(offset, length)], expected, length)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("bad", BAD_PAGES, ids=lambda page: page.name.lower())
@pytest.mark.parametrize("direction", [READ, WRITE])
def test_a_large_transfer_stops_at_the_one_bad_page_wherever_it_lies(
    array: Arena, direction: Direction, bad: Page
) -> None:
    """The transfer is longer than every length at which a copy changes its method."""
    rng = random.Random(f"large {direction} {bad.name}")
    npages = 600
    source = rng.randbytes(npages * PAGE_SIZE)
    for index in (0, 1, 2, 300, 598, 599):
        pages = [Page.GOOD] * npages
        pages[index] = bad
        theirs, ours, pair = twins(pages, array, direction, rng)
        with theirs, ours, memory_file(source) as fd:
            segments = [(17, 5), (PAGE_SIZE + 3, PAGE_SIZE * 200), (PAGE_SIZE * 202 + 1, PAGE_SIZE * 397 + 4000)]
            expected = pair.kernel(fd, segments, 5)
            iterator = import_iovec(direction, [ours.range(*segment) for segment in segments])[1]
            if direction is READ:
                assert copy_to_iter(memoryview(source)[5:], iterator, total(segments)) == expected
                assert ours.image() == theirs.image()
            else:
                collected = bytearray(total(segments))
                assert copy_from_iter(collected, iterator) == expected
                assert collected[:expected] == os.pread(fd, expected, 5)
                assert not any(collected[expected:])
            pair.check_fault(iterator, segments, expected, total(segments))
