"""A region whose medium fails under one half: bytes that were reported as durable are on it, whichever sync got the
errors.

The file system lies on a disk whose image is on a tmpfs that is then filled: blocks that were written before can be
written again, for the others write-back is an I/O error. The kernel tells of it once per open file, so that another
thread's msync takes it away, or a forked child's.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    IovIter,
    copy_to_iter_flushcache,
    memcpy_flushcache,
    pmem,
)
from iovec_rs.pmem import PmemRegion
from support import places
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not places.can_mount(), reason="takes mounting file systems of our own")

HALF = 1 << 20
PAGES = HALF // PAGE_SIZE
SECONDS = 1.0
LEAST = 20
"""The least number of writes per writer, even on a loaded machine."""


class Medium:
    """A region whose first half can be written and whose second half never can."""

    def __init__(self, disk: Path, below: Path) -> None:
        self.path = disk / "file"
        self.region = PmemRegion.open(self.path, size=2 * HALF, create=True)
        self.region.write(0, b"G" * HALF)
        os.sync()
        with (below / "filler").open("wb", buffering=0) as filler:
            for size in (1 << 20, PAGE_SIZE):
                with contextlib.suppress(OSError):
                    while True:
                        filler.write(bytes(size))
        os.sync()
        assert self.is_durable(0, b"G")

    def is_durable(self, page: int, content: bytes) -> bool:
        """Whether every byte of the page on the disk, read past the page cache, has this value."""
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, PAGE_SIZE) as found:
                os.preadv(fd, [found], page * PAGE_SIZE)
                return found[:] == content * PAGE_SIZE
        finally:
            os.close(fd)

    def close(self) -> None:
        self.region.close()


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Medium]:
    with places.failing_disk(tmp_path, str(32 << 20), "12m") as disk:
        medium = Medium(disk, tmp_path / "below")
        yield medium
        medium.close()


def by_write(region: PmemRegion, offset: int, data: bytes) -> None:
    assert region.write(offset, data) == len(data)


def by_writing_an_iterator(region: PmemRegion, offset: int, data: bytes) -> None:
    i = IovIter.iovec(WRITE, [data[:7], data[7:]])
    try:
        assert region.write(offset, i) == len(data)
    except OSError:
        assert i.count == len(data)
        raise


def stored(region: PmemRegion, offset: int, data: bytes) -> memoryview:
    view = memoryview(region)[offset : offset + len(data)]
    view[:] = data
    return view


def by_persist(region: PmemRegion, offset: int, data: bytes) -> None:
    stored(region, offset, data).release()
    region.persist(offset, len(data))


def by_persisting_a_view(region: PmemRegion, offset: int, data: bytes) -> None:
    with stored(region, offset, data) as view:
        pmem.persist(view)


def by_deep_flush(region: PmemRegion, offset: int, data: bytes) -> None:
    stored(region, offset, data).release()
    region.deep_flush()


def by_scattering(region: PmemRegion, offset: int, data: bytes) -> None:
    with memoryview(region)[offset : offset + len(data)] as view:
        i = IovIter.kvec(READ, [view[:7], view[7:]])
        try:
            assert copy_to_iter_flushcache(data, i) == len(data)
        except OSError:
            assert i.count == len(data)
            raise
        finally:
            del i


def by_copying(region: PmemRegion, offset: int, data: bytes) -> None:
    with memoryview(region)[offset : offset + len(data)] as view:
        assert memcpy_flushcache(view, data).copied == len(data)


WAYS = [
    by_write,
    by_writing_an_iterator,
    by_persist,
    by_persisting_a_view,
    by_deep_flush,
    by_scattering,
    by_copying,
]
REPEATS = (by_write, by_writing_an_iterator)
"""Ways to write that store again, so that failures elsewhere do not make them fail."""


class Tally:
    """Counts shared by several processes: for each page the last byte reported as durable, and the number of writes
    that succeeded.
    """

    def __init__(self) -> None:
        self.claims = memoryview(mmap.mmap(-1, 2 * HALF // PAGE_SIZE))
        self.counts = memoryview(mmap.mmap(-1, PAGE_SIZE)).cast("Q")

    def write(self, way: Callable[[PmemRegion, int, bytes], None], region: PmemRegion, first: int, slot: int) -> None:
        """Writes page after page from `first` on until the time is up. No other writer uses these pages."""
        end = time.monotonic() + SECONDS
        turn = 0
        while turn < LEAST or time.monotonic() < end:
            page, byte = first + turn % 64, turn // 64 % 250 + 1
            turn += 1
            # Bytes of the write that is running may be there or not.
            self.claims[page] = 0
            try:
                way(region, page * PAGE_SIZE, bytes([byte]) * PAGE_SIZE)
            except OSError:
                self.counts[slot + 1] += 1
            else:
                self.claims[page] = byte
                self.counts[slot] += 1

    def lost(self, medium: Medium) -> list[int]:
        return [page for page, byte in enumerate(self.claims) if byte and not medium.is_durable(page, bytes([byte]))]


GOOD, BAD, OTHER = 0, 2, 4


def check(tally: Tally, medium: Medium, way: Callable[[PmemRegion, int, bytes], None]) -> None:
    assert tally.lost(medium) == []
    assert tally.counts[BAD] == 0
    assert tally.counts[BAD + 1] > 0
    for slot in (GOOD, OTHER):
        taken, refused = tally.counts[slot], tally.counts[slot + 1]
        assert taken + refused > 0
        if way in REPEATS:
            assert taken > refused


@pytest.mark.parametrize("way", WAYS)
def test_failures_of_one_threads_syncs_count_for_the_others(
    medium: Medium, way: Callable[[PmemRegion, int, bytes], None]
) -> None:
    tally = Tally()
    workers = [
        threading.Thread(target=tally.write, args=(way, medium.region, first, slot))
        for first, slot in ((0, GOOD), (64, OTHER), (PAGES, BAD))
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    check(tally, medium, way)


@pytest.mark.parametrize("bad_in_child", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_forked_child_takes_no_error_from_its_parent(
    medium: Medium, way: Callable[[PmemRegion, int, bytes], None], bad_in_child: bool
) -> None:
    tally = Tally()
    good, bad = (0, GOOD), (PAGES, BAD)
    child = os.fork()
    if not child:
        try:
            tally.write(way, medium.region, *(bad if bad_in_child else good))
        finally:
            os._exit(0)
    tally.write(way, medium.region, *(good if bad_in_child else bad))
    assert os.waitpid(child, 0)[1] == 0
    tally.counts[OTHER] = 1
    check(tally, medium, way)


def fail(region: PmemRegion) -> None:
    with pytest.raises(OSError, match="msync"):
        region.write(HALF, b"x" * PAGE_SIZE)


def test_each_function_reports_once_a_failure_that_a_write_got(medium: Medium) -> None:
    region = medium.region
    view = memoryview(region)[:PAGE_SIZE]
    functions: list[Callable[[], None]] = [
        lambda: region.persist(0, PAGE_SIZE),
        lambda: pmem.persist(view),
        region.deep_flush,
    ]
    for _ in range(2):
        for function in functions:
            function()
        fail(region)
        region.write(0, b"y" * PAGE_SIZE)
        for function in functions:
            with pytest.raises(OSError, match="msync"):
                function()
            function()
    view.release()


def test_a_failure_is_reported_to_every_thread(medium: Medium) -> None:
    region = medium.region
    stored(region, 0, b"z" * PAGE_SIZE).release()
    told: list[Exception] = []

    def other() -> None:
        fail(region)
        try:
            region.persist(0, PAGE_SIZE)
        except OSError as error:
            told.append(error)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert len(told) == 1
    with pytest.raises(OSError, match="msync"):
        region.persist(0, PAGE_SIZE)
    region.persist(0, PAGE_SIZE)


def test_a_child_gets_the_failures_of_its_parent_before_and_after_the_fork(medium: Medium) -> None:
    region = medium.region
    go, stop = os.pipe()

    def child_says() -> str:
        child = os.fork()
        if child:
            fail(region)
            os.write(stop, b"x")
            return chr(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.read(go, 1)
        try:
            region.persist(0, PAGE_SIZE)
            os._exit(ord("d"))
        except OSError:
            region.persist(0, PAGE_SIZE)
            os._exit(ord("t"))

    assert child_says() == "t"
    # The parent was not told by `persist`; nor was the next child's thread.
    assert child_says() == "t"
    os.close(go)
    os.close(stop)


def test_a_child_writes_through_its_own_open_file_description(medium: Medium) -> None:
    """It uses the same addresses, which show the same bytes."""
    region = medium.region
    view = memoryview(region)
    region.write(0, b"before")
    child = os.fork()
    if not child:
        try:
            ok = bytes(view[:6]) == b"before" and region.write(0, b"child!") == 6 and bytes(view[:6]) == b"child!"
            fail(region)
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert bytes(view[:6]) == b"child!"
    # The child's failure is not this description's; the kernel keeps it for whoever asks next.
    region.write(0, b"parent")
    view.release()


def test_a_child_that_cannot_open_the_file_again_is_refused(medium: Medium) -> None:
    child = os.fork()
    if not child:
        try:
            os.setresuid(65534, 65534, 65534)
            with os_error(13) as caught:
                medium.region.write(0, b"x")
            os._exit(0 if "opened again" in str(caught.value) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert medium.region.write(0, b"x") == 1


@pytest.mark.parametrize("through", [memoryview, lambda source: IovIter.ubuf(WRITE, source)], ids=["flat", "iterator"])
def test_a_source_that_is_overwritten_is_not_stored_twice(
    medium: Medium, through: Callable[[memoryview], memoryview | IovIter]
) -> None:
    """A second store would read a changed source, so the first failure is the result."""
    view = memoryview(medium.region)
    view[HALF : HALF + 3 * PAGE_SIZE] = bytes(range(256)) * 48
    before = bytes(view[HALF : HALF + PAGE_SIZE])
    with pytest.raises(OSError, match="msync"):
        medium.region.write(HALF + 100, through(view[HALF : HALF + PAGE_SIZE]))
    assert bytes(view[HALF + 100 : HALF + 100 + PAGE_SIZE]) == before
    view.release()
