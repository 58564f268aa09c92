"""Pages of an XArray and folios of a queue that change while iterators over them are used; low memory."""

from __future__ import annotations

import mmap
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FolioQueue,
    IovIter,
    PipeRing,
    XArray,
    copy_page_to_iter,
    copy_to_iter,
)
from support.own_process import little_memory, survives

if TYPE_CHECKING:
    from collections.abc import Callable


# Linux's value; the mmap module has the name from Python 3.13 on.
MAP_NORESERVE = 0x4000


def over_a_read_only_page() -> IovIter:
    array = XArray({0: bytearray(PAGE_SIZE), 1: bytearray(PAGE_SIZE)})
    i = IovIter.xarray(READ, array, 0, 2 * PAGE_SIZE)
    array.store(1, bytes(PAGE_SIZE))
    return i


def over_a_read_only_folio() -> IovIter:
    queue = FolioQueue([bytearray(PAGE_SIZE)])
    i = IovIter.folioq(READ, queue, 0, 0, 2 * PAGE_SIZE)
    queue.append(bytes(PAGE_SIZE))
    return i


@pytest.mark.parametrize("build", [over_a_read_only_page, over_a_read_only_folio])
def test_views_of_a_page_that_became_read_only_are_read_only(build: Callable[[], IovIter]) -> None:
    seen: list[bool] = []
    i = build()
    assert [view.readonly for view in i.views()] == [False, True]
    i.for_each_range(2 * PAGE_SIZE, lambda view: seen.append(view.readonly))
    assert seen == [False, True]
    assert not build().views(nbytes=PAGE_SIZE)[0].readonly


@pytest.mark.parametrize("build", [over_a_read_only_page, over_a_read_only_folio])
def test_a_page_that_became_read_only_is_refused_as_a_destination(build: Callable[[], IovIter]) -> None:
    for write in (lambda i: copy_to_iter(b"w" * 2 * PAGE_SIZE, i), IovIter.zero):
        i = build()
        with pytest.raises(BufferError, match="1 is read-only"):
            write(i)
        assert (i.count, bytes(i.views()[0])) == (2 * PAGE_SIZE, bytes(PAGE_SIZE))


def test_a_source_over_read_only_pages_is_not_zeroed() -> None:
    page = bytes(b"p" * PAGE_SIZE)
    i = IovIter.xarray(WRITE, XArray({0: page}), 0, PAGE_SIZE)
    with pytest.raises(BufferError):
        i.zero()
    assert page == b"p" * PAGE_SIZE


@pytest.mark.parametrize("operation", ["copy", "zero"])
def test_no_byte_changes_when_a_page_becomes_read_only_during_a_copy(operation: str) -> None:
    """A page that becomes read-only between a copy's check and its walk."""
    page, npages = bytes(PAGE_SIZE) if operation == "copy" else b"p" * PAGE_SIZE, 64
    array = XArray({index: bytearray(PAGE_SIZE) for index in range(npages)})
    source, stop = b"w" * npages * PAGE_SIZE, threading.Event()

    def exchange() -> None:
        while not stop.is_set():
            array.store(npages - 1, page)
            array.store(npages - 1, bytearray(PAGE_SIZE))

    thread = threading.Thread(target=exchange)
    thread.start()
    before = bytearray(page)
    for _ in range(20_000):
        i = None
        try:
            i = IovIter.xarray(READ, array, 0, len(source))
            copied = copy_to_iter(source, i) if operation == "copy" else i.zero()
        except BufferError:
            continue
        assert copied in {len(source), len(source) - PAGE_SIZE}, "it ends in front of the page at worst"
        if page != before:
            break
    stop.set()
    thread.join()
    assert page == before


def until_memory_is_gone(grow: Callable[[int], object], headroom: int = 24 << 20) -> None:
    """Calls `grow` with 0, 1, 2… until it raises MemoryError or returns 0."""
    with little_memory(headroom), suppress(MemoryError):
        for step in range(10**7):
            if grow(step) == 0:
                break


def grow_until_memory_is_gone() -> None:
    block = bytearray(PAGE_SIZE)
    for queue in (FolioQueue(), FolioQueue(slots_per_node=2**60)):
        until_memory_is_gone(lambda _, queue=queue: queue.append(block))  # type: ignore[misc]
    array = XArray()
    until_memory_is_gone(lambda step: array.store(step * 1000, block))
    ring = PipeRing(1 << 20)
    i = IovIter.pipe(READ, ring, 1 << 40)
    until_memory_is_gone(lambda _: copy_to_iter(block, i))
    assert len(ring.read(PAGE_SIZE)) == PAGE_SIZE
    until_memory_is_gone(lambda _: copy_page_to_iter(block, 0, 1, i))

    many = IovIter.bvec(READ, [(block, n % PAGE_SIZE, 1) for n in range(300_000)])
    until_memory_is_gone(lambda _: bool(many.ranges()), 4 << 20)
    until_memory_is_gone(lambda _: bool(many.views()), 4 << 20)
    large = mmap.mmap(-1, 1 << 36, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    pages = IovIter.bvec(READ, [(large, 0, 1 << 36)])
    until_memory_is_gone(lambda _: pages.for_each_range(1 << 36, lambda _view: None))
    until_memory_is_gone(lambda _: pages.get_pages(1 << 31, 1 << 31).nbytes, 1 << 20)


def test_growing_a_structure_beyond_memory_is_a_memory_error() -> None:
    survives(grow_until_memory_is_gone)


class Claims:
    """A sequence whose `len` is much greater than its number of items."""

    def __init__(self, length: int, *items: object) -> None:
        self.length, self.items = length, items

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> object:
        return self.items[index]


@pytest.mark.parametrize("length", [10**11, 2**44, 2**60, 2**63 - 1])
def test_a_sequence_with_a_false_length_allocates_no_memory_for_it(length: int) -> None:
    page = bytearray(PAGE_SIZE)
    assert IovIter.bvec(READ, Claims(length, (page, 1, 5))).count == 5  # type: ignore[arg-type]
    queue = FolioQueue(Claims(length, page), length)  # type: ignore[arg-type]
    assert IovIter.folioq(READ, queue, 0, 0, 5).views()[0].nbytes == 5
