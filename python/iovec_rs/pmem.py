"""Persistent memory: mapped regions, making stores to them durable, logs, slots, and bad blocks.

    with pmem.PmemRegion.open("/mnt/pmem/log", size=1 << 20, create=True) as region:
        region.write(0, i)  # the rest of an iterator, durable when this returns

`flush`, `drain` and `persist` are for stores made through views of a region. On memory that does not survive a loss of
power, such as CXL memory shared by several hosts, `flush` and `drain` make stores visible to the other hosts, and
`invalidate` makes the other hosts' stores visible here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from iovec_rs import _badblocks, _core, _nvdimm
from iovec_rs._badblocks import ClearError
from iovec_rs._core import FaultMap, MappedRegion, RegionFile, Slot
from iovec_rs._log import PmemLog
from iovec_rs._names import file_name, require_open
from iovec_rs._types import CorruptError, Record, TornError

if TYPE_CHECKING:
    from typing import Any, Self

    from _typeshed import StrOrBytesPath
    from typing_extensions import Buffer

    from iovec_rs import UserRange

_WRITABLE = 1
"""PyBUF_WRITABLE."""

__all__ = [
    "ClearError",
    "CorruptError",
    "PmemLog",
    "PmemRegion",
    "Record",
    "Slot",
    "TornError",
    "badblocks",
    "clear_badblocks",
    "drain",
    "flush",
    "flush_range",
    "invalidate",
    "persist",
]


class PmemRegion(MappedRegion):
    """A file or a DAX device mapped as persistent memory. It is a writable buffer, and a context manager that closes
    it.

    `granularity` says which step makes a store through a view durable: `"byte"`, none; `"cache_line"`, a flush of its
    cache lines; `"page"`, an msync. `persist` takes that step, and `write` includes it. docs/durability.md has the
    table.

    A forked child may use a region. It opens the file again when it first makes bytes durable: OSError if it may not.
    """

    __slots__ = ()

    def __new__(cls, *opened: Any) -> Self:
        require_open(cls, opened, RegionFile)
        return super().__new__(cls, *opened)

    @classmethod
    def open(
        cls,
        path: StrOrBytesPath | int,
        *,
        size: int | None = None,
        create: bool = False,
        offset: int = 0,
        writable: bool = True,
    ) -> Self:
        """Maps `size` bytes (by default, the rest) from `offset` on of a file on any file system, or of a device-DAX
        device. `path` is a path or a descriptor, which may be closed afterwards: its file is opened anew, so the file's
        permissions count, and not how the descriptor was opened.

        With `create`, a missing file is created, and one too short for `size` is extended. Blocks for the whole region
        of a writable file, holes included, are allocated first, so a full disk is an OSError here and not a fault
        later.

        ValueError: a size or an offset outside the file, or that cannot be mapped. OSError: the file cannot be opened
        or mapped, or is neither a file nor device DAX. An error leaves the file's bytes and length as they were, except
        that a file created or extended stays so if another region of it is open or it has changed meanwhile, since
        others may be using it; and blocks allocated in holes may stay. Changes are told apart by the file's length and
        change time: bytes that another program, without a region, writes behind the old end within a tick of that clock
        or while the file is truncated again are lost with what was added.
        """
        name = file_name(path)
        with RegionFile(name, size=size, create=create, offset=offset, writable=writable) as file:
            is_device = file.character_device is not None
            file.reserve(_nvdimm.dax_device(file.device, name) if is_device else None)
            bad = _badblocks.of_descriptor(file.fileno())
            return cls(file, bad, _nvdimm.caches_persist("char" if is_device else "block", file.device))

    def refresh_badblocks(self) -> FaultMap:
        """Replaces the contents of `fault_map` by the system's current list, and returns it. Damage found by copies is
        forgotten.
        """
        with memoryview(self):  # The view keeps the region from being closed, so the descriptor stays open.
            self._set_known_bad(_badblocks.of_descriptor(self._fileno()))
        return self.fault_map

    def deep_flush(self) -> None:
        """Writes durable bytes on to the medium itself, out of the buffers before it, in case the power protection of
        those fails.

        For a file, msync and fsync; for a DAX device, the deep flush of its memory regions in sysfs, which needs root.
        OSError if that fails, or if a write-back of the file has failed since this thread last called it, as for
        `persist`. FaultError, with `.copied`, if a guard has replaced pages of the region by zeroes: stores to those
        are lost.
        """
        self._sync_all()
        device = self._character_device
        if device is not None:
            drain()
            _nvdimm.deep_flush(device)

    if sys.version_info < (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """A view, for type checkers that look for this method on buffers. Python 3.12 and later provide it."""
            if flags & _WRITABLE and not self.writable:
                raise BufferError("the region is read-only and cannot be a destination")
            return memoryview(self)


def flush(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Writes back the cache lines of `length` bytes (by default, the rest) from `offset` on.

    The write-backs are complete when `drain` returns. In a region of granularity "page" that does not make the bytes
    durable; `persist` does. ValueError if the range leaves the buffer, FaultError if its memory is bad.
    """
    _core.pmem_flush(buffer, offset, length)


def invalidate(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Writes cache lines back and removes them from the caches, so that the next load reads memory.

    ValueError if the range leaves the buffer, FaultError if its memory is bad.
    """
    _core.pmem_invalidate(buffer, offset, length)


def flush_range(buffer: Buffer | UserRange, offset: int = 0, length: int = -1) -> None:
    """`invalidate` with the signature of maru's function of this name: a `length` of -1 is the rest of the buffer.

    ValueError if the range leaves the buffer or `length` is below -1, FaultError if its memory is bad.
    """
    if isinstance(length, int) and length < -1:
        raise ValueError(f"length is {length}: expected 0 or more, or -1 for all the rest")
    _core.pmem_invalidate(buffer, offset, None if length == -1 else length)


def drain() -> None:
    """Waits until earlier flushes are complete (a store fence)."""
    _core.pmem_drain()


def persist(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Makes the stores to a range durable: with msync in a `PmemRegion` that needs it, with `flush` and `drain`
    elsewhere.

    A file mapped by other means (`mmap`) without `MAP_SYNC` needs an msync, too, which this does not make. ValueError
    if the range leaves the buffer. FaultError if its memory is bad, or the region's file was truncated. OSError if
    msync fails, or if any write-back of the region has failed since this thread last called this function, even if
    another caller got that error: then store again what this thread has stored to the region since.
    """
    _core.pmem_persist(buffer, offset, length)


def badblocks(path: StrOrBytesPath) -> FaultMap:
    """The bytes that the system's lists say are bad, as offsets. It does not access them.

    For a file, its extents (FIEMAP) are looked up in its device's list, and the offsets are those in the file. For a
    block device, a partition or a DAX device they are offsets in it; for a `badblocks` file in sysfs, as that counts.
    Ranges are whole sectors of 512 bytes.

    The map is `.incomplete` if more bytes may be bad than it lists: the device has no list (most devices, device mapper
    and RAID, tmpfs), the kernel's list was full or truncated, or a part of the file cannot be looked up (compressed,
    encrypted, not written yet).

    OSError: there is no such file, or its device has bad blocks and the file system does not report where the file
    lies.
    """
    return _badblocks.of_path(path)


def clear_badblocks(path: StrOrBytesPath) -> FaultMap:
    """Makes a file's bad blocks usable again. THE DATA IN THEM AND IN THE REST OF THEIR PAGES ARE LOST.

    Overwrites every page of the file that has a bad block with zeroes, calls fsync and reads the list again. It uses
    write(2), on which the driver clears the blocks; a store to a mapping would not. Copy what can be read from these
    pages elsewhere before. Returns the ranges that hold zeroes now; without bad blocks nothing is written and the map
    is empty.

    OSError: not a file, not writable, or a write failed. If ranges were zeroed before that, or if bytes are still bad
    afterwards, it is a `ClearError` with those ranges in `.cleared`.
    """
    return _badblocks.clear(path)
