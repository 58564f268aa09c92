"""Storage that fails under a mapping: on a full disk stores fault, and after an I/O error loads fault. In neither case
is the file too short.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    FaultMap,
    IovIter,
    copy_from_iter,
    copy_to_iter,
    copy_to_iter_mcsafe,
    memcpy_mcsafe,
)
from support.failing_disk import content, full_disk, unreadable_disk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from iovec_rs import Fault

ROOM, PAGES = 16, 256
DATA = bytes(range(1, 256)) * (PAGES * PAGE_SIZE // 255 + 1)
DATA = DATA[: PAGES * PAGE_SIZE]
BAD = (3, 4, 5, 100, 255)

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with full_disk(tmp_path, ROOM) as where:
            yield where
    except PermissionError as error:
        pytest.skip(f"mounting takes root: {error}")


@pytest.fixture
def sparse(disk: Path) -> mmap.mmap:
    """A mapped sparse file that is longer than the disk has room for."""
    fd = os.open(disk / "sparse", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, len(DATA))
    mapping = mmap.mmap(fd, len(DATA), mmap.MAP_SHARED)
    os.close(fd)
    return mapping  # iterators over it may outlive the test, in a traceback


def stored(disk: Path, nbytes: int) -> bytes:
    with (disk / "sparse").open("rb") as file:
        return file.read(nbytes)


def expect_full(fault: Fault | None, mapping: mmap.mmap, page: int) -> None:
    """Checks that the fault's extent is the one page without room, since the file extends further."""
    assert fault is not None
    address = IovIter.ubuf(READ, mapping).ranges()[0].address
    assert (fault.side, fault.cause, fault.offset) == ("destination", "gone", page * PAGE_SIZE)
    assert (fault.address, fault.length) == (address + page * PAGE_SIZE, PAGE_SIZE)


def test_a_copy_onto_a_full_disk_stops_at_the_last_page_there_was_room_for(disk: Path, sparse: mmap.mmap) -> None:
    known = FaultMap()
    copied, remaining, fault = memcpy_mcsafe(sparse, DATA, fault_map=known)
    assert (copied, remaining) == (ROOM * PAGE_SIZE, len(DATA) - ROOM * PAGE_SIZE)
    expect_full(fault, sparse, ROOM)
    assert [(found.length, found.access) for found in known] == [(PAGE_SIZE, "write")]
    assert stored(disk, copied) == DATA[:copied]


def test_an_iterator_over_it_comes_short_and_goes_on_once_there_is_room(disk: Path, sparse: mmap.mmap) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(6 * PAGE_SIZE))
    target = IovIter.iovec(READ, [memoryview(sparse)[at : at + 5000] for at in range(0, len(sparse), 5000)])
    copied = copy_to_iter_mcsafe(DATA, target)
    assert copied == (ROOM - 6) * PAGE_SIZE
    expect_full(target.fault, sparse, ROOM - 6)
    ballast.unlink()
    assert copy_to_iter(DATA[copied:], target) == 6 * PAGE_SIZE
    assert target.count == len(DATA) - ROOM * PAGE_SIZE
    assert stored(disk, ROOM * PAGE_SIZE) == DATA[: ROOM * PAGE_SIZE]
    target.revert(ROOM * PAGE_SIZE)
    assert target.zero() == ROOM * PAGE_SIZE
    assert stored(disk, ROOM * PAGE_SIZE) == bytes(ROOM * PAGE_SIZE)


def test_trusted_memory_on_it_raises_with_the_count(disk: Path, sparse: mmap.mmap) -> None:
    target = IovIter.kvec(READ, [sparse])
    with pytest.raises(FaultError) as raised:
        copy_to_iter(DATA, target)
    assert raised.value.copied == ROOM * PAGE_SIZE
    expect_full(raised.value.fault, sparse, ROOM)
    assert target.count == len(DATA) - ROOM * PAGE_SIZE
    assert stored(disk, ROOM * PAGE_SIZE) == DATA[: ROOM * PAGE_SIZE]


def test_flat_memory_on_it_is_filled_as_far_as_it_goes(disk: Path, sparse: mmap.mmap) -> None:
    source = IovIter.iovec(WRITE, [DATA[:70_001], DATA[70_001:]])
    assert copy_from_iter(sparse, source) == ROOM * PAGE_SIZE
    expect_full(source.fault, sparse, ROOM)
    assert source.count == len(DATA) - ROOM * PAGE_SIZE
    assert stored(disk, ROOM * PAGE_SIZE) == DATA[: ROOM * PAGE_SIZE]


@pytest.fixture
def unreadable(tmp_path: Path) -> Iterator[mmap.mmap]:
    try:
        with unreadable_disk(tmp_path, PAGES, BAD) as path:
            with path.open("rb") as file:
                mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            yield mapping
    except PermissionError as error:
        pytest.skip(f"mounting takes root: {error}")


def test_all_that_an_unreadable_disk_still_gives_is_saved(unreadable: mmap.mmap) -> None:
    """Some neighbouring pages are bad and a hundred behind them are good. Each bad page is reported alone."""
    base = IovIter.ubuf(WRITE, unreadable).ranges()[0].address
    saved, known, at, calls = bytearray(b"\xff" * len(unreadable)), FaultMap(), 0, 0
    with memoryview(unreadable) as source, memoryview(saved) as target:
        while at < len(source):
            copied, _, fault = memcpy_mcsafe(target[at:], source[at:], fault_map=known)
            at += copied
            calls += 1
            if fault is not None:
                assert (fault.side, fault.cause, fault.offset) == ("source", "gone", copied)
                assert (fault.address - base, fault.length) == (at, PAGE_SIZE)
                at += fault.length
    assert calls == len(BAD)
    assert [(found.start - base, found.length) for found in known] == [
        (3 * PAGE_SIZE, 3 * PAGE_SIZE),
        (100 * PAGE_SIZE, PAGE_SIZE),
        (255 * PAGE_SIZE, PAGE_SIZE),
    ]
    whole = b"".join(b"\xff" * PAGE_SIZE if page in BAD else content(page) for page in range(PAGES))
    assert saved == whole


def test_an_iterator_over_an_unreadable_file_stops_at_each_bad_page(unreadable: mmap.mmap) -> None:
    source = IovIter.ubuf(WRITE, unreadable)
    out = bytearray(len(unreadable))
    assert copy_from_iter(out, source) == 3 * PAGE_SIZE
    assert source.fault is not None
    assert (source.fault.side, source.fault.cause, source.fault.length) == ("source", "gone", PAGE_SIZE)
    source.advance(3 * PAGE_SIZE)
    assert copy_from_iter(out, source) == 94 * PAGE_SIZE
    assert source.count == (PAGES - 100) * PAGE_SIZE
