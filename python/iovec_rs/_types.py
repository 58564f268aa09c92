"""The plain values of the public surface: constants by name, records, the exception."""

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
    """What an iterator is in a transfer: `DEST` or `SOURCE`. `READ` and `WRITE` say the same of the file operation."""

    READ = 0
    """The kernel's word for `DEST`: the file operation reads."""
    WRITE = 1
    """The kernel's word for `SOURCE`: the file operation writes."""
    DEST = 0
    """Data goes to the iterator's memory (`ITER_DEST`)."""
    SOURCE = 1
    """Data comes from the iterator's memory (`ITER_SOURCE`)."""


DEST = Direction.DEST
SOURCE = Direction.SOURCE
READ = Direction.READ
WRITE = Direction.WRITE


class UserRange(NamedTuple):
    """A raw address range that may be anywhere: checked when it is imported, survived when it faults."""

    address: int
    length: int


class BioVec(NamedTuple):
    """A range in a page (`struct bio_vec`). `offset + length` may pass one page if the buffer does."""

    page: Buffer
    offset: int
    length: int


class PageSpan(NamedTuple):
    """Pages under the next bytes of an iterator."""

    pages: tuple[int, ...]
    """The address of each page."""
    offset0: int
    """Where in the first page the first byte is."""
    nbytes: int


class Fault(NamedTuple):
    """Why a copy came out short."""

    side: Literal["source", "destination"]
    offset: int
    """The first byte not copied, counted from the start of the copy."""
    address: int
    """Where the damaged extent begins."""
    length: int
    """How long it is: the range of a map, what the hardware reported, or the page. Where the file behind a mapping has
    become too short and 256 KiB or more were still to be copied, all that is gone up to the end of the mapping."""
    cause: Literal["poison", "gone", "protection", "unmapped", "bad_address", "unknown"]
    origin: Literal["map", "signal", "syscall"]
    signo: int
    si_code: int
    lsb: int


class FaultRange(NamedTuple):
    """Bytes known to be bad."""

    start: int
    length: int
    access: Literal["read", "write", "both"]
    """What must not be done to them."""


class McResult(NamedTuple):
    """What a flat copy came to: `copied + remaining` is what was asked for."""

    copied: int
    remaining: int
    fault: Fault | None


class FaultError(OSError):
    """Bad memory met where a short count cannot be reported. `copied` bytes were, and `fault` says what stopped it."""

    copied: int
    fault: Fault
    crc32c: int | None = None
    """Of a copy that sums what it copies: the sum of the `copied` bytes."""
    guard: Guard | None = None
    """The guard at whose end it was raised. It does not travel to other processes."""

    def __reduce__(self) -> tuple[type[FaultError], tuple[object, ...], dict[str, object]]:
        state = {name: value for name, value in vars(self).items() if name != "guard"}
        return type(self), (self.errno, self.strerror), state


class Record(NamedTuple):
    """Where a record of a `PmemLog` is."""

    sequence: int
    """Its number, from 0 on; never used again."""
    offset: int
    """Where its data begin in the region: a multiple of a cache line."""
    length: int
    """Bytes of data."""
    crc32c: int
    """The CRC-32C of the data."""


class CorruptError(OSError):
    """The bytes of a record are not those that were appended (errno EBADMSG)."""

    sequence: int
    """The record's number."""


class TornError(OSError):
    """A publication was changed each time it was read (errno EAGAIN): to be tried again."""
