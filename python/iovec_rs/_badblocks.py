"""Bad blocks of files: looking them up in the system's lists, and clearing them."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import _core, _fiemap, _nvdimm
from iovec_rs._core import PAGE_SIZE, FaultMap

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

    from iovec_rs._fiemap import Extent

_SECTOR = 512
_ZEROES = bytes(1 << 20)
_PUNCH_HOLE = 0x2 | 0x1  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE


class ClearError(OSError):
    """Some bad blocks could not be cleared. `cleared` has the ranges that were zeroed, as `clear_badblocks` returns
    them.
    """

    cleared: FaultMap


def of_path(path: StrOrBytesPath) -> FaultMap:
    """See `iovec_rs.pmem.badblocks`."""
    name = os.fsdecode(path)
    status = os.stat(name)  # noqa: PTH116 - to pathlib "" is the current directory
    if stat.S_ISBLK(status.st_mode):
        return _of_disk(status.st_rdev)
    if stat.S_ISCHR(status.st_mode):
        return _of_dax(status.st_rdev, name)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENODEV, "a file, a block device or a DAX device is expected", name)
    if _is_list(name):
        return _read(Path(name))
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return of_descriptor(fd)
    finally:
        os.close(fd)


def of_descriptor(fd: int) -> FaultMap:
    """The bad bytes of an open file or DAX device, as offsets in it."""
    status = os.fstat(fd)
    if stat.S_ISCHR(status.st_mode):
        return _of_dax(status.st_rdev, f"descriptor {fd}")
    disk = _of_disk(status.st_dev)
    if not len(disk) or not status.st_size:
        return _core.fault_map_moved(disk, [])
    try:
        return _in_extents(disk, list(_fiemap.extents(fd, 0, status.st_size)), status.st_size)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            message = "there are bad blocks on its device, and the file system does not tell where the file lies"
            raise OSError(errno.EOPNOTSUPP, message) from error
        raise


def _in_extents(disk: FaultMap, extents: list[Extent], size: int) -> FaultMap:
    """The bad bytes of a file of `size` bytes. Incomplete if an extent cannot be looked up in the disk's list.

    A read of an unwritten extent does not access the disk, so no byte of it is bad now. But it may be written at any
    time: if its blocks are in the list, the map is incomplete.
    """
    inside = [extent for extent in extents if extent.logical < size]
    known = [extent for extent in inside if extent.placed and extent.written]
    unwritten = [_piece(extent, size) for extent in inside if extent.placed and not extent.written]
    is_unknown = not all(extent.placed and extent.length for extent in inside)
    is_unknown = is_unknown or len(_core.fault_map_moved(disk, unwritten)) > 0
    return _core.fault_map_moved(disk, [_piece(extent, size) for extent in known], is_unknown)


def _piece(extent: Extent, size: int) -> tuple[int, int, int]:
    return extent.physical, extent.logical, min(extent.length, size - extent.logical)


def _is_list(name: str) -> bool:
    path = Path(name).resolve()
    return path.name == "badblocks" and path.is_relative_to(_nvdimm.SYSFS.resolve())


def _read(path: Path) -> FaultMap:
    return FaultMap.from_badblocks(path.read_text(encoding="ascii"), sector_size=_SECTOR)


def _no_list() -> FaultMap:
    """The map of a device without a list: empty and incomplete, since nothing is known about its blocks."""
    return FaultMap.from_badblocks("\n")


def _of_disk(device: int) -> FaultMap:
    """The bad bytes of a whole disk or of a partition, as offsets in it. Stacked devices (device mapper, RAID) have no
    list.
    """
    directory = _nvdimm.directory_of("block", device)
    if directory is None:
        return _no_list()
    if (directory / "partition").is_file():
        start, size = (_nvdimm.number_in(directory / name) * _SECTOR for name in ("start", "size"))
        whole = directory.parent / "badblocks"
        return _core.fault_map_moved(_read(whole), [(start, 0, size)]) if whole.is_file() else _no_list()
    own = directory / "badblocks"
    return _read(own) if own.is_file() else _no_list()


def _of_dax(device: int, name: str) -> FaultMap:
    """The bad bytes of a DAX device. Its region's list counts from the start of the region, and the device's data begin
    at an offset in it, so both physical addresses are read from sysfs.
    """
    directory = _nvdimm.dax_directory(device, name)
    regions = [region for region in _nvdimm.regions_of(directory) if (region / "badblocks").is_file()]
    if not regions:
        return _no_list()
    (region,) = regions
    listed = _read(region / "badblocks")
    if not len(listed):
        return listed
    first = _nvdimm.number_in(region / "resource")
    for place in (directory, *directory.parents):
        if place == region:
            raise OSError(
                errno.ENODEV, f"no resource file says where in {region.name} it lies, which has bad blocks", name
            )
        if (place / "resource").is_file():
            data = _nvdimm.number_in(place / "resource")
            break
    if data < first:
        raise OSError(errno.EINVAL, f"begins at {data:#x}, before {region.name} at {first:#x}", name)
    size = _nvdimm.number_in(directory / "size")
    return _core.fault_map_moved(listed, [(data - first, 0, size)])


def clear(path: StrOrBytesPath) -> FaultMap:
    """See `iovec_rs.pmem.clear_badblocks`."""
    name = os.fsdecode(path)
    if not stat.S_ISREG(os.stat(name).st_mode):  # noqa: PTH116 - to pathlib "" is the current directory
        raise OSError(errno.ENODEV, "only bad blocks of files can be cleared, by writing to the file", name)
    fd = os.open(name, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        return _clear(fd, name)
    finally:
        os.close(fd)


def _clear(fd: int, name: str) -> FaultMap:
    size, cleared = os.fstat(fd).st_size, FaultMap()
    try:
        for start, end in _pages(of_descriptor(fd)):
            for at in range(start, min(end, size), len(_ZEROES)):
                stop = min(end, size, at + len(_ZEROES))
                _overwrite(fd, at, stop)
                cleared.add(at, stop - at)
        if len(cleared):
            os.fsync(fd)
            left = sum(found.length for found in of_descriptor(fd))
            if left:
                raise OSError(errno.EIO, f"{left} bytes are still bad after they were written", name)
    except OSError as error:
        if not len(cleared):
            raise
        failed = ClearError(error.errno, error.strerror, name)
        failed.cleared = cleared
        raise failed from error
    return cleared


def _pages(bad: FaultMap) -> list[tuple[int, int]]:
    """The pages with bad bytes, as `(start, end)`. Adjacent pages are joined."""
    stretches: list[tuple[int, int]] = []
    for found in bad:
        start = found.start // PAGE_SIZE * PAGE_SIZE
        end = -(-(found.start + found.length) // PAGE_SIZE) * PAGE_SIZE
        if stretches and start <= stretches[-1][1]:
            stretches[-1] = (stretches[-1][0], end)
        else:
            stretches.append((start, end))
    return stretches


def _overwrite(fd: int, start: int, end: int) -> None:
    """Writes zeroes from the start of a page on. Only a write of a whole page clears bad blocks, so the page in which
    the file ends is deallocated first and gets a new block.
    """
    whole = end // PAGE_SIZE * PAGE_SIZE
    if whole < end:
        _give_up(fd, whole)
    at = start
    while at < end:
        stop = whole if at < whole else end
        at += os.pwrite(fd, memoryview(_ZEROES)[: stop - at], at)


def _give_up(fd: int, page: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.fallocate(fd, _PUNCH_HOLE, ctypes.c_int64(page), ctypes.c_int64(PAGE_SIZE)):
        number = ctypes.get_errno()
        raise OSError(number, f"the file's last page cannot be given up: {os.strerror(number)}")
