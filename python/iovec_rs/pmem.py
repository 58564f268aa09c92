"""Persistent memory: regions that outlive the process, what makes stores to them durable, and their bad blocks.

    with pmem.PmemRegion.open("/mnt/pmem/log", size=1 << 20, create=True) as region:
        region.write(0, i)  # all that an iterator holds, durable when it returns

`flush`, `drain` and `persist` are for stores made through views. On memory without a power-fail domain, as CXL memory
shared by several hosts, the same calls make stores visible to the others, and `invalidate` makes theirs visible here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import _badblocks, _core
from iovec_rs._badblocks import ClearError
from iovec_rs._core import FaultMap, PmemRegion

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath
    from typing_extensions import Buffer

    from iovec_rs import UserRange

__all__ = ["ClearError", "PmemRegion", "badblocks", "clear_badblocks", "drain", "flush", "invalidate", "persist"]


def flush(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Writes every cache line of `length` bytes (all the rest by default) from `offset` on back to memory.

    They have arrived when `drain` returns. ValueError if the range leaves the buffer, FaultError if its memory is bad.
    """
    _core.pmem_flush(buffer, offset, length)


def invalidate(buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
    """Writes the lines back and drops them from the caches, so that the next load sees memory.

    ValueError if the range leaves the buffer, FaultError if its memory is bad.
    """
    _core.pmem_invalidate(buffer, offset, length)


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
