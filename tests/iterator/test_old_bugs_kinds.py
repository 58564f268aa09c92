"""Former bugs of iov_iter: operations that were wrong for some kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    READ,
    WRITE,
    Direction,
    IovIter,
    IterKind,
    copy_from_iter,
    copy_from_iter_full,
    copy_iter,
    copy_page_from_iter,
    copy_page_from_iter_atomic,
    copy_page_to_iter,
    copy_to_iter,
    csum_and_copy_from_iter,
    csum_and_copy_from_iter_full,
    csum_and_copy_to_iter,
)
from support.arena import PAGE_SIZE, Arena, Page, window
from support.every_kind import DATA_KINDS, TOTAL, build, snapshot, three_pages

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def memory() -> memoryview:
    return three_pages()


def read_all(iterator: IovIter) -> bytes:
    collected = bytearray(iterator.count)
    assert copy_from_iter(collected, iterator) == len(collected)
    return bytes(collected)


READING: dict[str, Callable[[IovIter], object]] = {
    "copy_from_iter": read_all,
    "copy_page_from_iter": lambda i: (page := bytearray(TOTAL), copy_page_from_iter(page, 0, i.count, i)),
    "copy_page_from_iter_atomic": lambda i: (page := bytearray(TOTAL), copy_page_from_iter_atomic(page, 0, i.count, i)),
    "csum_and_copy_from_iter": lambda i: csum_and_copy_from_iter(bytearray(TOTAL), i, i.count),
    "copy_iter": lambda i: (to := bytearray(TOTAL), copy_iter(IovIter.ubuf(READ, to), i)),
    "views": lambda i: b"".join(i.views()),
    "ranges": lambda i: i.ranges(),
    "npages": lambda i: i.npages(100),
    "alignment": lambda i: i.alignment(),
    "extract_pages": lambda i: i.extract_pages(TOTAL, 100),
    "fault_in_readable": lambda i: i.fault_in_readable(TOTAL),
}
WRITING: dict[str, Callable[[IovIter], object]] = {
    "copy_to_iter": lambda i: copy_to_iter(bytes(range(256)) * (TOTAL // 256), i),
    "copy_page_to_iter": lambda i: copy_page_to_iter(bytes(range(256)) * (TOTAL // 256), 0, TOTAL, i),
    "csum_and_copy_to_iter": lambda i: csum_and_copy_to_iter(b"checksummed", i),
    "zero": lambda i: i.zero(),
}


@pytest.mark.parametrize("kind", DATA_KINDS)
@pytest.mark.parametrize("skip", [1, 4, 6, PAGE_SIZE - 1, PAGE_SIZE + 3, 2 * PAGE_SIZE + 77])
def test_bug_25_the_offset_in_the_first_segment_was_applied_twice(
    kind: IterKind, skip: int, memory: memoryview
) -> None:
    """Every operation inside a segment has the result that it has on an iterator built to begin there."""
    data = bytes(memory)
    for name, operation in READING.items():
        moved, fresh = build(kind, WRITE, memory), build(kind, WRITE, memory, skip)
        moved.advance(skip)
        assert operation(moved) == operation(fresh), name
        assert moved.count == fresh.count, name
    for name, operation in WRITING.items():
        images = []
        for iterator in (build(kind, READ, memory), build(kind, READ, memory, skip)):
            memory[:] = data
            if iterator.count == TOTAL:
                iterator.advance(skip)
            images.append((operation(iterator), iterator.count, bytes(memory)))
        assert images[0] == images[1], name
        assert images[0][2] != data, name


@pytest.mark.parametrize("kind", [kind for kind in IterKind if kind not in (IterKind.UBUF, IterKind.IOVEC)])
def test_bug_11_faulting_in_took_every_other_kind_for_user_memory(kind: IterKind, memory: memoryview) -> None:
    """Trusted memory is never reported as missing, for any length."""
    for direction in (READ, WRITE) if kind in DATA_KINDS else (READ,):
        iterator = build(kind, direction, memory)
        there = snapshot(iterator)
        for nbytes in (0, 1, TOTAL, TOTAL + 1, 1 << 40):
            assert iterator.fault_in_readable(nbytes) == 0
            assert iterator.fault_in_writeable(nbytes) == 0
        assert snapshot(iterator) == there


@pytest.mark.parametrize("kind", [IterKind.PIPE, IterKind.DISCARD])
def test_bug_26_a_kind_nobody_had_thought_of_gave_wrong_data(kind: IterKind, memory: memoryview) -> None:
    """PIPE and DISCARD are destinations only: any use as a source is an error and copies nothing."""
    target = bytearray(b"untouched")
    for refused in (copy_from_iter, copy_from_iter_full, csum_and_copy_from_iter, csum_and_copy_from_iter_full):
        iterator = build(kind, READ, memory)
        with pytest.raises(ValueError, match="direction"):
            refused(target, iterator)
        assert iterator.count == TOTAL
    for refused_page in (copy_page_from_iter, copy_page_from_iter_atomic):
        with pytest.raises(ValueError, match="direction"):
            refused_page(target, 0, 4, build(kind, READ, memory))
    with pytest.raises(ValueError, match="direction"):
        copy_iter(IovIter.ubuf(READ, target), build(kind, READ, memory))
    assert target == b"untouched"
    with pytest.raises(ValueError, match="direction"):
        build(kind, WRITE, memory)


@pytest.mark.parametrize("kind", list(IterKind))
def test_bug_27_raw_kind_numbers_changed_from_release_to_release(kind: IterKind, memory: memoryview) -> None:
    """The names of the kinds do not depend on numbers."""
    iterator = build(kind, READ, memory)
    assert isinstance(iterator.kind, IterKind)
    assert iterator.kind is kind
    assert iterator.kind == kind.name.lower()
    assert isinstance(iterator.direction, Direction)


def test_bug_32_an_iterator_of_nothing_at_the_very_end_read_one_element_further() -> None:
    """The buffer ends where the mapping ends, so reading the element after the array's last would crash."""
    with Arena([Page.GOOD, Page.UNMAPPED]) as arena:
        end = memoryview(window(arena.address + PAGE_SIZE - 100, 100))
        used_up = IovIter.bvec(WRITE, [(end, 0, 100)])
        used_up.advance(100)
        for iterator in (used_up, IovIter.bvec(WRITE, [(end, 100, 0)]), IovIter.bvec(WRITE, [(end, 0, 100)], 0)):
            iterator.advance(0)
            iterator.advance(1)
            iterator.revert(0)
            assert read_all(iterator) == b""
            assert (iterator.npages(8), iterator.single_seg_count(), iterator.zero(8)) == (0, 0, 0)
            for span in (iterator.get_pages(8, 8), iterator.extract_pages(8, 8)):
                assert (span.pages, span.nbytes) == ((), 0)
            assert (iterator.ranges(), iterator.views()) == ([], [])
            assert (iterator.fault_in_readable(8), iterator.for_each_range(0, len)) == (0, 0)
            assert iterator.dup().count == 0
            assert iterator.alignment() < PAGE_SIZE


EVERYTHING: dict[str, Callable[[IovIter], object]] = {
    **READING,
    **WRITING,
    "advance": lambda i: i.advance(1),
    "revert": lambda i: i.revert(1),
    "truncate": lambda i: i.truncate(1),
    "reexpand": lambda i: i.reexpand(i.count),
    "restore": lambda i: i.restore(i.save_state()),
    "dup": lambda i: i.dup().count,
    "single_seg_count": lambda i: i.single_seg_count(),
    "is_aligned": lambda i: i.is_aligned(1, 1),
    "gap_alignment": lambda i: i.gap_alignment(),
    "get_pages": lambda i: i.get_pages(100, 1),
    "for_each_range": lambda i: i.for_each_range(10, len),
    "fault_in_writeable": lambda i: i.fault_in_writeable(10),
    "copy to a discarded destination": lambda i: copy_iter(IovIter.discard(READ, 10), i),
}


@pytest.mark.parametrize("operation", EVERYTHING.values(), ids=EVERYTHING.keys())
@pytest.mark.parametrize("kind", list(IterKind))
def test_bug_33_an_operation_forgot_one_of_the_kinds(
    kind: IterKind, operation: Callable[[IovIter], object], memory: memoryview
) -> None:
    """Every operation on every kind returns a result or raises an error that says why and does not move the cursor."""
    for direction in (READ, WRITE) if kind in DATA_KINDS else (READ,):
        iterator = build(kind, direction, memory)
        there = snapshot(iterator)
        reason = None
        try:
            operation(iterator)
        except (ValueError, OSError, TypeError) as refusal:
            reason = str(refusal)
        if reason is not None:
            assert len(reason) > 10
            assert snapshot(iterator) == there
        assert iterator.count <= TOTAL + (kind is IterKind.DISCARD)
