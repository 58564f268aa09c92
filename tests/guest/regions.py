"""Regions over a real persistence domain: they are durable by cache lines, damaged by bad blocks, and repaired."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import iovec_rs.pmem
from iovec_rs import PAGE_SIZE, READ, WRITE, FaultError, FaultMap, IovIter, UserRange, fault_handler
from iovec_rs.pmem import PmemRegion

from guest import pmem
from guest.broken_user import MODES
from guest.dax import refused
from guest.harness import equal, test
from guest.memory import address_of, good, pattern
from guest.shapes import SHAPES, over

if TYPE_CHECKING:
    from pathlib import Path

    from guest.broken_user import Mode

LENGTH = 8 * PAGE_SIZE
BAD = 4 * PAGE_SIZE


def spoiled(directory: Path, *offsets: int, length: int = LENGTH) -> Path:
    """Makes a file with bad sectors at these offsets."""
    path = directory / "file"
    fd = pmem.create(path, pattern(length))
    for offset in offsets:
        pmem.spoil(fd, offset // pmem.SECTOR * pmem.SECTOR)
    os.close(fd)
    return path


def stretches(found: FaultMap, base: int = 0) -> list[tuple[int, int]]:
    return [(one.start - base, one.length) for one in found]


def address(region: PmemRegion) -> int:
    return IovIter.ubuf(WRITE, region).ranges()[0].address


@test()
def it_is_durable_by_lines_and_found_after_a_remount() -> None:
    with pmem.domain() as directory:
        path = directory / "new"
        with PmemRegion.open(path, size=LENGTH, create=True) as region:
            equal((region.granularity, region.is_map_sync), ("cache_line", True), "what it is")
            equal(region.write(5, pattern(LENGTH - 5)), LENGTH - 5, "written")
            view = memoryview(region)
            view[:5] = b"\xff" * 5
            region.persist(0, 5)
            iovec_rs.pmem.persist(view, 0, 5)
            view.release()
            region.deep_flush()
        pmem.remount()
        equal(path.read_bytes() == b"\xff" * 5 + pattern(LENGTH - 5), True, "content")


@test(kind=SHAPES)
def every_kind_is_written_and_found_after_a_remount(kind: str) -> None:
    with pmem.domain() as directory:
        path, source = directory / "new", good(LENGTH, pattern(LENGTH))
        with PmemRegion.open(path, size=LENGTH, create=True) as region:
            equal(region.write(77, over(kind, source, WRITE, 5, 5 * PAGE_SIZE)), 5 * PAGE_SIZE, "written")
        pmem.remount()
        want = bytes(77) + pattern(LENGTH)[5 : 5 + 5 * PAGE_SIZE]
        equal(path.read_bytes() == want.ljust(LENGTH, b"\0"), True, "content")


@test(mode=MODES)
def a_bad_sector_is_known_when_it_is_opened_and_not_touched(mode: Mode) -> None:
    with pmem.domain() as directory, fault_handler.mode(mode):
        path = spoiled(directory, BAD + 1000)
        with PmemRegion.open(path) as region:
            equal(stretches(region.fault_map, address(region)), [(BAD, PAGE_SIZE)], "the map")
            before, out = fault_handler.status().recovered, bytearray(LENGTH)
            result = region.read_into(0, out)
            equal((result.copied, result.fault and result.fault.origin), (BAD, "map"), "copied, origin")
            equal(out == pattern(LENGTH)[:BAD] + bytes(LENGTH - BAD), True, "content")
            equal(fault_handler.status().recovered, before, "faults recovered")
            # A bad block that the region does not know is found by the read, and the count is the same.
            region.fault_map.clear(0, 2**64)
            result = region.read_into(0, out)
            equal((result.copied, result.fault and result.fault.origin), (BAD, mode), "copied, origin")
            equal(stretches(region.fault_map, address(region)), [(BAD, PAGE_SIZE)], "the map")
            rest = bytearray(LENGTH - BAD - PAGE_SIZE)
            equal(region.read_into(BAD + PAGE_SIZE, IovIter.kvec(READ, [rest])).remaining, 0, "left behind it")
            equal(rest == pattern(LENGTH)[BAD + PAGE_SIZE :], True, "content behind it")


@test(mode=MODES)
def a_write_ends_at_the_bad_page_and_what_came_before_lasts(mode: Mode) -> None:
    data = pattern(2 * PAGE_SIZE, 2)
    with pmem.domain() as directory, fault_handler.mode(mode):
        path = spoiled(directory, BAD)
        with PmemRegion.open(path) as region:
            try:
                region.write(BAD - 100, data)
            except FaultError as error:
                equal((error.copied, error.fault.side, error.fault.offset), (100, "destination", 100), "error")
            else:
                raise AssertionError("no error")
            source = good(2 * PAGE_SIZE, data)
            i = IovIter.iovec(WRITE, [UserRange(address_of(source.view), 2 * PAGE_SIZE)])
            equal((region.write(BAD - 200, i), i.count), (200, 2 * PAGE_SIZE - 200), "copied, left")
        pmem.remount()
        with PmemRegion.open(path, writable=False) as region:
            out = bytearray(BAD)
            equal(region.read_into(0, out).copied, BAD, "read")
            equal(out == pattern(LENGTH)[: BAD - 200] + data[:200], True, "content")


@test()
def the_list_is_told_of_the_file_and_of_the_device() -> None:
    with pmem.domain() as directory:
        path = spoiled(directory, 700, BAD, BAD + 512)
        equal(stretches(iovec_rs.pmem.badblocks(path)), [(512, 512), (BAD, 1024)], "of the file")
        sectors = [(start * 512, count * 512) for start, count in pmem.bad_sectors()]
        equal(stretches(iovec_rs.pmem.badblocks(pmem.DEVICE)), sectors, "of the device")
        equal(stretches(iovec_rs.pmem.badblocks(pmem.SYSFS / "badblocks")), sectors, "the list")
        other = directory / "other"
        other.write_bytes(pattern(LENGTH))
        equal(stretches(iovec_rs.pmem.badblocks(other)), [], "of another file")


@test()
def a_file_in_scattered_pages_has_them_where_they_are() -> None:
    with pmem.domain() as directory:
        fd = pmem.scatter(directory / "file", pattern(LENGTH))
        for offset in (0, 3 * PAGE_SIZE + 512, LENGTH - 512):
            pmem.spoil(fd, offset)
        want = [(0, 512), (3 * PAGE_SIZE + 512, 512), (LENGTH - 512, 512)]
        equal(stretches(iovec_rs.pmem.badblocks(directory / "file")), want, "of the file")


@test()
def clearing_loses_the_pages_and_nothing_else() -> None:
    with pmem.domain() as directory:
        path = spoiled(directory, 700, BAD, BAD + PAGE_SIZE)
        region = PmemRegion.open(path)
        cleared = iovec_rs.pmem.clear_badblocks(path)
        equal(stretches(cleared), [(0, PAGE_SIZE), (BAD, 2 * PAGE_SIZE)], "cleared")
        equal((pmem.bad_sectors(), stretches(iovec_rs.pmem.badblocks(path))), ([], []), "bad sectors")
        want = bytearray(pattern(LENGTH))
        for start, length in stretches(cleared):
            want[start : start + length] = bytes(length)
        out = bytearray(LENGTH)
        region.refresh_badblocks()
        equal(region.read_into(0, out).remaining, 0, "left to read")
        equal((out == want, path.read_bytes() == want), (True, True), "content")
        equal(region.write(BAD, pattern(PAGE_SIZE)), PAGE_SIZE, "written where it was bad")
        equal(stretches(iovec_rs.pmem.clear_badblocks(path)), [], "cleared again")


@test()
def the_last_page_is_cleared_and_the_file_keeps_its_size() -> None:
    with pmem.domain() as directory:
        length = LENGTH - 300
        path = spoiled(directory, LENGTH - PAGE_SIZE + 5, length=length)
        cleared = iovec_rs.pmem.clear_badblocks(path)
        equal(stretches(cleared), [(LENGTH - PAGE_SIZE, PAGE_SIZE - 300)], "cleared")
        equal(stretches(iovec_rs.pmem.badblocks(path)), [], "bad bytes")
        want = pattern(length)[: LENGTH - PAGE_SIZE] + bytes(PAGE_SIZE - 300)
        equal(path.read_bytes() == want, True, "content")


@test()
def room_that_was_never_written_is_not_bad() -> None:
    """Reads of it give zeroes, and the first store makes the kernel clear the block."""
    with pmem.domain() as directory:
        path = directory / "new"
        PmemRegion.open(path, size=LENGTH, create=True).close()
        fd = os.open(path, os.O_RDWR)
        pmem.spoil(fd, BAD)
        os.close(fd)
        with PmemRegion.open(path) as region:
            equal(len(region.fault_map), 0, "known bad ranges")
            equal(region.read_into(0, bytearray(LENGTH)).remaining, 0, "left to read")
            equal(region.write(BAD, pattern(PAGE_SIZE)), PAGE_SIZE, "written")
            out = bytearray(PAGE_SIZE)
            equal((region.read_into(BAD, out).remaining, out == pattern(PAGE_SIZE)), (0, True), "read back")
        equal(pmem.bad_sectors(), [], "bad sectors")


@test()
def a_full_device_is_an_error_and_no_fault() -> None:
    with pmem.domain() as directory:
        refused(lambda: PmemRegion.open(directory / "new", size=256 << 20, create=True), errno.ENOSPC, "too big a file")
        equal([entry.name for entry in directory.iterdir()], ["lost+found"], "files")
