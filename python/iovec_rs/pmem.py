"""Persistent memory: regions that outlive the process, what makes stores to them durable, and their bad blocks.

    with pmem.PmemRegion.open("/mnt/pmem/log", size=1 << 20, create=True) as region:
        region.write(0, i)  # all that an iterator holds, durable when it returns

`flush`, `drain` and `persist` are for stores made through views. On memory without a power-fail domain, as CXL memory
shared by several hosts, the same calls make stores visible to the others, and `invalidate` makes theirs visible here.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from iovec_rs import _badblocks, _core, _nvdimm
from iovec_rs._badblocks import ClearError
from iovec_rs._core import FaultMap, MappedRegion, RegionFile, Slot
from iovec_rs._log import PmemLog
from iovec_rs._types import CorruptError, Record, TornError

if TYPE_CHECKING:
    from typing import Self

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
    """A file or a DAX device mapped as persistent memory: a writable buffer, and a context manager that closes it.

    `granularity` says what makes a store through a view durable: `"byte"` nothing more, `"cache_line"` a flush of its
    lines, `"page"` an msync; `persist` does what it takes. `write` does it by itself. docs/durability.md has the table.
    A forked child may use a region: it opens the file again when it first makes something durable, which is an OSError
    if it may not.
    """

    __slots__ = ()

    @classmethod
    def open(
        cls,
        path: StrOrBytesPath,
        *,
        size: int | None = None,
        create: bool = False,
        offset: int = 0,
        writable: bool = True,
    ) -> Self:
        """Maps `size` bytes (all the rest by default) of a file on any file system, or of a device-DAX device.

        `create` makes the file if there is none, and makes it longer if it is too short for `size`. A writable file is
        given room for all of the region first, holes included: a full disk is an OSError here and never a fault later.
        ValueError: a size or an offset that the file has no bytes for, or that cannot be mapped. OSError: the file
        cannot be opened or mapped, or is no file. What is refused leaves the file's bytes and length as they were,
        unless another region of it is open or it was changed meanwhile: then a file that was made or lengthened stays
        so, for they may be using it. Holes that had got room by then may keep it.
        """
        name = os.fsdecode(path)
        with RegionFile(name, size=size, create=create, offset=offset, writable=writable) as file:
            is_device = file.character_device is not None
            file.reserve(_nvdimm.dax_device(file.device, name) if is_device else None)
            bad = _badblocks.of_descriptor(file.fileno())
            return cls(file, bad, _nvdimm.caches_persist("char" if is_device else "block", file.device))

    def refresh_badblocks(self) -> FaultMap:
        """Makes `fault_map` say what the system's list says now, and returns it. What copies ran into is forgotten."""
        with memoryview(self):  # The descriptor stays open: nobody can close the region meanwhile.
            self._set_known_bad(_badblocks.of_descriptor(self._fileno()))
        return self.fault_map

    def deep_flush(self) -> None:
        """Has what is durable leave the last buffers before the medium, for the case that their protection fails.

        msync and fsync of a file, the memory regions' own deep flush of a DAX device (which takes root). OSError if
        that fails, or if a write-back of the file has failed since this thread last called it, as for `persist`.
        FaultError, with `.copied`, if a guard has pages of it under zeroes: stores to those are lost.
        """
        self._sync_all()
        device = self._character_device
        if device is not None:
            drain()
            _nvdimm.deep_flush(device)

    if sys.version_info < (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """A view of it, as type checkers look for one in a buffer. Later interpreters have this of themselves."""
            if flags & _WRITABLE and not self.writable:
                raise BufferError("the region is read-only and cannot be a destination")
            return memoryview(self)


def flush(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Writes every cache line of `length` bytes (all the rest by default) from `offset` on back to memory.

    They have arrived when `drain` returns. In a region of granularity "page" that does not make them durable: `persist`
    does. ValueError if the range leaves the buffer, FaultError if its memory is bad.
    """
    _core.pmem_flush(buffer, offset, length)


def invalidate(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Writes the lines back and drops them from the caches, so that the next load sees memory.

    ValueError if the range leaves the buffer, FaultError if its memory is bad.
    """
    _core.pmem_invalidate(buffer, offset, length)


def flush_range(buffer: Buffer | UserRange, offset: int = 0, length: int = -1) -> None:
    """`invalidate` as maru's extension of that name is called: `length` -1 is all the rest.

    ValueError if the range leaves the buffer or `length` is below -1, FaultError if its memory is bad.
    """
    if isinstance(length, int) and length < -1:
        raise ValueError(f"length is {length}: expected 0 or more, or -1 for all the rest")
    _core.pmem_invalidate(buffer, offset, None if length == -1 else length)


def drain() -> None:
    """Waits until what was flushed before has arrived (a store fence)."""
    _core.pmem_drain()


def persist(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Makes what was stored to a range durable: `flush` and `drain`; msync if it is in a `PmemRegion` that needs that.

    Memory that others have mapped from a file without `MAP_SYNC` needs an msync, too, which is theirs to call.
    ValueError if the range leaves the buffer. FaultError if its memory is bad, or the file of its region has become too
    short. OSError if msync fails, or if a write-back of its region has failed since this thread last called this,
    whoever was told of it then: what it has stored to the region since is to be stored again.
    """
    _core.pmem_persist(buffer, offset, length)


def badblocks(path: StrOrBytesPath) -> FaultMap:
    """The bytes that the system knows to be bad, from its lists, without touching them: by offsets.

    Of a file: offsets in the file, found by its extents (FIEMAP) and its device's list. Of a block device or a
    partition: in it. Of a DAX device: in it. Of a `badblocks` file in sysfs: as it counts. Extents are whole sectors
    of 512 bytes. Where there is no list (most devices, device mapper and RAID, tmpfs) nothing is listed and the map is
    `.incomplete`: that nothing is known to be bad does not say that nothing is. It is so, too, if the kernel's list was
    full or cut, or if a part of the file cannot be looked up in it (compressed, encrypted, not written yet).

    OSError: no such file; the file system does not tell where the file lies, although its device has bad blocks.
    """
    return _badblocks.of_path(path)


def clear_badblocks(path: StrOrBytesPath) -> FaultMap:
    """Makes a file's bad blocks good again. THE DATA IN THEM ARE LOST, and so is all else in their pages.

    Every page of the file that a bad block is in is overwritten with zeroes, by write(2), which has the driver clear
    it as no store to a mapping would; fsync; and the list is read again. Rescue what can be read from these pages
    before. Returns the ranges that hold zeroes now. Without bad blocks nothing is written, and the map is empty.

    OSError: not a file, not writable, or a write failed; `ClearError` if something was zeroed by then, or if bytes
    are still bad, with what was in `.cleared`.
    """
    return _badblocks.clear(path)
