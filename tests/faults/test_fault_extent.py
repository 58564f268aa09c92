"""The extent of a fault: in a mapping whose file was truncated, everything behind the file's end is one extent."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultMap,
    IovIter,
    UserRange,
    copy_from_iter,
    copy_to_iter,
    copy_to_iter_mcsafe,
    fault_handler,
    memcpy_mcsafe,
    testing,
)
from support import mapping

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE = 0x2000_0000_0000
PAGES = 200
LEAST = 64
"""The extent is looked up only if at least this many pages of a copy are left."""
_libc = ctypes.CDLL(None, use_errno=True)


class Part(NamedTuple):
    """A part of the address range: pages of the file that is truncated, or other memory."""

    npages: int
    first: int | None = None
    """The page of the file at which it begins; None for anonymous memory."""


class Layout(NamedTuple):
    parts: tuple[Part, ...]
    size: int
    """The size of the file after the truncation, in bytes."""
    good: int
    """The number of readable pages before the first that is gone."""
    end: int
    """The number of the page at which the extent ends."""
    flags: int = mmap.MAP_SHARED


ONE = (Part(PAGES, 0),)
LAYOUTS = {
    "cut to some pages": Layout(ONE, 3 * PAGE_SIZE, 3, PAGES),
    "cut within a page": Layout(ONE, 3 * PAGE_SIZE + 100, 4, PAGES),
    "cut to nothing": Layout(ONE, 0, 0, PAGES),
    "private": Layout(ONE, 3 * PAGE_SIZE, 3, PAGES, mmap.MAP_PRIVATE),
    "mapped from its fifth page on": Layout((Part(PAGES, 5),), 7 * PAGE_SIZE, 2, PAGES),
    "cut before the mapping": Layout((Part(PAGES, 5),), 2 * PAGE_SIZE, 0, PAGES),
    "followed by good memory": Layout((Part(120, 0), Part(80)), 3 * PAGE_SIZE, 3, 120),
    "with a good page in it": Layout((Part(90, 0), Part(1), Part(109, 91)), 3 * PAGE_SIZE, 3, 90),
    "with its beginning behind its end": Layout((Part(100, 100), Part(100, 0)), 120 * PAGE_SIZE, 20, 100),
    "its parts in order": Layout((Part(100, 0), Part(100, 100)), 20 * PAGE_SIZE, 20, PAGES),
    "just enough is left": Layout(ONE, (PAGES - LEAST) * PAGE_SIZE, PAGES - LEAST, PAGES),
    "too little is left": Layout(ONE, (PAGES - LEAST + 1) * PAGE_SIZE, PAGES - LEAST + 1, PAGES - LEAST + 2),
}


@contextmanager
def laid_out(layout: Layout, fd: int) -> Iterator[int]:
    """Maps the parts one behind the other, and yields their address."""
    os.ftruncate(fd, 2 * PAGES * PAGE_SIZE)
    at = BASE
    for part in layout.parts:
        anonymous = part.first is None
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS if anonymous else layout.flags
        offset = 0 if part.first is None else part.first * PAGE_SIZE
        length = part.npages * PAGE_SIZE
        mapping.map_at(at, length, flags, -1 if anonymous else fd, offset)
        ctypes.memset(at, 1 + len(layout.parts), length)
        at += length
    os.ftruncate(fd, layout.size)
    try:
        yield BASE
    finally:
        mapping.unmap(BASE, at - BASE)


def readable(address: int) -> bool:
    return copy_from_iter(bytearray(1), IovIter.ubuf(WRITE, UserRange(address, 1))) == 1


@contextmanager
def unprivileged() -> Iterator[None]:
    """Takes from this thread the privilege to follow links in /proc/self/map_files, which only root has."""
    header = struct.pack("Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    assert _libc.capget(header, held) == 0
    words = list(struct.unpack("6I", held.raw))
    words[0] &= ~(1 << 21)  # CAP_SYS_ADMIN
    words[3] &= ~(1 << 40 - 32)  # CAP_CHECKPOINT_RESTORE
    assert _libc.capset(header, struct.pack("6I", *words)) == 0
    try:
        yield
    finally:
        assert _libc.capset(header, held.raw) == 0


@pytest.fixture(params=[False, True], ids=["as it is", "unprivileged"])
def _privilege(request: pytest.FixtureRequest) -> Iterator[None]:
    if not request.param:
        yield
        return
    with unprivileged():
        yield


@pytest.fixture(scope="module")
def room() -> memoryview:
    return memoryview(mmap.mmap(-1, PAGES * PAGE_SIZE))


@pytest.fixture
def file() -> Iterator[int]:
    fd = os.memfd_create("cut")
    yield fd
    os.close(fd)


@pytest.mark.usefixtures("way", "_privilege")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_extent_reaches_the_end_of_the_mapping_and_no_good_byte(
    layout: Layout, room: memoryview, file: int
) -> None:
    length = PAGES * PAGE_SIZE
    with laid_out(layout, file) as address:
        expected = (address + layout.good * PAGE_SIZE, (layout.end - layout.good) * PAGE_SIZE)
        known = FaultMap()
        result = memcpy_mcsafe(room, UserRange(address, length), fault_map=known)
        assert result.copied == layout.good * PAGE_SIZE
        assert result.fault is not None
        assert (result.fault.address, result.fault.length) == expected
        assert (result.fault.side, result.fault.cause) == ("source", "gone")
        assert list(known) == [(*expected, "read")]
        pages = range(address, address + length, PAGE_SIZE)
        assert not any(readable(page) for page in pages if page in known)
        assert all(readable(page) for page in pages[: layout.good])

        target = IovIter.iovec(READ, [UserRange(address, length)])
        assert copy_to_iter(room, target) == layout.good * PAGE_SIZE
        assert target.fault is not None
        assert (target.fault.address, target.fault.length) == expected
        assert (target.fault.side, target.fault.cause) == ("destination", "gone")
        assert target.zero() == 0
        assert target.fault is not None
        assert target.fault.address == expected[0]


@pytest.mark.usefixtures("way")
def test_what_is_left_counts_for_the_whole_copy_not_for_its_segments(room: memoryview, file: int) -> None:
    layout = LAYOUTS["cut to some pages"]
    parts = [room[at : at + 777] for at in range(0, len(room), 777)]
    with laid_out(layout, file) as address:
        target = IovIter.kvec(READ, parts)
        known = FaultMap()
        assert copy_to_iter_mcsafe(UserRange(address, len(room)), target, fault_map=known) == 3 * PAGE_SIZE
        assert list(known) == [(address + 3 * PAGE_SIZE, (PAGES - 3) * PAGE_SIZE, "read")]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("piece", [1 << 18, 1 << 20, 1 << 30])
def test_a_gigabyte_that_is_gone_is_known_after_a_handful_of_faults(piece: int) -> None:
    """A program that continues behind each fault passes the gap after few faults, whatever the size of its copies."""
    size, keep, calls = 1 << 30, 5 * PAGE_SIZE, 0
    with testing.truncated(size // PAGE_SIZE, keep // PAGE_SIZE) as source, mmap.mmap(-1, size) as target:
        base = source.address
        known = FaultMap()
        at = saved = 0
        before = fault_handler.status().recovered
        with source.buffer as src, memoryview(target) as dst:
            while at < size:
                copied, _, fault = memcpy_mcsafe(dst[at : at + piece], src[at : at + piece], fault_map=known)
                saved += copied
                at += copied
                calls += 1
                if fault is not None:
                    at = fault.address + fault.length - base
        assert (saved, at) == (keep, size)
        assert list(known) == [(base + keep, size - keep, "read")]
        assert calls <= 3
        assert fault_handler.status().recovered - before <= 3


def _measured(address: int, room: memoryview) -> int:
    """The number of pages in the extent that a copy of all the memory reports."""
    fault = memcpy_mcsafe(room, UserRange(address, len(room))).fault
    assert fault is not None
    assert (fault.address - address) % PAGE_SIZE == 0
    return fault.length // PAGE_SIZE


def test_a_file_is_found_by_its_path_by_a_descriptor_or_not_at_all(tmp_path: Path, room: memoryview) -> None:
    """If the file cannot be found, the extent is the page that faulted. Root can always find it through the mapping."""
    layout = LAYOUTS["cut to some pages"]
    whole = PAGES - layout.good
    path, other = tmp_path / "a name with  spaces", tmp_path / "other"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    with laid_out(layout, fd) as address, unprivileged():
        spare = os.dup(fd)
        os.close(fd)
        assert _measured(address, room) == whole
        path.unlink()
        path.with_name(f"{path.name} (deleted)").touch()  # the name that /proc/self/maps now has for it
        assert _measured(address, room) == whole, "by the descriptor"
        os.close(spare)
        assert _measured(address, room) == 1, "not at all"

    fd = os.open(other, os.O_RDWR | os.O_CREAT)
    with laid_out(layout, fd) as address, unprivileged():
        os.close(fd)
        assert _measured(address, room) == whole, "by the path"


def test_a_file_that_has_grown_again_is_gone_only_where_it_still_is(room: memoryview, file: int) -> None:
    with laid_out(LAYOUTS["cut to some pages"], file) as address:
        assert _measured(address, room) == PAGES - 3
        os.ftruncate(file, 50 * PAGE_SIZE)
        assert _measured(address, room) == PAGES - 50
