"""`*_flushcache` copies to a region that needs an msync: durable on return, wherever in the region they store."""

from __future__ import annotations

import mmap
import os
import random
from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    FolioQueue,
    IovIter,
    UserRange,
    XArray,
    copy_from_iter_flushcache,
    copy_to_iter_flushcache,
    memcpy_flushcache,
    pmem,
)
from iovec_rs.pmem import PmemRegion
from support import places
from support.places import address, dirty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SIZE = 16 * PAGE_SIZE
DATA = random.Random(5).randbytes(4 * PAGE_SIZE)


@pytest.fixture
def directory() -> Iterator[Path]:
    with places.on_disk() as directory:
        yield directory


@pytest.fixture
def region(directory: Path) -> Iterator[PmemRegion]:
    region = PmemRegion.open(directory / "file", size=SIZE, create=True)
    region.deep_flush()
    assert region.granularity == "page"
    yield region
    region.close()


@pytest.fixture
def view(region: PmemRegion) -> Iterator[memoryview]:
    with memoryview(region) as view:
        yield view


def _pages(view: memoryview) -> list[memoryview]:
    return [view[at : at + PAGE_SIZE] for at in range(0, len(view), PAGE_SIZE)]


INTO: dict[str, Callable[[memoryview], IovIter]] = {
    "ubuf": lambda view: IovIter.ubuf(READ, view),
    "raw": lambda view: IovIter.ubuf(READ, UserRange(address(view), len(view))),
    "iovec": lambda view: IovIter.iovec(READ, [view[PAGE_SIZE + 7 :], view[: PAGE_SIZE + 7]]),
    "kvec": lambda view: IovIter.kvec(READ, [view[at : at + 61] for at in range(0, len(view) - 61, 61)]),
    "bvec": lambda view: IovIter.bvec(READ, [(view, 100, len(view) - 100)]),
    "xarray": lambda view: IovIter.xarray(READ, XArray(dict(enumerate(_pages(view)))), 0, len(view)),
    "folioq": lambda view: IovIter.folioq(READ, FolioQueue(_pages(view)), 0, 0, len(view)),
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", INTO)
def test_bytes_scattered_into_a_region_are_on_the_disk(region: PmemRegion, view: memoryview, kind: str) -> None:
    part = view[2 * PAGE_SIZE : 6 * PAGE_SIZE]
    i = INTO[kind](part)
    count = i.count
    assert copy_to_iter_flushcache(DATA[:count], i) == count
    assert dirty(region) == 0
    again = INTO[kind](part)
    stored = b"".join(bytes(piece) for piece in again.views()) if kind != "raw" else bytes(part)
    assert stored == DATA[:count]
    del i, again
    part.release()


@pytest.mark.usefixtures("way")
def test_bytes_gathered_or_copied_into_a_region_are_on_the_disk(region: PmemRegion, view: memoryview) -> None:
    target = view[PAGE_SIZE - 5 : 3 * PAGE_SIZE]
    assert copy_from_iter_flushcache(target, IovIter.iovec(WRITE, [DATA[:7], DATA[7:]])) == len(target)
    assert dirty(region) == 0
    assert target == DATA[: len(target)]
    view[0] = 1
    assert memcpy_flushcache(target, DATA[100 : 100 + len(target)]).remaining == 0
    # Only the pages written are synced.
    assert dirty(region) <= PAGE_SIZE
    assert target == DATA[100 : 100 + len(target)]
    target.release()


def test_two_regions_in_one_destination_are_both_synced(region: PmemRegion, view: memoryview, directory: Path) -> None:
    with PmemRegion.open(directory / "other", size=SIZE, create=True) as other, memoryview(other) as second:
        i = IovIter.kvec(READ, [second[:PAGE_SIZE], view[:PAGE_SIZE], second[3 * PAGE_SIZE : 4 * PAGE_SIZE]])
        assert copy_to_iter_flushcache(DATA, i) == 3 * PAGE_SIZE
        assert (dirty(region), dirty(other)) == (0, 0)
        del i


def test_a_range_beyond_a_region_is_synced_in_its_part_of_the_region(region: PmemRegion, directory: Path) -> None:
    """Two adjacent mappings, given as raw addresses. The kernel first fills holes, then allocates downwards."""
    with ExitStack() as stack:
        regions = [region]
        neighbours: list[tuple[PmemRegion, PmemRegion]] = []
        while not neighbours:
            assert len(regions) < 100, "none of them lies beside another"
            opened = PmemRegion.open(directory / f"file {len(regions)}", size=SIZE, create=True)
            regions.append(stack.enter_context(opened))
            pairs = pairwise(sorted(regions, key=address))
            neighbours = [(low, high) for low, high in pairs if address(low) + SIZE == address(high)]
        low, high = neighbours[0]
        both = UserRange(address(low) + SIZE - PAGE_SIZE, 2 * PAGE_SIZE)
        assert memcpy_flushcache(both, DATA[: 2 * PAGE_SIZE]).remaining == 0
        assert (dirty(low), dirty(high)) == (0, 0)
        with memoryview(low) as a, memoryview(high) as b:
            a[-1:] = b[:1] = b"x"
        assert (dirty(low), dirty(high)) == (PAGE_SIZE, PAGE_SIZE)
        pmem.persist(both)
        assert (dirty(low), dirty(high)) == (0, 0)


def test_copies_to_a_truncated_file_count_the_bytes_that_fit(view: memoryview, directory: Path) -> None:
    end = PAGE_SIZE + 100
    os.truncate(directory / "file", end)
    target = view[PAGE_SIZE : PAGE_SIZE + 300]
    result = memcpy_flushcache(target, DATA[:300])
    assert (result.copied, result.fault and result.fault.cause) == (100, "gone")
    source = IovIter.iovec(WRITE, [DATA[:300]])
    assert copy_from_iter_flushcache(target, source) == 100
    assert (source.count, source.fault and source.fault.offset) == (200, 100)
    i = IovIter.kvec(READ, [bytearray(50), target])
    with pytest.raises(FaultError) as caught:
        copy_to_iter_flushcache(DATA, i)
    assert (caught.value.copied, caught.value.fault.side, i.count) == (150, "destination", 200)
    with pytest.raises(FaultError) as caught:
        pmem.persist(target)
    assert caught.value.copied == 100
    assert (directory / "file").read_bytes()[PAGE_SIZE:] == DATA[50:150]
    del i
    target.release()


def test_a_mapping_made_by_other_code_is_flushed_but_not_synced(region: PmemRegion, directory: Path) -> None:
    """As documented: the code that made the mapping must call msync."""
    with (directory / "file").open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapping:
        assert memcpy_flushcache(memoryview(mapping)[:100], DATA[:100]).copied == 100
        assert dirty(mapping) == PAGE_SIZE
        mapping.flush()
        assert dirty(mapping) == 0
    assert dirty(region) == 0


def read_flat(region: PmemRegion, offset: int, length: int) -> tuple[Any, bytes, int]:
    out = bytearray(length)
    result = region.read_into(offset, out)
    return result, bytes(out[: result.copied]), result.remaining


def read_iter(region: PmemRegion, offset: int, length: int) -> tuple[Any, bytes, int]:
    out = bytearray(length)
    i = IovIter.kvec(READ, [memoryview(out)[:7], memoryview(out)[7:]])
    result = region.read_into(offset, i)
    assert (result.fault and result.fault.offset) == (i.fault and i.fault.offset)
    return result, bytes(out[: result.copied]), i.count


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("read", [read_flat, read_iter])
@pytest.mark.parametrize("end", [PAGE_SIZE + 904, PAGE_SIZE, 1])
def test_a_region_reads_no_further_than_its_file(
    region: PmemRegion, directory: Path, read: Callable[..., Any], end: int
) -> None:
    """The page in which the file ends reads as zeroes behind the end."""
    region.write(0, DATA)
    os.truncate(directory / "file", end)
    for offset in (0, 100):
        result, data, left = read(region, offset, 3 * PAGE_SIZE)
        good = max(end - offset, 0)
        assert (result.copied, left) == (good, 3 * PAGE_SIZE - good)
        assert data == DATA[offset : offset + good]
        fault = result.fault
        assert (fault.side, fault.offset, fault.cause) == ("source", good, "gone")
        assert fault.address == address(region) + max(end, offset)
    assert len(region.fault_map) == 0
    os.truncate(directory / "file", SIZE)
    assert read(region, 0, SIZE)[0].remaining == 0
