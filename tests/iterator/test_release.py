"""Giving an iterator's buffers back before it is collected."""

from __future__ import annotations

import gc
import mmap
import threading
from typing import TYPE_CHECKING

import iovec_rs
import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, IterKind, PipeRing
from support.every_kind import build, three_pages

if TYPE_CHECKING:
    from collections.abc import Callable

USES: dict[str, Callable[[IovIter], object]] = {
    "len": len,
    "bool": bool,
    "kind": lambda i: i.kind,
    "direction": lambda i: i.direction,
    "count": lambda i: i.count,
    "iov_offset": lambda i: i.iov_offset,
    "nr_segs": lambda i: i.nr_segs,
    "fault": lambda i: i.fault,
    "advance": lambda i: i.advance(0),
    "revert": lambda i: i.revert(0),
    "truncate": lambda i: i.truncate(0),
    "reexpand": lambda i: i.reexpand(0),
    "save_state": lambda i: i.save_state(),
    "restore": lambda i: i.restore(IovIter.ubuf(READ, bytearray(1)).save_state()),
    "dup": lambda i: i.dup(),
    "zero": lambda i: i.zero(0),
    "single_seg_count": lambda i: i.single_seg_count(),
    "alignment": lambda i: i.alignment(),
    "is_aligned": lambda i: i.is_aligned(0, 0),
    "gap_alignment": lambda i: i.gap_alignment(),
    "npages": lambda i: i.npages(1),
    "get_pages": lambda i: i.get_pages(1, 1),
    "extract_pages": lambda i: i.extract_pages(1, 1),
    "fault_in_readable": lambda i: i.fault_in_readable(1),
    "fault_in_writeable": lambda i: i.fault_in_writeable(1),
    "ranges": lambda i: i.ranges(),
    "views": lambda i: i.views(),
    "segment": lambda i: i.segment(),
    "for_each_range": lambda i: i.for_each_range(0, lambda _view: None),
    "iterate_and_advance": lambda i: i.iterate_and_advance(0, lambda _view, _progress: None),
    "enter": lambda i: i.__enter__(),
    "copy_to_iter": lambda i: iovec_rs.copy_to_iter(b"", i),
    "copy_from_iter": lambda i: iovec_rs.copy_from_iter(bytearray(), i),
    "copy_iter": lambda i: iovec_rs.copy_iter(i, IovIter.ubuf(WRITE, b"")),
    "copy_page_to_iter": lambda i: iovec_rs.copy_page_to_iter(b"", 0, 0, i),
    "copy_from_iter_flushcache": lambda i: iovec_rs.copy_from_iter_flushcache(bytearray(), i),
    "copy_to_iter_mcsafe": lambda i: iovec_rs.copy_to_iter_mcsafe(b"", i),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("kind", list(IterKind))
def test_every_use_of_a_released_iterator_is_refused(kind: IterKind, use: Callable[[IovIter], object]) -> None:
    i = build(kind, READ, three_pages())
    i.release()
    i.release()
    with pytest.raises(ValueError, match="released"):
        use(i)
    assert repr(i) == "<IovIter released>"


def test_every_public_attribute_is_tried() -> None:
    public = {name for name in dir(IovIter) if not name.startswith("_")}
    assert public - USES.keys() == {"release", *IterKind}


@pytest.mark.parametrize(
    "make", [IovIter.ubuf, lambda d, b: IovIter.kvec(d, [b, b]), lambda d, b: IovIter.bvec(d, [(b, 1, 2)])]
)
def test_the_buffers_are_given_back_at_once(make: Callable[[int, bytearray], IovIter]) -> None:
    block = bytearray(10)
    i = make(READ, block)
    with pytest.raises(BufferError):
        block.append(0)
    i.release()
    block.append(0)


def test_a_mapping_can_be_closed_behind_a_with_block() -> None:
    with mmap.mmap(-1, PAGE_SIZE) as mapping:
        with IovIter.ubuf(READ, mapping) as i:
            assert iovec_rs.copy_to_iter(b"hello", i) == 5
        assert mapping[:5] == b"hello"
        with pytest.raises(LookupError), IovIter.ubuf(READ, mapping) as i:
            raise LookupError
        with pytest.raises(ValueError, match="released"):
            len(i)


def test_views_and_duplicates_keep_what_they_need() -> None:
    block = bytearray(b"0123456789")
    i = IovIter.ubuf(READ, block)
    i.advance(2)
    duplicate = i.dup()
    (view,) = i.views()
    i.release()
    gc.collect()
    assert bytes(view) == b"23456789"
    assert iovec_rs.copy_to_iter(b"ab", duplicate) == 2
    duplicate.release()
    with pytest.raises(BufferError):
        block.append(0)
    del view
    block.append(0)
    assert block == b"01ab456789\0"


def test_a_duplicate_of_a_duplicate_lives_on() -> None:
    block = bytearray(b"0123456789")
    first = IovIter.ubuf(WRITE, block)
    second = first.dup()
    third = second.dup()
    first.release()
    del second
    gc.collect()
    out = bytearray(10)
    assert iovec_rs.copy_from_iter(out, third) == 10
    assert out == block
    third.release()
    block.append(0)


def test_a_callback_of_for_each_range_may_release_the_iterator() -> None:
    block = bytearray(b"abcdef")
    seen: list[bytes] = []

    def see(view: memoryview) -> None:
        i.release()
        gc.collect()
        seen.append(bytes(view))

    i = IovIter.kvec(READ, [memoryview(block)[:2], memoryview(block)[2:4], memoryview(block)[4:]])
    i.for_each_range(6, see)
    assert seen == [b"ab", b"cd", b"ef"]


def test_a_with_block_that_cannot_release_keeps_the_exception_of_the_block() -> None:
    i = IovIter.ubuf(READ, bytearray(10))
    own = ValueError("the block's own")

    def step(_view: memoryview, _progress: int) -> None:
        with pytest.raises(ValueError, match="own") as raised, i:
            raise own
        assert raised.value is own
        with pytest.raises(RuntimeError, match="in use"), i:
            pass

    i.iterate_and_advance(10, step)
    assert any("is not released" in note for note in own.__notes__)
    i.release()


def test_an_iterator_that_is_in_use_is_not_released() -> None:
    block = bytearray(10)
    i = IovIter.ubuf(READ, block)
    began, go_on = threading.Event(), threading.Event()

    def step(view: memoryview, _progress: int) -> None:
        with pytest.raises(RuntimeError, match="in use"):
            i.release()
        began.set()
        go_on.wait()
        view[:] = b"w" * 10

    thread = threading.Thread(target=i.iterate_and_advance, args=(10, step))
    thread.start()
    began.wait()
    with pytest.raises(RuntimeError, match="another thread"):
        i.release()
    assert i.kind is IterKind.UBUF
    go_on.set()
    thread.join()
    assert i.count == 0
    assert block == b"w" * 10
    i.release()


def test_a_ring_keeps_its_bytes_when_its_iterator_is_released() -> None:
    ring = PipeRing(4)
    with IovIter.pipe(READ, ring, 100) as i:
        iovec_rs.copy_to_iter(b"kept", i)
        iovec_rs.copy_page_to_iter(bytearray(b"lent"), 0, 4, i)
    assert ring.read() == b"keptlent"
