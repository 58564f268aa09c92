"""The plain values of the public API: named constants, records, exceptions."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from iovec_rs._core import Guard

__all__ = [
    "DEST",
    "READ",
    "SOURCE",
    "WRITE",
    "BioVec",
    "CorruptError",
    "Direction",
    "Fault",
    "FaultError",
    "FaultRange",
    "McResult",
    "PageSpan",
    "Record",
    "TornError",
    "UserRange",
]


class Direction(IntEnum):
    """Whether an iterator is the destination or the source of a transfer: `DEST` or `SOURCE`.

    `READ` and `WRITE` are the kernel's names for the same two values, after the file operation: a read fills the
    iterator."""

    READ = 0
    """The kernel's name for `DEST`: the file operation reads."""
    WRITE = 1
    """The kernel's name for `SOURCE`: the file operation writes."""
    DEST = 0
    """Data goes to the iterator's memory (`ITER_DEST`)."""
    SOURCE = 1
    """Data comes from the iterator's memory (`ITER_SOURCE`)."""


DEST = Direction.DEST
SOURCE = Direction.SOURCE
READ = Direction.READ
WRITE = Direction.WRITE


class UserRange(NamedTuple):
    """A range of raw addresses, in bytes. It may be anywhere: an import checks that it is in user space, and a copy
    survives a fault in it. No object keeps the memory alive.
    """

    address: int
    length: int


class BioVec(NamedTuple):
    """`length` bytes from `offset` on in a page (`struct bio_vec`). The range may extend over several pages if `page`
    does.
    """

    page: Buffer
    offset: int
    length: int


class PageSpan(NamedTuple):
    """The pages that hold the next bytes of an iterator."""

    pages: tuple[int, ...]
    """The address of each page."""
    offset0: int
    """The offset of the first byte in the first page."""
    nbytes: int


class Fault(NamedTuple):
    """Why a copy was short."""

    side: Literal["source", "destination"]
    offset: int
    """The first byte not copied, counted from the start of the copy."""
    address: int
    """The first address of the damaged extent."""
    length: int
    """The length of the damaged extent in bytes: of the `FaultMap`'s range, of what the hardware reported, or of the
    page. If a mapped file was truncated and 256 KiB or more were still to be copied, everything up to the end of the
    mapping.
    """
    cause: Literal["poison", "gone", "protection", "unmapped", "bad_address", "unknown"]
    origin: Literal["map", "signal", "syscall"]
    signo: int
    si_code: int
    lsb: int


class FaultRange(NamedTuple):
    """`length` bytes from `start` on that are known to be bad."""

    start: int
    length: int
    access: Literal["read", "write", "both"]
    """The access that fails."""


class McResult(NamedTuple):
    """The result of a flat copy, in bytes. `copied + remaining` is the length requested."""

    copied: int
    remaining: int
    fault: Fault | None


class FaultError(OSError):
    """A copy ran into bad memory, and its function does not report that by a short count. `copied` is the number of
    bytes copied before, and `fault` says what stopped the copy. The errno follows from the cause: EHWPOISON, EIO,
    EACCES or EFAULT.
    """

    copied: int
    fault: Fault
    crc32c: int | None = None
    """The CRC-32C of the `copied` bytes, if the function computes one."""
    guard: Guard | None = None
    """The guard whose block ended with this error. It is left out when the error is pickled."""

    def __reduce__(self) -> tuple[type[FaultError], tuple[object, ...], dict[str, object]]:
        state = {name: value for name, value in vars(self).items() if name != "guard"}
        return type(self), (self.errno, self.strerror), state


class Record(NamedTuple):
    """The place of a record in a `PmemLog`."""

    sequence: int
    """Its number. Numbers begin at 0 and are never reused."""
    offset: int
    """The offset of its data in the region, a multiple of the cache line."""
    length: int
    """Bytes of data."""
    crc32c: int
    """The CRC-32C of the data."""


class CorruptError(OSError):
    """The bytes of a record differ from those that were appended (errno EBADMSG)."""

    sequence: int
    """The record's number."""


class TornError(OSError):
    """The writer changed a publication during every attempt to read it (errno EAGAIN). Try again."""
