"""`iterate_and_advance`: a function is called with each chunk of an iterator's memory, and the iterator moves by what
it processed.
"""

from __future__ import annotations

import re
import zlib
from itertools import accumulate
from pickle import PickleBuffer
from typing import TYPE_CHECKING

import iovec_rs
import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, FolioQueue, IovIter, IterKind, PipeRing, UserRange, XArray
from support.arena import Arena, Page
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def memory() -> memoryview:
    return three_pages()


def lengths(i: IovIter, nbytes: int, stop: Callable[[int], int | None] = lambda _progress: None) -> list[int]:
    seen: list[int] = []

    def step(view: memoryview, progress: int) -> int | None:
        assert progress == sum(seen)
        seen.append(len(view))
        return stop(progress)

    i.iterate_and_advance(nbytes, step)
    return seen


# --- copies of one's own -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_xor_in_place(kind: IterKind, memory: memoryview) -> None:
    before = bytes(memory)
    key = bytes(range(2, 253))

    def xor(view: memoryview, progress: int) -> None:
        for at in range(len(view)):
            view[at] ^= key[(progress + at) % len(key)]

    i = build(kind, READ, memory)
    i.advance(10)
    assert i.iterate_and_advance(TOTAL - 30, xor) == TOTAL - 30
    assert i.count == 20
    middle = bytes(byte ^ key[at % len(key)] for at, byte in enumerate(before[10:-20]))
    assert memory == before[:10] + middle + before[-20:]


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_compress(kind: IterKind, memory: memoryview) -> None:
    packer, packed = zlib.compressobj(), bytearray()
    i = build(kind, WRITE, memory)
    assert i.iterate_and_advance(TOTAL, lambda view, _: packed.extend(packer.compress(view))) == TOTAL
    assert zlib.decompress(packed + packer.flush()) == memory
    assert i.count == 0


def test_a_search_stops_at_the_byte_that_it_finds() -> None:
    i = IovIter.kvec(WRITE, [b"first line", b" ends\nsecond", b" line\n"])

    def until_newline(view: memoryview, _progress: int) -> int:
        found = re.search(b"\n", view)
        return len(view) - found.end() if found else 0

    assert i.iterate_and_advance(i.count, until_newline) == len(b"first line ends\n")
    assert b"".join(i.views()) == b"second line\n"


# --- chunks and positions ----------------------------------------------------------------------------------------


def test_chunks_are_those_of_a_copy() -> None:
    block = bytearray(4 * PAGE_SIZE)
    assert lengths(IovIter.ubuf(READ, block), 10_000) == [10_000]
    segments = [memoryview(block)[:n] for n in (5, 0, PAGE_SIZE + 7, 9)]
    assert lengths(IovIter.iovec(READ, segments), 10_000) == [5, PAGE_SIZE + 7, 9]
    bvec = IovIter.bvec(READ, [(block, PAGE_SIZE - 3, PAGE_SIZE), (block, 0, 0), (block, 5, 6)])
    assert lengths(bvec, 10_000) == [3, PAGE_SIZE - 3, 6]
    array = XArray({0: bytes(PAGE_SIZE), 1: bytes(PAGE_SIZE), 3: bytes(PAGE_SIZE)})
    assert lengths(IovIter.xarray(WRITE, array, 100, 4 * PAGE_SIZE), 4 * PAGE_SIZE) == [PAGE_SIZE - 100, PAGE_SIZE]
    queue = FolioQueue([bytes(PAGE_SIZE + 10), bytes(20)])
    assert lengths(IovIter.folioq(WRITE, queue, 0, 5, 9999), 9999) == [PAGE_SIZE - 5, 10, 20]


@pytest.mark.parametrize("kind", DATA_KINDS)
@pytest.mark.parametrize("taken", [0, 1, 100, PAGE_SIZE, PAGE_SIZE + 1, TOTAL])
def test_the_position_afterwards_is_that_of_a_copy_of_the_same_length(
    kind: IterKind, taken: int, memory: memoryview
) -> None:
    walked, copied = build(kind, WRITE, memory), build(kind, WRITE, memory)

    def stop(view: memoryview, progress: int) -> int:
        return max(0, progress + len(view) - taken)

    assert walked.iterate_and_advance(TOTAL, stop) == taken
    assert iovec_rs.copy_from_iter(bytearray(taken), copied) == taken
    for attribute in ("count", "iov_offset", "nr_segs"):
        assert getattr(walked, attribute) == getattr(copied, attribute), attribute
    walked.revert(taken)
    assert walked.count == TOTAL


def test_a_length_beyond_the_end_is_clipped_to_count() -> None:
    i = IovIter.kvec(WRITE, [b"abc", b"defg"], count=5)
    assert lengths(i, 2**64 - 1) == [3, 2]
    assert lengths(i, 5) == []
    assert lengths(IovIter.kvec(WRITE, [b"", b""]), 5) == []


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [-1, 4, 2**70, -(2**70)])
def test_a_step_that_returns_more_than_its_chunk_is_refused(answer: int) -> None:
    i = IovIter.kvec(WRITE, [b"ab", b"cde"])
    with pytest.raises(ValueError, match=rf"step returned {answer}: expected 0 to 3"):
        i.iterate_and_advance(5, lambda _view, progress: answer if progress else None)
    assert i.count == 3, "the first step counts"


def test_a_step_returns_a_number_or_none() -> None:
    i = IovIter.kvec(WRITE, [b"abc"])
    with pytest.raises(TypeError, match="not str"):
        i.iterate_and_advance(3, lambda _view, _progress: "3")  # type: ignore[arg-type, return-value]
    assert i.count == 3


def test_an_exception_of_a_step_is_passed_on_and_earlier_steps_count() -> None:
    i = IovIter.kvec(WRITE, [b"ab", b"cd", b"ef"])

    def step(_view: memoryview, progress: int) -> None:
        if progress == 4:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        i.iterate_and_advance(6, step)
    assert b"".join(i.views()) == b"ef"


def test_using_the_iterator_inside_a_step_is_refused() -> None:
    i = IovIter.kvec(READ, [bytearray(5), bytearray(5)])
    uses: list[Callable[[], object]] = [
        lambda: i.advance(1),
        lambda: iovec_rs.copy_to_iter(b"x", i),
        lambda: i.iterate_and_advance(1, lambda _view, _progress: None),
        lambda: i.restore(state),
    ]
    state = i.save_state()
    for use in uses:
        with pytest.raises(RuntimeError):
            i.iterate_and_advance(10, lambda _view, _progress, use=use: use() and None)  # type: ignore[misc]
        assert i.count == 10


def test_views_are_released_and_read_only_for_a_source(memory: memoryview) -> None:
    for direction in (READ, WRITE):
        kept: list[memoryview] = []
        i = IovIter.ubuf(direction, memory)
        i.iterate_and_advance(10, lambda view, _progress, kept=kept: kept.append(view))  # type: ignore[misc]
        with pytest.raises(ValueError, match="released"):
            kept[0].nbytes  # noqa: B018
        seen: list[bool] = []
        i.iterate_and_advance(10, lambda view, _progress, seen=seen: seen.append(view.readonly))  # type: ignore[misc]
        assert seen == [direction is WRITE]


def test_a_slice_of_a_view_that_a_step_keeps_stays_valid() -> None:
    block = bytearray(b"0123456789")
    i = IovIter.kvec(READ, [block])
    kept: list[memoryview] = []
    assert i.iterate_and_advance(4, lambda view, _progress: kept.append(view[1:3])) == 4
    del i
    kept[0][:] = b"xy"
    assert block == b"0xy3456789"


def test_a_view_that_cannot_be_released_is_an_error_and_its_bytes_count() -> None:
    block = bytearray(b"0123456789")
    i = IovIter.kvec(READ, [block])
    kept: list[PickleBuffer] = []
    with pytest.raises(BufferError):
        i.iterate_and_advance(4, lambda view, _progress: kept.append(PickleBuffer(view)))
    assert i.count == 6
    del i
    kept[0].raw()[:] = b"wxyz"
    assert block == b"wxyz456789"


def test_kinds_without_views_are_refused() -> None:
    with Arena([Page.GOOD]) as arena:
        for i in (
            IovIter.ubuf(READ, arena.range(0, 9)),
            IovIter.iovec(READ, [bytearray(9), arena.range(0, 9)]),
            IovIter.pipe(READ, PipeRing(), 9),
            IovIter.discard(READ, 9),
        ):
            count = i.count
            with pytest.raises(TypeError, match=r"^iterate_and_advance: "):
                lengths(i, 9)
            with pytest.raises(TypeError, match=r"^views: "):
                i.views()
            assert i.count == count


def test_pages_that_change_under_the_walk() -> None:
    array = XArray({index: bytearray(PAGE_SIZE) for index in range(3)})
    i = IovIter.xarray(READ, array, 0, 3 * PAGE_SIZE)

    def step(_view: memoryview, progress: int) -> None:
        array.erase(progress // PAGE_SIZE)
        if progress:
            array.erase(2)

    assert i.iterate_and_advance(3 * PAGE_SIZE, step) == 2 * PAGE_SIZE
    assert i.count == PAGE_SIZE
    array.store(2, bytes(PAGE_SIZE))
    with pytest.raises(BufferError):
        lengths(i, 1)


# --- the current segment, and the first views --------------------------------------------------------------------


def test_the_current_segment() -> None:
    with Arena([Page.GOOD] * 2) as arena:
        i = IovIter.iovec(READ, [arena.range(10, 5), arena.range(0, 0), arena.range(20, 5)], count=9)
        assert i.segment() == arena.range(10, 5)
        i.advance(2)
        assert i.segment() == arena.range(12, 3)
        iovec_rs.copy_to_iter(b"abc", i)
        assert i.segment() == arena.range(0, 0), "copies step over empty segments when they go on"
        i.advance(0)
        assert i.segment() == arena.range(20, 4), "clipped to count"
        i.advance(4)
        assert i.segment() is None
        assert IovIter.ubuf(READ, arena.range(7, 9)).segment() == arena.range(7, 9)
    assert IovIter.pipe(READ, PipeRing(), 9).segment() is None
    assert IovIter.discard(READ, 9).segment() is None
    page = bytearray(PAGE_SIZE)
    address = IovIter.kvec(READ, [page]).ranges()[0].address
    i = IovIter.xarray(READ, XArray({0: page}), 100, 2 * PAGE_SIZE)
    assert i.segment() == UserRange(address + 100, PAGE_SIZE - 100)
    i.advance(PAGE_SIZE)
    assert i.segment() is None, "a hole"
    i = IovIter.folioq(READ, FolioQueue([page]), 0, 0, 50)
    assert i.segment() == UserRange(address, 50)


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_walking_segment_by_segment_yields_all_ranges(kind: IterKind, memory: memoryview) -> None:
    i = build(kind, WRITE, memory)
    ranges, seen = i.ranges(), []
    while (segment := i.segment()) is not None:
        seen.append(segment)
        i.advance(segment.length)
    assert [segment for segment in seen if segment.length] == ranges


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_the_first_views_only(kind: IterKind, memory: memoryview) -> None:
    i = build(kind, WRITE, memory)
    everything = [bytes(view) for view in i.views()]
    for maxsegs in (0, 1, 2, len(everything), 2**64 - 1, None):
        expected = everything if maxsegs is None else everything[:maxsegs]
        assert [bytes(view) for view in i.views(maxsegs)] == expected
    ends = list(accumulate(map(len, everything)))
    for nbytes in (0, 1, ends[0], ends[0] + 1, TOTAL, 2**64 - 1):
        assert b"".join(i.views(nbytes=nbytes)) == memory[:nbytes]
        assert b"".join(i.views(1, nbytes)) == everything[0][:nbytes]
    with pytest.raises(ValueError, match="maxsegs"):
        i.views(-1)
    with pytest.raises(ValueError, match="nbytes"):
        i.views(nbytes=-1)
