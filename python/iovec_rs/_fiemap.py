"""The extents of a file: where on its device its bytes are (`FS_IOC_FIEMAP`)."""

from __future__ import annotations

import errno
import fcntl
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Extent", "extents"]

_FS_IOC_FIEMAP = 0xC020660B
_FLAG_SYNC = 1
_LAST = 1
# FIEMAP_EXTENT_UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE and DATA_TAIL: the extent has no
# place on the device, or the place does not hold the file's bytes one after the other.
_NOT_PLACED = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200 | 0x400
_UNWRITTEN = 0x800
_REQUEST = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_AT_ONCE = 256


class Extent(NamedTuple):
    """Bytes of a file that are contiguous on its device."""

    logical: int
    """Offset in the file."""
    physical: int
    """Offset on the block device of the file system. It has no meaning unless `placed`."""
    length: int
    placed: bool = True
    """Whether the bytes on the device are those of the file. They are not if they are compressed, encrypted, stored in
    the file system's metadata, or not allocated yet.
    """
    written: bool = True
    """Whether a read accesses the device. If not, it returns zeroes, and the file system writes the place before its
    first use.
    """


def extents(fd: int, start: int, length: int) -> Iterator[Extent]:
    """Yields the extents that touch the range, in order. Dirty pages are written first, so that they have a place.

    OSError ENOTTY or EOPNOTSUPP if the file system does not support FIEMAP; EIO if its answer does not advance.
    """
    end = start + length
    while start < end:
        request = bytearray(_REQUEST.size + _AT_ONCE * _EXTENT.size)
        _REQUEST.pack_into(request, 0, start, end - start, _FLAG_SYNC, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, request)
        count = _REQUEST.unpack_from(request)[3]
        if not count:
            return
        reached = start
        for number in range(count):
            logical, physical, size, flags = _EXTENT.unpack_from(request, _REQUEST.size + number * _EXTENT.size)
            yield Extent(logical, physical, size, not flags & _NOT_PLACED, not flags & _UNWRITTEN)
            if flags & _LAST:
                return
            reached = max(reached, logical + size)
        if reached == start:
            raise OSError(errno.EIO, f"FIEMAP: no extent of the file reaches beyond offset {start}")
        start = reached
