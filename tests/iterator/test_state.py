"""Exact positions from worked examples: the position after every operation, and the ring after every use of a pipe."""

import ctypes
from collections.abc import Callable

import iovec_rs
import pytest
from iovec_rs import MAX_RW_COUNT, PAGE_SIZE, READ, WRITE, IovIter, PipeRing, UserRange
from support import oracle as model
from support.arena import Arena, Page
from support.kinds import BUILDERS, Pair, Shape, state_of

LENGTHS = (4, 0, 5, 0, 6)
RANGES = [UserRange(0x1000, 4), UserRange(0x2000, 0), UserRange(0x3FFE, 5), UserRange(0x8000, 0), UserRange(0x9001, 6)]
VECTORS = ["iovec", "kvec", "bvec"]

COPY, ADVANCE, REVERT, REEXPAND = "copy", "advance", "revert", "reexpand by"
Step = tuple[str, int, int | None, tuple[int, int, int, int]]
"""The operation, its length, its result, and the position afterwards: segment, offset, count, remaining segments."""

TABLE: dict[str, tuple[tuple[int, ...], int | None, list[Step]]] = {
    "fresh": (LENGTHS, None, [(REVERT, 0, None, (0, 0, 15, 5))]),
    "a copy stops at the empty segment": (LENGTHS, None, [(COPY, 4, 4, (1, 0, 11, 4))]),
    "an advance passes the empty segment": (LENGTHS, None, [(ADVANCE, 4, None, (2, 0, 11, 3))]),
    "copy, then back across two segments": (
        LENGTHS,
        None,
        [(COPY, 6, 6, (2, 2, 9, 3)), (REVERT, 5, None, (0, 1, 14, 5)), (REVERT, 1, None, (0, 0, 15, 5))],
    ),
    "to the end and all the way back": (
        LENGTHS,
        None,
        [(ADVANCE, 15, None, (5, 0, 0, 0)), (REVERT, 15, None, (0, 0, 15, 5))],
    ),
    "back to a segment's start, then over an empty one": (
        LENGTHS,
        None,
        [(ADVANCE, 15, None, (5, 0, 0, 0)), (REVERT, 6, None, (4, 0, 6, 1)), (REVERT, 1, None, (2, 4, 7, 3))],
    ),
    "an advance beyond the end": (LENGTHS, None, [(ADVANCE, 99, None, (5, 0, 0, 0))]),
    "a copy beyond the end": (LENGTHS, None, [(COPY, 99, 15, (5, 0, 0, 0))]),
    "a count below the data bounds a copy": (
        LENGTHS,
        7,
        [(COPY, 99, 7, (2, 3, 0, 3)), (REEXPAND, 8, None, (2, 3, 8, 3)), (COPY, 99, 8, (5, 0, 0, 0))],
    ),
    "a count below the data bounds an advance": (LENGTHS, 7, [(ADVANCE, 99, None, (2, 3, 0, 3))]),
    "with nothing left neither moves": (
        LENGTHS,
        0,
        [(COPY, 5, 0, (0, 0, 0, 5)), (ADVANCE, 0, None, (0, 0, 0, 5)), (ADVANCE, 7, None, (0, 0, 0, 5))],
    ),
    "advancing by nothing passes an empty segment": ((0, 3), None, [(ADVANCE, 0, None, (1, 0, 3, 1))]),
    "copying nothing does not": ((0, 3), None, [(COPY, 0, 0, (0, 0, 3, 2))]),
    "back to a segment's start is not the end of the one before": (
        (4, 5),
        None,
        [(COPY, 6, 6, (1, 2, 3, 1)), (REVERT, 2, None, (1, 0, 5, 1)), (ADVANCE, 0, None, (1, 0, 5, 1))],
    ),
    "advancing by nothing passes what a copy stopped at": (
        (4, 0, 0, 5),
        None,
        [(COPY, 4, 4, (1, 0, 5, 3)), (ADVANCE, 0, None, (3, 0, 5, 1))],
    ),
    "a copy does not pass trailing empty segments": ((4, 0, 0), None, [(COPY, 4, 4, (1, 0, 0, 2))]),
    "an advance does": ((4, 0, 0), None, [(ADVANCE, 4, None, (3, 0, 0, 0))]),
    "a copy starts at the empty segment it stopped at": (
        (4, 0, 5),
        None,
        [(COPY, 4, 4, (1, 0, 5, 2)), (COPY, 1, 1, (2, 1, 4, 1))],
    ),
    "many empty segments in front": ((0, 0, 0, 2), None, [(COPY, 1, 1, (3, 1, 1, 1)), (REVERT, 1, None, (3, 0, 2, 1))]),
}


def pair_over(kind: str, source: bool, lengths: tuple[int, ...], count: int | None = None) -> Pair:
    total = sum(lengths)
    return BUILDERS[kind](source, Shape(lengths, lead=37, cut=0 if count is None else total - count))


FROM: dict[str, Callable[[bytearray, IovIter], int]] = {
    "copy": iovec_rs.copy_from_iter,
    "nocache": iovec_rs.copy_from_iter_nocache,
    "flushcache": iovec_rs.copy_from_iter_flushcache,
}


def copy(i: IovIter, n: int, flavour: str = "copy") -> int:
    if i.direction == WRITE:
        return FROM[flavour](bytearray(n), i)
    return (iovec_rs.copy_to_iter if flavour == "copy" else iovec_rs.copy_to_iter_flushcache)(bytes(n), i)


def act(i: IovIter | model.Oracle, what: str, n: int, flavour: str = "copy") -> int | None:
    if what == COPY:
        if isinstance(i, IovIter):
            return copy(i, n, flavour)
        return len(i.copy_from(n)) if i.source else i.copy_to(bytes(n))
    if what == ADVANCE:
        i.advance(n)
    elif what == REVERT:
        i.revert(n)
    else:
        i.reexpand(i.count + n)
    return None


@pytest.mark.parametrize("source", [False, True], ids=["destination", "source"])
@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("row", TABLE)
@pytest.mark.parametrize("flavour", FROM)
def test_every_row_of_the_state_table(row: str, kind: str, source: bool, flavour: str) -> None:
    """The oracle of the random tests is checked with the same table."""
    lengths, count, steps = TABLE[row]
    made = pair_over(kind, source, lengths, count)
    real, oracle = made.real, made.oracle
    for what, n, returns, (segment, offset, left, nr_segs) in steps:
        assert segment + nr_segs == len(lengths)
        assert act(real, what, n, flavour) == act(oracle, what, n) == returns
        assert state_of(real) == oracle.state == model.State(offset, left, nr_segs)


FAULTS = {0: (4, (0, 11, 3)), 3: (7, (3, 8, 3))}
"""For each number of bytes of segment 2 before the fault: the result of copying 15 bytes, then offset, count and
nr_segs.
"""


@pytest.mark.parametrize("bad", [Page.PROTECTED, Page.UNMAPPED, Page.GONE])
@pytest.mark.parametrize("how", ["copy_to", "flush_to", "zero", *FROM])
@pytest.mark.parametrize("good", FAULTS)
def test_a_fault_in_segment_2_leaves_the_position_on_its_byte(good: int, how: str, bad: Page) -> None:
    copied, (offset, count, nr_segs) = FAULTS[good]
    content = bytes(range(1, 1 + PAGE_SIZE % 251)) * 30
    with Arena([Page.GOOD, bad], content[:PAGE_SIZE]) as arena, Arena([Page.GOOD], content[:PAGE_SIZE]) as other:
        at = PAGE_SIZE - good
        segments = [other.range(8, 4), other.range(0, 0), arena.range(at, 5), other.range(0, 0), other.range(64, 6)]
        i = IovIter.iovec(WRITE if how in FROM else READ, segments)
        before = arena.read(0, PAGE_SIZE), other.image()
        if how in FROM:
            buffer = bytearray(b"\xee" * 15)
            assert FROM[how](buffer, i) == copied
            assert buffer == before[1][8:12] + before[0][at:] + b"\xee" * (15 - copied)
            assert (arena.read(0, PAGE_SIZE), other.image()) == before
        else:
            copy_to = iovec_rs.copy_to_iter_flushcache if how == "flush_to" else iovec_rs.copy_to_iter
            data = bytes(15) if how == "zero" else bytes(range(100, 115))
            assert (i.zero(15) if how == "zero" else copy_to(data, i)) == copied
            assert arena.read(0, PAGE_SIZE) == before[0][:at] + data[4:copied]
            assert other.image() == before[1][:8] + data[:4] + before[1][12:]
        assert state_of(i) == model.State(offset, count, nr_segs)
        assert i.fault is not None
        assert (i.fault.side, i.fault.offset) == ("source" if how in FROM else "destination", copied)
        assert (i.fault.address, i.fault.length) == (arena.address + PAGE_SIZE, PAGE_SIZE)
        assert (i.fault.cause, i.fault.origin) == (bad.cause, "signal")


def test_queries_of_the_state_table_at_its_own_addresses() -> None:
    i = IovIter.iovec(READ, RANGES)
    assert (i.npages(100), i.alignment(), i.single_seg_count()) == (4, 0xBFFF, 4)
    five = IovIter.iovec(READ, RANGES, 5)
    assert (five.npages(100), five.alignment()) == (2, 0x3FFF)
    i.advance(5)
    assert (i.npages(100), i.alignment()) == (3, 0xBFFF)
    assert IovIter.iovec(READ, RANGES, 0).alignment() == 0x1000


@pytest.mark.parametrize("kind", VECTORS)
def test_single_seg_count_of_the_state_table(kind: str) -> None:
    for what, n, expected in [(COPY, 4, 0), (ADVANCE, 4, 5), (COPY, 6, 3)]:
        i = pair_over(kind, False, LENGTHS).real
        act(i, what, n)
        assert i.single_seg_count() == expected, (what, n)


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize("walk", ["single takes", "copies of one"])
def test_a_loop_over_an_empty_first_segment_ends(kind: str, walk: str) -> None:
    i = pair_over(kind, False, (0, 1)).real
    for _ in range(3):
        if walk == "single takes":
            i.advance(i.single_seg_count())
        else:
            copy(i, 1)
    assert state_of(i) == model.State(0, 0, 0)


@pytest.mark.parametrize("kind", VECTORS)
def test_a_failed_full_copy_may_end_behind_the_empty_segment_where_it_began(kind: str) -> None:
    """It moves back by a revert, which may choose the other of two equivalent positions."""
    i = pair_over(kind, True, (4, 5)).real
    copy(i, 4)
    assert state_of(i) == model.State(0, 5, 1)
    assert not iovec_rs.copy_from_iter_full(bytearray(6), i)
    assert state_of(i) == model.State(0, 5, 1)
    i = pair_over(kind, True, (4, 0, 5)).real
    copy(i, 4)
    assert state_of(i) == model.State(0, 5, 2)
    assert not iovec_rs.copy_from_iter_full(bytearray(6), i)
    assert state_of(i) == model.State(0, 5, 1)


@pytest.mark.parametrize("kind", [*VECTORS, "ubuf"])
def test_restore_returns_after_truncate_and_advance(kind: str) -> None:
    i = pair_over(kind, False, (4096, 4096)).real
    saved = i.save_state()
    i.truncate(4096)
    i.advance(4096)
    with pytest.raises(ValueError, match=r"."):
        i.revert(8192)
    assert i.count == 0
    after = i.save_state()
    i.restore(saved)
    assert i.save_state() == saved
    assert (i.iov_offset, i.count) == (0, 8192)
    i.restore(after)
    assert i.save_state() == after, "forward as well"


@pytest.mark.parametrize("kind", VECTORS)
@pytest.mark.parametrize(
    ("lengths", "moved", "left"),
    [
        pytest.param((6, 4), 5, 1, id="an offset beyond the segment"),
        pytest.param((10,), 1, 9, id="a count beyond the data"),
        pytest.param((1, 1, 1, 1), 0, 1, id="more segments than there are"),
    ],
)
def test_the_state_of_another_vector_is_refused(lengths: tuple[int, ...], moved: int, left: int, kind: str) -> None:
    other = pair_over(kind, False, lengths).real
    other.advance(moved)
    other.truncate(left)
    i = pair_over(kind, False, (4, 4, 4)).real
    i.advance(5)
    with pytest.raises(ValueError, match=r"."):
        i.restore(other.save_state())
    assert state_of(i) == model.State(1, 7, 2)


def test_a_duplicate_refuses_a_state_from_before_it_was_made() -> None:
    original = pair_over("iovec", False, (4, 6)).real
    before = original.save_state()
    original.advance(7)
    here = original.save_state()
    twin = original.dup()
    with pytest.raises(ValueError, match=r"."):
        twin.restore(before)
    twin.advance(1)
    twin.restore(here)
    assert state_of(twin) == model.State(3, 3, 1)
    original.restore(before)
    assert state_of(original) == model.State(0, 10, 2)


@pytest.mark.parametrize("kind", [*VECTORS, "ubuf", "xarray", "folioq", "discard", "pipe"])
def test_an_impossible_revert_changes_nothing(kind: str) -> None:
    i = pair_over(kind, False, (100, 50)).real
    copy(i, 60)
    before = state_of(i)
    with pytest.raises(ValueError, match=r"."):
        i.revert(MAX_RW_COUNT + 1)
    if kind != "discard":
        with pytest.raises(ValueError, match=r"."):
            i.revert(61)
    assert state_of(i) == before
    i.revert(60)
    assert i.count == before.count + 60


def test_a_duplicate_cannot_go_back_beyond_its_segment() -> None:
    original = pair_over("kvec", False, (4, 6)).real
    original.advance(7)
    twin = original.dup()
    assert state_of(twin) == state_of(original) == model.State(3, 3, 1)
    with pytest.raises(ValueError, match=r"."):
        twin.revert(4)
    twin.advance(3)
    assert state_of(twin) == model.State(0, 0, 0)
    assert state_of(original) == model.State(3, 3, 1)
    original.revert(7)
    assert state_of(original) == model.State(0, 10, 2)


def test_discard_only_counts() -> None:
    i = IovIter.discard(READ, 2**64 - 1)
    assert i.zero(5) == 5
    assert iovec_rs.copy_to_iter(b"12345", i) == 5
    assert state_of(i) == model.State(0, 2**64 - 11, 0)
    i.revert(10)
    with pytest.raises(ValueError, match=r"."):
        i.revert(1)
    i.advance(2**64 - 1)
    assert state_of(i) == model.State(0, 0, 0)
    assert iovec_rs.copy_page_to_iter(bytes(64), 0, 64, i) == 0, "count bounds this one too"


def test_the_worked_example_of_a_pipe_ring() -> None:
    ring = PipeRing(4)
    i = IovIter.pipe(READ, ring, 20_000)
    page = bytearray(bytes(range(256)) * 16)

    def slots() -> list[tuple[int, int]]:
        assert all(flags == 0 for *_, flags in ring.slots)
        assert ring.used == len(ring.slots)
        return [(offset, length) for _, offset, length, _ in ring.slots]

    assert iovec_rs.copy_to_iter(b"a" * 1000, i) == 1000
    assert (slots(), i.iov_offset) == ([(0, 1000)], 1000)
    assert iovec_rs.copy_to_iter(b"b" * 4000, i) == 4000
    assert (slots(), i.iov_offset, i.count) == ([(0, 4096), (0, 904)], 904, 15_000)
    assert iovec_rs.copy_page_to_iter(page, 100, 50, i) == 50
    assert (slots()[2:], i.iov_offset) == ([(100, 50)], 150)
    assert iovec_rs.copy_page_to_iter(page, 150, 25, i) == 25
    assert (slots()[2:], i.iov_offset) == ([(100, 75)], 175)
    assert iovec_rs.copy_to_iter(b"c" * 5000, i) == 4096
    assert (slots(), i.iov_offset, i.count) == ([(0, 4096), (0, 904), (100, 75), (0, 4096)], 4096, 10_829)
    assert ring.full
    assert iovec_rs.copy_to_iter(b"d", i) == 0
    i.revert(4096 + 10)
    assert (slots(), i.iov_offset, i.count) == ([(0, 4096), (0, 904), (100, 65)], 165, 14_935)
    i.advance(0)
    assert (slots(), i.iov_offset, i.count) == ([(0, 4096), (0, 904), (100, 65)], 165, 14_935)

    assert iovec_rs.copy_to_iter(b"e" * 7, i) == 7
    assert (slots()[2:], i.iov_offset) == ([(100, 65), (0, 7)], 7), "nothing is ever appended to a page lent"
    assert page == bytes(range(256)) * 16
    assert ring.read() == b"a" * 1000 + b"b" * 4000 + page[100:165] + b"e" * 7


def test_a_referenced_page_is_not_copied() -> None:
    ring = PipeRing(2)
    i = IovIter.pipe(READ, ring, 100)
    page = bytearray(4096)
    assert iovec_rs.copy_page_to_iter(page, 10, 4, i) == 4
    page[10:14] = b"late"
    assert ring.read() == b"late"


@pytest.mark.parametrize(
    ("second", "merges"),
    [
        pytest.param((0, 14, 2), True, id="the same page, contiguous"),
        pytest.param((0, 15, 2), False, id="the same page, a gap"),
        pytest.param((0, 10, 2), False, id="the same page again"),
        pytest.param((1, 14, 2), False, id="another page, contiguous"),
    ],
)
def test_references_merge_only_where_one_continues_the_other(second: tuple[int, int, int], merges: bool) -> None:
    pages = [bytes(range(64)), bytes(range(64, 128))]
    ring = PipeRing(4)
    i = IovIter.pipe(READ, ring, 100)
    iovec_rs.copy_page_to_iter(pages[0], 10, 4, i)
    which, at, n = second
    assert iovec_rs.copy_page_to_iter(pages[which], at, n, i) == n
    assert ring.used == (1 if merges else 2)
    assert ring.read() == pages[0][10:14] + pages[which][at : at + n]


def test_a_reference_to_a_page_of_the_pipe_does_not_merge_with_that_page() -> None:
    """The pipe may append to its own page. A reference to the same page belongs to somebody else, and must not be
    extended.
    """
    ring = PipeRing(4)
    i = IovIter.pipe(READ, ring, 100)
    iovec_rs.copy_to_iter(b"own", i)
    page = ring.slots[0][0]
    assert iovec_rs.copy_page_to_iter(page, 3, 2, i) == 2
    assert [(offset, length) for _, offset, length, _ in ring.slots] == [(0, 3), (3, 2)]
    assert iovec_rs.copy_to_iter(b"new", i) == 3
    assert [(offset, length) for _, offset, length, _ in ring.slots] == [(0, 3), (3, 2), (0, 3)]


def test_stale_merge_flags_do_not_reach_a_referenced_page() -> None:
    """Dirty Pipe: a slot that could be merged before must not be when it references somebody else's page."""
    ring = PipeRing(4)
    ring.write(b"x" * (4 * PAGE_SIZE))
    ring.read()
    page = bytearray(b"precious" * 512)
    i = IovIter.pipe(READ, ring, 100)
    assert iovec_rs.copy_page_to_iter(page, 0, 8, i) == 8
    assert iovec_rs.copy_to_iter(b"own", i) == 3
    assert [flags for *_, flags in ring.slots] == [0, 0]
    assert ring.write(b"overwritten") == 11
    assert page == b"precious" * 512
    assert ring.used == 3
    assert ring.read() == b"preciousownoverwritten"


def test_a_revert_in_a_pipe_may_end_at_the_end_of_the_previous_slot() -> None:
    ring = PipeRing(4)
    ring.write(b"theirs")
    i = IovIter.pipe(READ, ring, 100)
    assert iovec_rs.copy_to_iter(b"own", i) == 3
    assert iovec_rs.copy_page_to_iter(bytes(64), 32, 16, i) == 16
    i.revert(16)
    assert (ring.used, i.iov_offset, i.count) == (2, 3, 97)
    with pytest.raises(ValueError, match=r"."):
        i.revert(4)
    i.revert(3)
    assert (ring.used, i.iov_offset, i.count) == (1, 0, 100)
    assert ring.read() == b"theirs"


def test_a_copy_of_0_bytes_does_not_access_bad_memory() -> None:
    i = IovIter.iovec(READ, [UserRange(0x1000, 0), UserRange(0x2000, 4)])
    assert iovec_rs.copy_to_iter(b"", i) == 0
    assert iovec_rs.copy_to_iter((ctypes.c_char * 4)(), i, 0) == 0
    assert i.zero(0) == 0
    assert state_of(i) == model.State(0, 4, 2)
    assert i.fault is None
