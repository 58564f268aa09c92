"""Where on its device a file lies (`FS_IOC_FIEMAP`)."""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Extent", "extents"]

_FS_IOC_FIEMAP = 0xC020660B
_FLAG_SYNC = 1
_LAST = 1
# No place on the device yet, or none that holds the bytes as they are.
_ELSEWHERE = 0x2 | 0x4 | 0x8 | 0x80 | 0x100 | 0x200
# There is a place, but reads answer zeroes without going there, and it is cleared before it is used.
_UNWRITTEN = 0x800
_REQUEST = struct.Struct("=QQIIII")
_EXTENT = struct.Struct("=QQQ16xI12x")
_AT_ONCE = 256


class Extent(NamedTuple):
    """Bytes of a file that are in one piece on its device."""

    logical: int
    """Offset in the file."""
    physical: int
    """Offset on the block device the file system is on."""
    length: int


def extents(fd: int, start: int, length: int) -> Iterator[Extent]:
    """The written extents that touch the range, in order, after what is only in memory has been given its place.

    OSError ENOTTY or EOPNOTSUPP if the file system does not tell.
    """
    end = start + length
    while start < end:
        request = bytearray(_REQUEST.size + _AT_ONCE * _EXTENT.size)
        _REQUEST.pack_into(request, 0, start, end - start, _FLAG_SYNC, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, request)
        count = _REQUEST.unpack_from(request)[3]
        if not count:
            return
        for number in range(count):
            logical, physical, size, flags = _EXTENT.unpack_from(request, _REQUEST.size + number * _EXTENT.size)
            if not flags & (_ELSEWHERE | _UNWRITTEN):
                yield Extent(logical, physical, size)
            if flags & _LAST:
                return
            start = logical + size
