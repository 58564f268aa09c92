"""Former bugs of iov_iter: the position of the cursor. docs/old_bugs.md has all of them, with their commits."""

from __future__ import annotations

import pytest
from iovec_rs import (
    MAX_RW_COUNT,
    READ,
    WRITE,
    IovIter,
    IterKind,
    PipeRing,
    copy_from_iter,
    copy_to_iter,
    import_iovec,
)
from support.arena import PAGE_SIZE, Arena, Page
from support.every_kind import DATA_KINDS, TOTAL, build, snapshot, three_pages


@pytest.fixture
def memory() -> memoryview:
    return three_pages()


@pytest.mark.parametrize("lengths", [[0, 1], [0, 0, 1], [0, 5, 0, 2], [3, 0, 0, 4]])
def test_bug_01_an_empty_first_segment_made_single_segment_loops_spin(lengths: list[int]) -> None:
    iterator = IovIter.iovec(READ, [bytearray(length) for length in lengths])
    taken = []
    while iterator.count:
        taken.append(iterator.single_seg_count())
        iterator.advance(taken[-1])
        assert len(taken) <= len(lengths) + 1
    assert sum(taken) == sum(lengths)
    assert len([step for step in taken if step == 0]) <= 1
    assert copy_to_iter(b"all of it", IovIter.iovec(READ, [bytearray(length) for length in lengths])) == sum(lengths)


def test_bug_01_an_iterator_of_nothing_looked_at_its_first_segment() -> None:
    """The array begins where the mapping ends, so reading its first element would crash."""
    with Arena([Page.GOOD, Page.UNMAPPED]) as arena:
        _, imported = import_iovec(WRITE, arena.address + PAGE_SIZE, 0)
        for iterator in (imported, IovIter.iovec(WRITE, []), IovIter.kvec(WRITE, []), IovIter.bvec(WRITE, [])):
            iterator.advance(0)
            assert copy_from_iter(bytearray(4), iterator) == 0
            assert (iterator.single_seg_count(), iterator.npages(4), iterator.ranges()) == (0, 0, [])


@pytest.mark.parametrize("kind", [IterKind.IOVEC, IterKind.KVEC, IterKind.UBUF])
def test_bug_04_a_revert_after_a_truncation_walked_before_the_first_segment(kind: IterKind) -> None:
    buffer = memoryview(bytearray(8192))
    iterator = {
        IterKind.IOVEC: lambda: IovIter.iovec(READ, [buffer[:4096], buffer[4096:]]),
        IterKind.KVEC: lambda: IovIter.kvec(READ, [buffer[:4096], buffer[4096:]]),
        IterKind.UBUF: lambda: IovIter.ubuf(READ, buffer),
    }[kind]()
    state, start = iterator.save_state(), snapshot(iterator)
    iterator.truncate(4096)
    iterator.advance(4096)
    there = snapshot(iterator)
    with pytest.raises(ValueError, match="8192"):
        iterator.revert(8192)
    assert snapshot(iterator) == there
    iterator.restore(state)
    assert snapshot(iterator) == start
    assert iterator.save_state() == state


@pytest.mark.parametrize("kind", [*DATA_KINDS, IterKind.DISCARD, IterKind.PIPE])
def test_bug_05_a_revert_beyond_the_transfer_limit_changed_the_count(kind: IterKind, memory: memoryview) -> None:
    iterator = build(kind, READ, memory)
    assert copy_to_iter(b"0123456789", iterator) == 10
    there = snapshot(iterator)
    with pytest.raises(ValueError, match=str(MAX_RW_COUNT + 1)):
        iterator.revert(MAX_RW_COUNT + 1)
    assert snapshot(iterator) == there
    iterator.revert(10)
    assert iterator.count == TOTAL


@pytest.mark.parametrize("kind", [*DATA_KINDS, IterKind.DISCARD])
@pytest.mark.parametrize("excess", [0, 1, 1 << 40])
def test_bug_13_an_advance_beyond_the_end_wrapped_the_count(kind: IterKind, excess: int, memory: memoryview) -> None:
    iterator = build(kind, READ, memory)
    iterator.advance(100)
    iterator.advance(TOTAL - 100 + excess)
    assert iterator.count == 0
    assert copy_to_iter(b"more", iterator) == 0
    if kind is IterKind.DISCARD:
        assert iterator.iov_offset == 0


@pytest.mark.parametrize("lengths", [[10, 0, 10], [0, 10], [10, 0], [0, 0, 3, 0, 0]])
def test_bug_19_the_walk_never_left_an_empty_bvec_element(lengths: list[int], memory: memoryview) -> None:
    total = sum(lengths)
    pages = [bytearray(PAGE_SIZE) for _ in lengths]
    bvecs = [(page, 7, length) for page, length in zip(pages, lengths, strict=True)]
    assert copy_to_iter(memory[:total], IovIter.bvec(READ, bvecs)) == total
    assert b"".join(page[7 : 7 + length] for page, length in zip(pages, lengths, strict=True)) == memory[:total]
    collected = bytearray(total)
    assert copy_from_iter(collected, IovIter.bvec(WRITE, bvecs)) == total
    assert collected == memory[:total]


def test_bug_19_an_empty_bvec_element_alone_is_an_iterator_of_nothing() -> None:
    iterator = IovIter.bvec(READ, [(bytearray(PAGE_SIZE), 0, 0)])
    assert iterator.count == 0
    iterator.advance(0)
    assert copy_to_iter(b"x", iterator) == 0


@pytest.mark.parametrize("kind", [*DATA_KINDS, IterKind.DISCARD, IterKind.PIPE])
def test_bug_24_advancing_again_after_a_copy_passed_the_end(kind: IterKind, memory: memoryview) -> None:
    """A copy has already advanced. At the end, another advance does nothing."""
    iterator = build(kind, READ, memory)
    data = bytes(memory)
    assert copy_to_iter(data, iterator) == TOTAL
    there = snapshot(iterator)
    iterator.advance(TOTAL)
    assert snapshot(iterator) == there
    if kind in DATA_KINDS:
        iterator.revert(TOTAL)
        assert copy_to_iter(data, iterator) == TOTAL
        assert memory == data


def test_bug_24_advancing_a_pipe_again_released_slots_in_use() -> None:
    ring = PipeRing(4)
    iterator = IovIter.pipe(READ, ring, 2 * PAGE_SIZE)
    assert copy_to_iter(b"precious", iterator) == 8
    with pytest.raises(ValueError, match="8"):
        iterator.advance(8)
    assert iterator.count == 2 * PAGE_SIZE - 8
    iterator.advance(0)
    assert ring.read() == b"precious"
