"""Writes to a region: every byte, from every kind, durable on return, and exact counts at bad memory."""

from __future__ import annotations

import errno
import mmap
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, FaultError, FolioQueue, IovIter, XArray, pmem, testing
from iovec_rs.pmem import PmemRegion
from support import mapping, places
from support.kinds import CASES, Shape, build, state_of
from support.places import dirty, pages
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOURCES = [kind for kind, source in CASES if source]
SIZE = 32 * PAGE_SIZE
FILL = random.Random(3).randbytes(SIZE)


@pytest.fixture
def path() -> Iterator[Path]:
    with places.on_disk() as directory:
        path = directory / "file"
        # Page by page: bytes written at once are kept, and become dirty, as a unit.
        with path.open("wb", buffering=0) as file:
            for at in range(0, SIZE, PAGE_SIZE):
                file.write(FILL[at : at + PAGE_SIZE])
        yield path


@pytest.fixture
def region(path: Path) -> Iterator[PmemRegion]:
    region = PmemRegion.open(path)
    region.deep_flush()
    yield region
    region.close()


def expected(offset: int, data: bytes) -> bytes:
    return FILL[:offset] + data + FILL[offset + len(data) :]


@pytest.mark.parametrize("offset", [0, 1, 4095, 5 * PAGE_SIZE + 7])
@pytest.mark.parametrize("length", [0, 1, 64, PAGE_SIZE - 1, 3 * PAGE_SIZE + 1])
def test_a_buffer_is_written_at_its_offset_and_nowhere_else(
    path: Path, region: PmemRegion, offset: int, length: int
) -> None:
    data = random.Random(length).randbytes(length)
    assert region.write(offset, data) == length
    assert dirty(region) == 0
    assert path.read_bytes() == expected(offset, data)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize(
    "shape",
    [Shape((100,)), Shape((5, 0, 4097, 3, 8190), lead=13, seed=1), Shape((4096, 4096, 4096), seed=2), Shape((0, 0))],
)
def test_every_kind_of_iterator_is_written_completely(path: Path, region: PmemRegion, kind: str, shape: Shape) -> None:
    pair = build(kind, True, shape)
    data = pair.oracle.copy_from(pair.real.count)
    assert region.write(77, pair.real) == len(data)
    pair.oracle.settle(state_of(pair.real))
    pair.check()
    assert dirty(region) == 0
    assert path.read_bytes() == expected(77, data)
    assert region.write(77, pair.real) == 0 or pair.real.count


@pytest.mark.parametrize("kind", SOURCES)
def test_a_second_write_continues_the_iterator(path: Path, region: PmemRegion, kind: str) -> None:
    pair = build(kind, True, Shape((3000, 1, 6000, 4096), lead=5))
    total, part = pair.real.count, 4500
    data = pair.oracle.copy_from(total)
    pair.real.truncate(part)
    assert region.write(0, pair.real) == part
    pair.real.reexpand(total - part)
    assert region.write(part, pair.real) == total - part
    assert path.read_bytes() == expected(0, data)


PERSIST: dict[str, Callable[[PmemRegion, Any], None]] = {
    "region": lambda region, _: region.persist(5 * PAGE_SIZE + 1, PAGE_SIZE),
    "buffer": lambda _, view: pmem.persist(view, 5 * PAGE_SIZE + 1, PAGE_SIZE),
    "part": lambda _, view: pmem.persist(view[5 * PAGE_SIZE + 1 : 6 * PAGE_SIZE + 1]),
}


def left_by_msync(path: Path, region: PmemRegion, view: Any) -> int:
    """How many bytes are dirty when pages 5, 6 and 9 were, and an msync has written 5 and 6: a page, or none where the
    file system writes neighbours, too, as btrfs does.
    """
    view[5 * PAGE_SIZE : 7 * PAGE_SIZE] += 1
    view[9 * PAGE_SIZE] += 1
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as other:
        other.flush(5 * PAGE_SIZE, 2 * PAGE_SIZE)
        left = dirty(region)
        other.flush()
    return left


@pytest.mark.parametrize("persist", PERSIST.values(), ids=PERSIST)
def test_stores_through_a_view_are_durable_after_persist(
    path: Path, region: PmemRegion, persist: Callable[[PmemRegion, Any], None]
) -> None:
    view = places.array(region)
    left = left_by_msync(path, region, view)
    assert left <= PAGE_SIZE
    assert dirty(region) == 0
    view[5 * PAGE_SIZE : 7 * PAGE_SIZE] += 1
    assert dirty(region) == 2 * PAGE_SIZE
    persist(region, view)
    assert dirty(region) == 0
    view[5 * PAGE_SIZE : 7 * PAGE_SIZE] += 1
    view[9 * PAGE_SIZE] += 1
    assert dirty(region) == 3 * PAGE_SIZE
    persist(region, view)
    assert dirty(region) == left
    region.persist()
    assert dirty(region) == 0
    view[20 * PAGE_SIZE] += 1
    region.deep_flush()
    assert dirty(region) == 0
    del view


def test_persist_only_flushes_lines_of_memory_outside_regions(region: PmemRegion) -> None:
    view = memoryview(region)
    view[0] ^= 1
    for buffer in (bytearray(PAGE_SIZE), testing.pattern(0, 100)):
        pmem.persist(buffer)
        pmem.flush(buffer, 10, 20)
        pmem.invalidate(buffer)
    pmem.drain()
    assert dirty(region) == PAGE_SIZE
    view.release()


@pytest.mark.parametrize(
    ("offset", "length"), [(SIZE, 1), (SIZE - 4, 5), (SIZE + 1, 0), (0, SIZE + 1), (2**64 - 1, 1), (2**63, 2)]
)
def test_data_that_would_leave_the_region_store_nothing(
    path: Path, region: PmemRegion, offset: int, length: int
) -> None:
    data = bytearray(length)
    message = f"offset {offset} and length {length} leave the region of {SIZE} bytes"
    source, target = IovIter.ubuf(WRITE, data), IovIter.ubuf(READ, data)
    calls: list[Callable[[], object]] = [
        lambda: region.write(offset, data),
        lambda: region.write(offset, source),
        lambda: region.read_into(offset, data),
        lambda: region.read_into(offset, target),
        lambda: region.persist(offset, length),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()
    assert (source.count, target.count, data) == (length, length, bytearray(length))
    assert (dirty(region), path.read_bytes()) == (0, FILL)


def test_wrong_arguments_are_named(region: PmemRegion) -> None:
    with pytest.raises(ValueError, match="offset is -1"):
        region.write(-1, b"")
    with pytest.raises(TypeError, match="data: a buffer, an iterable of buffers or an IovIter is expected, not int"):
        region.write(0, 5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"data\[1\]: a buffer is expected, not int"):
        region.write(0, [b"a", 5])  # type: ignore[list-item]
    with pytest.raises(BufferError, match="data: not C-contiguous"):
        region.write(0, memoryview(b"abcd")[::2])
    with pytest.raises(ValueError, match="write: wrong direction"):
        region.write(0, IovIter.ubuf(READ, bytearray(4)))
    with pytest.raises(ValueError, match="wrong direction"):
        region.read_into(0, IovIter.ubuf(WRITE, b"abcd"))
    with pytest.raises(BufferError, match="dst: read-only"):
        region.read_into(0, b"abcd")
    assert bytes(region) == FILL


@pytest.mark.parametrize("step", [-5000, -1, 1, 5000])
def test_a_region_may_be_written_from_itself(path: Path, region: PmemRegion, step: int) -> None:
    at, length = 6000, 12_000
    view = memoryview(region)
    assert region.write(at + step, view[at : at + length]) == length
    assert path.read_bytes() == expected(at + step, FILL[at : at + length])
    region.write(0, FILL)
    assert region.write(at + step, IovIter.iovec(WRITE, [view[at : at + 7], view[at + 7 : at + length]])) == length
    assert path.read_bytes() == expected(at + step, FILL[at : at + length])
    view.release()


def _pages(view: memoryview) -> list[memoryview]:
    return [view[at : at + PAGE_SIZE] for at in range(0, len(view), PAGE_SIZE)]


OVER: dict[str, Callable[[memoryview], Any]] = {
    "buffer": lambda view: view,
    "ubuf": lambda view: IovIter.ubuf(WRITE, view),
    "iovec": lambda view: IovIter.iovec(WRITE, [view[:5], view[5:]]),
    "kvec": lambda view: IovIter.kvec(WRITE, [view[:5], view[5:]]),
    "bvec": lambda view: IovIter.bvec(WRITE, [(view, 0, len(view))]),
    "xarray": lambda view: IovIter.xarray(WRITE, XArray(dict(enumerate(_pages(view)))), 0, len(view)),
    "folioq": lambda view: IovIter.folioq(WRITE, FolioQueue(_pages(view)), 0, 0, len(view)),
}
COMES_SHORT = ("ubuf", "iovec")


def attempt(region: PmemRegion, offset: int, data: Any) -> tuple[int, Any]:
    try:
        copied = region.write(offset, data)
    except FaultError as error:
        return error.copied, error.fault
    return copied, data.fault if isinstance(data, IovIter) else None


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", OVER)
def test_bytes_before_a_bad_source_page_are_stored_and_durable(path: Path, region: PmemRegion, kind: str) -> None:
    with testing.truncated(4, keep=2) as memory:
        data, good = OVER[kind](memory.buffer), 2 * PAGE_SIZE
        if kind in COMES_SHORT:
            copied, fault = region.write(100, data), data.fault
        else:
            with pytest.raises(FaultError) as caught:
                region.write(100, data)
            copied, fault = caught.value.copied, caught.value.fault
            assert caught.value.errno == errno.EIO
        assert (copied, fault.side, fault.offset, fault.cause) == (good, "source", good, "gone")
        if isinstance(data, IovIter):
            assert data.count == 2 * PAGE_SIZE
        assert dirty(region) == 0
        assert path.read_bytes() == expected(100, testing.pattern(0, good))
        assert len(region.fault_map) == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", OVER)
def test_a_write_to_a_truncated_file_stores_the_bytes_that_fit(path: Path, kind: str) -> None:
    region = PmemRegion.open(path)
    with path.open("r+b") as file:
        file.truncate(3 * PAGE_SIZE)
    data = memoryview(bytearray(testing.pattern(0, 2 * PAGE_SIZE)))
    offset, good = 2 * PAGE_SIZE - 50, PAGE_SIZE + 50
    copied, fault = attempt(region, offset, OVER[kind](data))
    assert (copied, fault.side, fault.offset, fault.cause) == (good, "destination", good, "gone")
    assert path.read_bytes() == FILL[:offset] + data[:good]
    assert dirty(region) == 0
    assert attempt(region, 3 * PAGE_SIZE, OVER[kind](data))[0] == 0


@pytest.mark.parametrize("length", [PAGE_SIZE, 300 << 10])
@pytest.mark.parametrize("kind", OVER)
def test_bytes_behind_the_end_of_a_truncated_file_do_not_count(tmp_path: Path, kind: str, length: int) -> None:
    """The page in which the file ends accepts them and loses them."""
    path, size = tmp_path / "cut", 512 << 10
    path.write_bytes(bytes(size))
    region = PmemRegion.open(path, offset=PAGE_SIZE)
    end = 2 * PAGE_SIZE + 100
    os.truncate(path, end)
    data = memoryview(bytearray(testing.pattern(0, length)))
    for offset, good in ((PAGE_SIZE, 100), (PAGE_SIZE + 50, 50), (PAGE_SIZE + 100, 0), (PAGE_SIZE + 200, 0)):
        source = OVER[kind](data)
        copied, fault = attempt(region, offset, source)
        assert (copied, fault.side, fault.offset, fault.cause) == (good, "destination", good, "gone")
        assert fault.address == places.address(region) + offset + good
        if isinstance(source, IovIter):
            assert source.count == length - good
    assert path.read_bytes()[-100:] == bytes(data[:50]) * 2
    assert path.stat().st_size == end
    assert region.write(PAGE_SIZE, data[:100]) == 100
    region.persist(0, end - PAGE_SIZE)
    with pytest.raises(FaultError, match="to be made durable") as caught:
        region.persist(0)
    assert (caught.value.copied, caught.value.fault.cause) == (end - PAGE_SIZE, "gone")
    assert caught.value.fault.length == size - end


def test_a_page_that_cannot_be_synced_is_an_error(region: PmemRegion) -> None:
    """The second page is unmapped without the region's knowledge, so msync fails."""
    mapping.unmap(places.address(region) + PAGE_SIZE, PAGE_SIZE)
    region.persist(0, PAGE_SIZE)
    for length in (1, PAGE_SIZE, 3 * PAGE_SIZE):
        with os_error(errno.ENOMEM):
            region.persist(PAGE_SIZE, length)
    with os_error(errno.ENOMEM):
        region.deep_flush()


def test_the_check_for_dirty_pages_finds_one(region: PmemRegion) -> None:
    """The tests above rely on this."""
    view = memoryview(region)
    view[PAGE_SIZE - 1 : PAGE_SIZE + 1] = b"ab"
    assert dirty(region) == pages(PAGE_SIZE + 1)
    view.release()
