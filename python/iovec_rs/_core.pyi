"""The compiled core. Import these names from `iovec_rs`."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Final, Literal, Never, Protocol, Self, SupportsIndex, final, overload

from typing_extensions import Buffer, disjoint_base

from iovec_rs._types import Direction, Fault, FaultRange, McResult, PageSpan, Record, UserRange

__all__ = [
    "CACHE_LINE_SIZE",
    "MAX_RW_COUNT",
    "PAGE_SIZE",
    "UIO_FASTIOV",
    "UIO_MAXIOV",
    "FaultMap",
    "FolioQueue",
    "Guard",
    "IovIter",
    "IovecArray",
    "IterKind",
    "IterState",
    "LeastCopy",
    "LeastSlot",
    "LeastSum",
    "LogRecords",
    "MappedFile",
    "MappedLog",
    "MappedRegion",
    "PipeRing",
    "RangeResults",
    "RegionFile",
    "Slot",
    "XArray",
    "__version__",
    "close_received",
    "copy_from_iter",
    "copy_from_iter_flushcache",
    "copy_from_iter_full",
    "copy_from_iter_full_nocache",
    "copy_from_iter_nocache",
    "copy_iter",
    "copy_page_from_iter",
    "copy_page_from_iter_atomic",
    "copy_page_to_iter",
    "copy_ranges",
    "copy_to_iter",
    "copy_to_iter_flushcache",
    "copy_to_iter_full",
    "copy_to_iter_mcsafe",
    "cpu_features",
    "crc32c",
    "crc32c_and_copy_from_iter",
    "crc32c_and_copy_from_iter_flushcache",
    "crc32c_and_copy_to_iter",
    "crc32c_and_copy_to_iter_mcsafe",
    "crc32c_and_memcpy_flushcache",
    "crc32c_and_memcpy_mcsafe",
    "crc32c_combine",
    "csum_and_copy_from_iter",
    "csum_and_copy_from_iter_full",
    "csum_and_copy_to_iter",
    "fault_handler_install",
    "fault_handler_mode",
    "fault_handler_set_mode",
    "fault_handler_status",
    "fault_handler_uninstall",
    "fault_map_moved",
    "flush_instruction",
    "flush_instructions",
    "guard",
    "hash_and_copy_to_iter",
    "import_iovec",
    "import_single_range",
    "import_ubuf",
    "iovec_from_user",
    "isa",
    "isas",
    "keeps_messages",
    "least_copy",
    "least_slot",
    "least_sum",
    "machine_limits",
    "memcpy_flushcache",
    "memcpy_mcsafe",
    "memcpy_nocache",
    "pmem_drain",
    "pmem_flush",
    "pmem_invalidate",
    "pmem_persist",
    "preadv",
    "preadv_all",
    "process_vm_readv",
    "process_vm_writev",
    "pwritev",
    "pwritev_all",
    "readv",
    "readv_all",
    "readv_part",
    "recvmsg_all",
    "recvmsg_part",
    "recvmsg_raw",
    "sendmsg_all_raw",
    "sendmsg_raw",
    "tuning",
    "use_flush_instruction",
    "use_isa",
    "use_tuning",
    "vmsplice",
    "writev",
    "writev_all",
    "writev_part",
]

__version__: Final[str]
PAGE_SIZE: Final[int]
CACHE_LINE_SIZE: Final[int]
MAX_RW_COUNT: Final[int]
UIO_MAXIOV: Final[int]
UIO_FASTIOV: Final[int]

class _Hash(Protocol):
    def update(self, data: memoryview, /) -> object: ...

class _Fileno(Protocol):
    def fileno(self) -> int: ...

_Uvector = Iterable[Buffer | UserRange] | Buffer | int

def cpu_features() -> dict[str, bool]:
    """The CPU features that this package makes use of, each with whether the CPU has it."""

def isa() -> str:
    """The instruction set in use."""

def isas() -> list[str]:
    """The instruction sets that this CPU can run, the widest one last."""

def use_isa(name: str) -> None:
    """Uses the named instruction set from now on, in all threads. ValueError if the CPU has no such set."""

def machine_limits(nbytes: int) -> tuple[float, float, float] | None:
    """Measures how fast this machine loads and stores over `nbytes` of memory, in bytes per nanosecond: reads, writes,
    and non-temporal writes. `None` if that cannot be measured.
    """

@final
class LeastCopy:
    """Memory of its own, half of which is copied to the other half by the fastest way that is known for this CPU.
    Benches show it beside copies that have to do more.
    """

    def run(self, nbytes: int) -> None:
        """Copies it once, in pieces of `nbytes`."""

def least_copy(nbytes: int) -> LeastCopy | None:
    """A copy of `nbytes`. `None` if no way is known that is faster than this package's, or if there is not enough
    memory.
    """

@final
class LeastSlot:
    """Memory of its own in which something is published and consumed with the least work that this takes. Benches show
    it beside a `Slot`, which has to do more.
    """

    def publish(self) -> None:
        """Publishes once."""

    def consume(self) -> None:
        """Consumes once."""

def least_slot(nbytes: int) -> LeastSlot | None:
    """For `nbytes`. `None` if this CPU cannot evict lines, or if there is not enough memory."""

@final
class LeastSum:
    """Memory of its own, which is copied and summed, one place after the other, with the least work that this takes.
    Benches show it beside copies that have to do more.
    """

    def run(self) -> None:
        """Copies and sums once, at the next place."""

def least_sum(nbytes: int, places: int) -> LeastSum | None:
    """Copies of `nbytes` at so many places. `None` if the instruction set in use has no routine for it, or if there is
    not enough memory.
    """

def tuning() -> str:
    """The lengths from which copies use another method, as a text that `use_tuning` accepts."""

def use_tuning(name: str) -> None:
    """Uses the lengths that a text names from now on, in all threads. ValueError says what is wrong with the text."""

def flush_instruction() -> str | None:
    """The instruction that writes cache lines back, or `None` if this CPU has none."""

def flush_instructions() -> list[str]:
    """The write-back instructions that this CPU has, the best one last."""

def use_flush_instruction(name: str) -> None:
    """Writes cache lines back with the named instruction from now on, in all threads. ValueError if the CPU does not
    have it.
    """

def pmem_flush(buffer: Buffer | UserRange, offset: int | None = None, length: int | None = None) -> None:
    """Writes back the cache lines of `buffer[offset:offset + length]`, without a fence: call `pmem_drain` once after
    several of these. `FaultError`, with the number of bytes written back, if the memory is bad.
    """

def pmem_persist(buffer: Buffer | UserRange, offset: int | None = None, length: int | None = None) -> None:
    """Makes `buffer[offset:offset + length]` durable: by an msync if the memory is in a `PmemRegion` that needs one,
    otherwise by `pmem_flush` and `pmem_drain`.
    """

def pmem_invalidate(buffer: Buffer | UserRange, offset: int | None = None, length: int | None = None) -> None:
    """Evicts the cache lines of `buffer[offset:offset + length]` from the CPU's caches. The next read then comes from
    the memory, which a device or another host may have written to directly.
    """

def pmem_drain() -> None:
    """Waits until every earlier write-back and non-temporal store has left the CPU's caches: a store fence."""

def fault_handler_install() -> None:
    """Installs the handler for SIGBUS and SIGSEGV, in front of any other."""

def fault_handler_uninstall() -> None:
    """Restores the earlier handler of each signal that is still handled by ours, after waiting until no other thread is
    in a copy. `RuntimeError` while a guard is entered, because a guard needs the handler.
    """

def fault_handler_mode() -> str:
    """The mode in which faults are handled."""

def fault_handler_set_mode(name: str) -> None:
    """Sets the mode in which faults are handled from now on."""

def fault_handler_status() -> tuple[
    Literal["auto", "signal", "syscall"],
    bool,
    Literal["ours", "default", "ignored", "foreign"],
    Literal["ours", "default", "ignored", "foreign"],
    int,
]:
    """Returns the mode, whether the handler is installed, who owns SIGBUS, who owns SIGSEGV, and how many faults were
    recovered so far.
    """

@final
class FaultMap:
    """Ranges of bad bytes, in the address space or in anything else with up to 2**64 bytes. They are sorted, merged,
    and do not overlap.

    A copy that gets a map stops before its ranges, and adds memory that faults. A range takes 16 to 32 bytes of memory,
    and twice that if it is bad both to read and to write. `MemoryError` if there is no memory: then the map is
    unchanged.
    """

    def __new__(cls, ranges: Iterable[tuple[int, int] | FaultRange] = ()) -> Self: ...
    @property
    def incomplete(self) -> bool:
        """Whether more bytes may be bad than the map has, because the list that it was made from was full or truncated,
        or because there is no list.
        """
    def add(self, start: int, length: int, access: str = "read") -> None:
        """Marks `length` bytes from `start` on as bad for `access`, in addition to what they are bad for already."""
    def clear(self, start: int, length: int) -> None:
        """Marks `length` bytes from `start` on as good."""
    def poison(
        self, buffer: Buffer | UserRange, offset: int = 0, length: int | None = None, access: str = "read"
    ) -> None:
        """Marks `length` bytes (by default, the rest) of a buffer's memory from `offset` on as bad for `access`."""
    def unpoison(self, buffer: Buffer | UserRange, offset: int = 0, length: int | None = None) -> None:
        """Marks `length` bytes (by default, the rest) of a buffer's memory from `offset` on as good."""
    def first_in(self, start: int, length: int, access: str = "read") -> FaultRange | None:
        """The first range that overlaps the given bytes and is bad for `access`, not clipped to them; None if there is
        none.
        """
    def within(self, buffer: Buffer | UserRange) -> list[FaultRange]:
        """The bad parts of a buffer's memory, with starts relative to the buffer's."""
    def __iter__(self) -> Iterator[FaultRange]: ...
    def __len__(self) -> int: ...
    def __contains__(self, address: int, /) -> bool: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    @classmethod
    def from_badblocks(cls, source: str, *, base: int = 0, sector_size: int = 512) -> FaultMap:
        """Makes a map of the text of a `badblocks` file in sysfs: `start length` in sectors, one extent a line.
        ValueError gives line and column. The map is incomplete if the kernel may know more: its list has room for 512
        extents, a read of the file returns at most 4095 characters (a last line that is cut there is left out), and a
        device without a list reads as one empty line.
        """
    @classmethod
    def from_ndctl(cls, source: str, *, base: int = 0, namespace: str | None = None) -> FaultMap:
        """Makes a map of the JSON of `ndctl list -N -M`: of the namespace or region named `namespace`, or of all
        namespaces. A region is used only if it is named, because its blocks count from its own start. The map is
        incomplete if the list counts more blocks than it shows. ValueError if it is no such list.
        """
    @classmethod
    def from_mapfile(cls, source: str, *, base: int = 0) -> FaultMap:
        """Makes a map of the text of a GNU ddrescue mapfile, of its bad, non-trimmed and non-scraped blocks. ValueError
        gives line and column.
        """
    def to_mapfile(self, size: int, *, base: int = 0) -> str:
        """Returns the text of a mapfile of `size` bytes from `base` on, in which unreadable bytes are bad sectors and
        all others are finished.
        """
    def to_badblocks(self, *, base: int = 0, sector_size: int = 512) -> str:
        """Returns the text of a `badblocks` file with every range from `base` on, whatever its access. A sector of
        `sector_size` bytes is listed if any byte of it is bad. Ranges before `base` are left out. Such a text can say
        that a map is incomplete only if the map is empty.
        """
    def complement(self, size: int) -> FaultMap:
        """A map in which the bytes of `[0, size)` that are in no range here are bad to read. It is incomplete if this
        one is.
        """
    def __or__(self, value: FaultMap, /) -> FaultMap: ...
    def __ror__(self, value: FaultMap, /) -> FaultMap: ...
    def __copy__(self) -> FaultMap: ...
    def __deepcopy__(self, _memo: object) -> FaultMap: ...
    def __reduce__(self) -> tuple[type[FaultMap], tuple[list[tuple[int, int, str]]], bool | None]: ...
    def __setstate__(self, incomplete: bool) -> None: ...

@final
class Guard:
    """The result of `guard`: a context manager for one block."""

    @property
    def faults(self) -> list[Fault]:
        """The faults of other code in the block, in order; adjacent extents with the same properties are one. `offset`
        is 0, `address` and `length` are those of the pages, and `side` is "destination" for a store. `MemoryError` if
        the list cannot be allocated, or could not at the end of the block.
        """
    @property
    def lost(self) -> int:
        """Bytes that read as zeroes, and stores to which are lost: whole pages, the sum of the faults' lengths."""
    @property
    def not_restored(self) -> int:
        """Bytes that still read as zeroes after the block, until their mapping is closed. It is 0 unless the kernel
        cannot put such pages back (of files before Linux 5.13, huge pages), or the block moved its mapping (`mremap`).
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

def guard(*buffers: Buffer | UserRange, on_fault: Literal["raise", "record"] = "raise") -> Guard:
    """Returns a context manager. In its block no bad page of these buffers kills the process, whatever code accesses
    it: the page reads as zeroes, and stores to it are lost. At the end of the block the mappings are restored. If a bad
    page was accessed, `FaultError` is raised: `.fault` is the first fault, `.guard` the `Guard`, and an exception of
    the block its `__context__`. With `on_fault="record"` faults are only recorded.

    A buffer may have any strides, and stays exported until the block ends. Whole pages are guarded. Without a buffer,
    every mapped file is guarded, for faults of this thread only. Other threads that read the ranges during the block
    get zeroes, too, without an error unless they have a guard of their own. `RuntimeError` on entering if the handler
    cannot be used: SIGBUS is blocked in this thread, or the mode is "syscall". `TypeError` and `BufferError` name the
    argument; `ValueError` for another `on_fault`.
    """

@final
class IterState:
    """A position that `save_state` saved and `restore` returns to (`struct iov_iter_state`)."""

    @property
    def iov_offset(self) -> int:
        """Bytes consumed of the segment that was current."""
    @property
    def count(self) -> int:
        """Bytes that remained."""
    @property
    def nr_segs(self) -> int:
        """Segments that remained."""
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class PipeRing:
    """A pipe's ring of page slots (`struct pipe_inode_info`). Iterators of `IovIter.pipe` fill it; `read` and `splice`
    drain it.

    Several threads may fill it, taking turns page by page. Only one call of `read` or `splice` at a time takes its
    oldest bytes; others wait. A forked child gets a ring of its own with the bytes that were in it, but without those
    that other threads were copying into it at that moment.
    """

    def __new__(cls, slots: int = 16, max_usage: int | None = None) -> Self: ...
    @property
    def used(self) -> int:
        """The number of slots in use. Bytes that another thread is copying are in use when that copy is done."""
    @property
    def full(self) -> bool:
        """Whether all slots that users may fill are in use."""
    @property
    def slots(self) -> list[tuple[memoryview, int, int, int]]:
        """The slots in use, oldest first, as `(page, offset, length, flags)`. Each page is a read-only memoryview."""
    def read(self, nbytes: int = -1) -> bytes:
        """Takes up to `nbytes` bytes (all by default) out of the ring, up to the first that cannot be read;
        `FaultError` if that is the very first. Waits for another thread's `read` or `splice`. If it raises, nothing was
        taken.
        """
    def write(self, data: Buffer) -> int:
        """Writes to the pipe as `write` does: it fills up the newest slot if that may be merged with, then new slots.
        Returns the number of bytes written, which is less than all if the ring is full. `FaultError` (with `.copied`)
        if `data` is bad memory.
        """
    def splice(self, fd: int | _Fileno, nbytes: int = -1) -> int:
        """Moves up to `nbytes` bytes (all by default) into a pipe, socket or file, and returns how many it took. It
        takes fewer if it has no room, or after an error, which the next call then raises. The ring keeps the bytes that
        were not taken, whatever is raised.

        Other threads run meanwhile. A signal handler that raises ends a call that waits. `BlockingIOError` if the file
        takes no bytes now. `OSError` EMSGSIZE, with nothing taken, if the bytes do not fit into one message of a
        socket.
        """

@final
class RegionFile:
    """A file that will be mapped: opened, with its blocks allocated. If it is closed before it is mapped, the file's
    bytes and length are as they were.
    """

    def __new__(
        cls,
        path: str,
        *,
        size: int | None = None,
        create: bool = False,
        offset: int | None = None,
        writable: bool = True,
    ) -> Self: ...
    @property
    def character_device(self) -> int | None:
        """Its device number if it is a character device; `None` for a file."""
    @property
    def device(self) -> int:
        """The number of the device that its bytes are on; for a device, its own number."""
    def fileno(self) -> int:
        """Its descriptor."""
    def reserve(self, device: tuple[int, int] | None, size: int | None = None) -> None:
        """Chooses the bytes to map and allocates them. `device` is `(size, align)` of a DAX device in bytes; `size`
        replaces the size given when it was opened.
        """
    def claim_log(self, create: bool) -> int | None:
        """Locks it against other writers of a log until it is closed, or for as long as the log made of it is open.
        Returns the size in bytes of the log in it; `None` if there is none yet and `create` allows making one. What
        refuses it has changed nothing.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class LogRecords:
    """An iterator over the records of a log, oldest first, including those appended meanwhile. After its end it can be
    asked again, and then goes on with what was appended since. Threads may share it: each record is given to one of
    them.
    """

    def __iter__(self) -> Self: ...
    def __next__(self) -> Record: ...

@disjoint_base
class MappedLog:
    """A log in a mapped file: `iovec_rs.pmem.PmemLog` without the look-ups in sysfs."""

    def __new__(cls, file: RegionFile, bad: FaultMap, caches_persist: bool, create: bool) -> Self: ...
    @property
    def path(self) -> str:
        """The path it was opened by."""
    @property
    def size(self) -> int:
        """The size of its region in bytes, including the superblocks."""
    @property
    def granularity(self) -> Literal["byte", "cache_line", "page"]:
        """What makes a record durable: `"byte"` its becoming visible, `"cache_line"` leaving the caches, `"page"` an
        msync.
        """
    @property
    def writable(self) -> bool:
        """Whether it was opened for appending."""
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    @property
    def first(self) -> int:
        """The oldest record's number; `last + 1` if there is no record."""
    @property
    def last(self) -> int:
        """The newest record's number; `first - 1` if there is no record."""
    @property
    def nbytes(self) -> int:
        """Bytes in use by records, their headers and the gaps between them."""
    @property
    def free(self) -> int:
        """The most bytes that the next append can store. It is also 0 if not even an empty record fits."""
    @property
    def recovered(self) -> int:
        """Bytes that opening has removed at the end: an interrupted append, or damage with no good record behind it. 0
        for a reader, which removes nothing.
        """
    def append(self, data: Buffer | IovIter | Iterable[Buffer]) -> int:
        """Appends a buffer, an iterable of buffers, or the rest of an iterator as one record, with one fence. Returns
        its number. When this returns, the record is complete and durable.

        OSError ENOSPC if it does not fit into `free`; `FaultError` if the data, or the log's memory, is bad; OSError if
        msync fails; `BlockingIOError` in a forked child; BufferError if the log was opened to be read. Then the record
        is not there, after a crash neither, and an iterator stands where it stood. What of the log turned out to be bad
        is not used again: the next append goes behind it.
        """
    def read(self, sequence: int) -> bytes:
        """Returns a record's data. `IndexError` if there is no such record, `CorruptError` if its bytes differ from
        those appended, `FaultError`, with the number of readable bytes in `.copied`, if its memory is bad.
        """
    def read_into(self, sequence: int, dst: Buffer | IovIter) -> McResult:
        """Copies a record's data into a buffer or the rest of an iterator, which may be longer. Returns an `McResult`
        for the record's bytes, short if memory is bad. `IndexError` and `CorruptError` as in `read`: then the
        destination may hold anything, and an iterator has not moved. ValueError if the record does not fit: then
        nothing was written.
        """
    def record(self, sequence: int) -> Record:
        """The place of a record. `IndexError` and `CorruptError` as in `read`, for its header only."""
    def discard_before(self, sequence: int) -> None:
        """Frees the space of every record before `sequence`, which may be at most `last + 1`. The change is durable
        when this returns. ValueError for a greater number; otherwise the errors of `append`, with nothing freed.
        """
    def verify(self) -> list[Fault]:
        """Reads every record, surviving bad memory. Returns a `Fault` for each record that cannot be read, and one of
        cause "unknown" for each whose bytes differ from those appended. `offset` is the place in the region.
        """
    def close(self) -> None:
        """Closes the log, so that another writer may open it. BufferError while calls run."""
    def __iter__(self) -> LogRecords: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...

@final
class Slot:
    """Publications in shared memory, by one writer to any number of readers, in other processes or on hosts that share
    the memory.

    `region` is a `PmemRegion` or any buffer, which stays exported as long as the slot lives; a reader's may be
    read-only. `offset` is a multiple of 64. `capacity` is the most bytes of a publication, by default as many as fit; a
    reader's is the writer's or more. A slot takes `size_for(capacity)` bytes: a header line, and two buffers that are
    used in turn. They must be zero before the first publication.
    """

    def __new__(cls, region: Buffer, offset: int = 0, capacity: int | None = None) -> Self: ...
    @classmethod
    def size_for(cls, capacity: int) -> int:
        """The number of bytes that a slot takes for publications of up to `capacity` bytes."""
    @property
    def capacity(self) -> int:
        """The most bytes of a publication."""
    def publish(self, data: Buffer | IovIter | Iterable[Buffer]) -> int:
        """Publishes a buffer, an iterable of buffers, or the rest of an iterator. Returns the publication's number,
        counted from 1. When it returns, first the data and then the header have left the caches. ValueError for more
        than `capacity` bytes, BufferError if the memory is read-only, `FaultError` if it or the data are bad: then the
        last publication is still there, and an iterator is where it was.
        """
    def consume(self, dst: Buffer | IovIter, *, newer_than: int = 0) -> tuple[int, int]:
        """Copies one publication, whole and checked, into a buffer or the rest of an iterator. Returns its length and
        its number, or `(0, newer_than)` if none is newer. `TornError` if the writer kept changing it, or if it is
        damaged: then the contents of `dst` are unspecified, and an iterator is where it was. ValueError if `dst` is
        too small, or if the publication ends behind this slot, whose `capacity` is less than the writer's: then
        nothing was written. `FaultError` if memory is bad.
        """

@disjoint_base
class MappedRegion:
    """A mapped file or DAX device, the base class of `iovec_rs.pmem.PmemRegion`. It reads nothing of sysfs."""

    def __new__(cls, file: RegionFile, bad: FaultMap, caches_persist: bool) -> Self: ...
    @property
    def _character_device(self) -> int | None:
        """The device number of the character device that is mapped; `None` for a file."""
    def _fileno(self) -> int:
        """The file's descriptor, which stays open until the region is closed."""
    def _set_known_bad(self, bad: FaultMap) -> None:
        """Replaces the contents of `fault_map` by the bad bytes of the file that are known."""
    def _sync_all(self) -> None:
        """Calls msync and fsync for the whole region, with the errors of `deep_flush`."""
    @property
    def path(self) -> str:
        """The path by which it was opened."""
    @property
    def size(self) -> int:
        """Its length in bytes."""
    @property
    def offset(self) -> int:
        """The offset in the file of its first byte."""
    @property
    def granularity(self) -> Literal["byte", "cache_line", "page"]:
        """What makes a store durable: with `"byte"`, becoming visible; with `"cache_line"`, leaving the CPU's caches;
        with `"page"`, an msync.
        """
    @property
    def is_map_sync(self) -> bool:
        """Whether it is mapped with `MAP_SYNC`, for which the kernel guarantees that bytes that have left the CPU's
        caches need no msync.
        """
    @property
    def writable(self) -> bool:
        """Whether it may be written to."""
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    @property
    def fault_map(self) -> FaultMap:
        """The addresses in the region that are known to be bad: those of the system's list when it was opened or
        refreshed, and poison that `read_into` has found since. Pages behind the end of a truncated file are not in it,
        since the file may grow again. For a file the whole page of a bad block is listed, because such a page cannot be
        mapped; for a device only the block is.
        """
    def write(self, offset: int, data: Buffer | IovIter | Iterable[Buffer]) -> int:
        """Copies a buffer, buffers in order, or the rest of an iterator to `offset`, with one fence. Returns the number
        of bytes copied, which are durable then.

        If memory is bad, the bytes before it are copied and durable. Over user memory (UBUF, IOVEC) the count is short
        then, and `data.fault` says why; otherwise it is a `FaultError`, with `.copied`. A file that was truncated is
        bad memory from its end on. OSError if the kernel cannot make the bytes durable (msync): then none counts, an
        iterator is where it was, and the bytes must be written again, since a second msync would not write them. With
        granularity "page", if any write-back of the file fails, whoever the kernel reported it to, the bytes are stored
        and synced again, up to three times, so that the good part of a failing medium stays writable; a source that
        overlaps its destination is stored only once. ValueError if `data` does not fit into the region, BufferError if
        it is read-only: then nothing was stored.
        """
    def read_into(self, offset: int, dst: Buffer | IovIter) -> McResult:
        """Copies from `offset` on into a buffer or the rest of an iterator. Stops before a range in `fault_map` and at
        memory that faults; poison in the region is added to the map. Bad memory raises no exception. Returns an
        `McResult`.
        """
    def write_crc32c(self, offset: int, data: Buffer | IovIter | Iterable[Buffer], crc: int = 0) -> tuple[int, int]:
        """`write` that also adds the bytes copied to a CRC-32C. Returns `(copied, crc)`. `FaultError` has the sum in
        `.crc32c`.
        """
    def read_into_crc32c(self, offset: int, dst: Buffer | IovIter, crc: int = 0) -> tuple[McResult, int]:
        """`read_into` that also adds the bytes copied to a CRC-32C. Returns `(McResult, crc)`."""
    def persist(self, offset: int = 0, length: int | None = None) -> None:
        """Makes the stores to `length` bytes (by default all the rest) from `offset` on durable: by a fence, by
        flushing cache lines, or by msync, depending on `granularity`. `FaultError` if the memory is bad, or if the file
        was truncated before their end. OSError if the kernel cannot write them, or has failed to write back any of the
        region since this thread last called `persist` on it, whoever that was reported to: then everything that the
        thread has stored to the region since its last successful `persist` must be stored again. A failure is reported
        once to each thread.
        """
    def close(self) -> None:
        """Unmaps the region. BufferError while views of it, iterators over it or copies are alive. Stores that were not
        made durable are left to the kernel.
        """
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@disjoint_base
class MappedFile:
    """A mapped part of a file, the base class of `SafeMap`."""

    def __new__(cls, file: int, mode: str, offset: int, length: int | None) -> Self: ...
    @property
    def size(self) -> int:
        """Its length in bytes."""
    @property
    def mode(self) -> Literal["r", "r+", "c"]:
        """The mode. `"r"` is read-only, with `"r+"` stores change the file, and with `"c"` they stay private to this
        map.
        """
    @property
    def closed(self) -> bool:
        """Whether it is closed."""
    def flush(self) -> None:
        """Writes everything that was stored to the file (msync); does nothing in the modes "r" and "c". `OSError` if
        the kernel cannot: then everything stored since the last flush must be stored again. `FaultError`, with
        `.copied`, if part of the mapping is not the file's any more: bytes that were stored behind the end of a
        truncated file, or to a guard's zeroes, are lost.
        """
    def _require_held(self, offset: int, nbytes: int) -> None:
        """Checks that all of `nbytes` bytes from `offset` on, which were just stored, are the file's. `FaultError`,
        with `.copied`, if not.
        """
    def close(self) -> None:
        """Unmaps the file. `BufferError` while views of the map, arrays or iterators over it, or guards are alive."""
    def __len__(self) -> int: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@final
class XArray:
    """A map from index to page (`struct xarray`), over which `IovIter.xarray` runs. A page has exactly `PAGE_SIZE`
    bytes.
    """

    def __new__(cls, pages: Mapping[int, Buffer] | None = None) -> Self: ...
    def store(self, index: int, page: Buffer) -> None:
        """Stores a page at `index`, in place of any that was there. Iterators see it from their next operation on."""
    def load(self, index: int) -> memoryview | None:
        """The page at `index`, or `None` for a hole."""
    def erase(self, index: int) -> None:
        """Removes the page at `index`, which leaves a hole."""

@final
class FolioQueue:
    """A queue of folios (`struct folio_queue`), over which `IovIter.folioq` runs. A folio is any buffer that is not
    empty.
    """

    def __new__(cls, folios: Iterable[Buffer] = (), slots_per_node: int = 31) -> Self: ...
    def append(self, folio: Buffer) -> None:
        """Adds a folio at the end. Iterators see it from their next operation on."""

class IterKind(StrEnum):
    """The kinds of memory that an iterator runs over (`enum iter_type`)."""

    UBUF = "ubuf"
    IOVEC = "iovec"
    KVEC = "kvec"
    BVEC = "bvec"
    PIPE = "pipe"
    XARRAY = "xarray"
    FOLIOQ = "folioq"
    DISCARD = "discard"

@final
class IovIter:
    """A cursor over scattered memory: Linux's `struct iov_iter`.

    There is a class method for each kind of memory, which makes an iterator, and `import_iovec` and its family make
    some, too. `len()` is `count`, the number of bytes that remain. The memory stays exported while the iterator lives.
    A call that raises leaves the iterator as it was.
    """

    def __new__(cls, *args: Never, **kwargs: Never) -> Self: ...
    @classmethod
    def ubuf(cls, direction: Direction | int, buffer: Buffer | UserRange, count: int | None = None) -> IovIter:
        """Makes an iterator over one range of user memory (`iov_iter_ubuf`). `count` may be less than the buffer's
        length.
        """
    @classmethod
    def iovec(
        cls, direction: Direction | int, segments: Iterable[Buffer | UserRange], count: int | None = None
    ) -> IovIter:
        """Makes an iterator over ranges of user memory, buffers and `UserRange`s (`iov_iter_init`)."""
    @classmethod
    def kvec(cls, direction: Direction | int, segments: Iterable[Buffer], count: int | None = None) -> IovIter:
        """Makes an iterator over ranges of trusted memory, buffers only (`iov_iter_kvec`)."""
    @classmethod
    def bvec(
        cls, direction: Direction | int, bvecs: Iterable[tuple[Buffer, int, int]], count: int | None = None
    ) -> IovIter:
        """Makes an iterator over ranges in pages (`iov_iter_bvec`). Each is `(page, offset, length)`; `page` is a
        buffer, which may be longer than one page.
        """
    @classmethod
    def pipe(cls, direction: Direction | int, pipe: PipeRing, count: int) -> IovIter:
        """Makes an iterator that fills a pipe (`iov_iter_pipe`). `count` may exceed the room in the pipe: copies are
        short when it is full.
        """
    @classmethod
    def xarray(cls, direction: Direction | int, xarray: XArray, start: int, count: int) -> IovIter:
        """Makes an iterator over the pages of an `XArray`, from byte position `start` on (`iov_iter_xarray`). A
        transfer ends at a hole.
        """
    @classmethod
    def folioq(cls, direction: Direction | int, queue: FolioQueue, first_slot: int, offset: int, count: int) -> IovIter:
        """Makes an iterator over a `FolioQueue`, from byte `offset` of folio `first_slot` on (`iov_iter_folio_queue`).
        A transfer ends at the end of the queue.
        """
    @classmethod
    def discard(cls, direction: Direction | int, count: int) -> IovIter:
        """Makes an iterator that counts the bytes copied to it and discards them (`iov_iter_discard`)."""
    @property
    def kind(self) -> IterKind:
        """The kind of memory that the iterator runs over: an `IterKind`."""
    @property
    def direction(self) -> Direction:
        """Whether the iterator is the destination or the source of transfers: a `Direction`."""
    @property
    def count(self) -> int:
        """The number of bytes that remain to be transferred."""
    @property
    def iov_offset(self) -> int:
        """The number of bytes consumed of the current segment. For UBUF and XARRAY it is that of all bytes, and for
        PIPE the offset in its page at which the newest slot ends.
        """
    @property
    def nr_segs(self) -> int:
        """The number of segments that remain, including the current one; 0 for kinds that do not count segments."""
    @property
    def fault(self) -> Fault | None:
        """The `Fault` that made the last copy through this iterator short; `None` if bad memory was not the reason."""
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def advance(self, nbytes: int) -> None:
        """Moves forward by `nbytes` bytes, at most to the end (`iov_iter_advance`). Steps over empty segments, even if
        `nbytes` is 0.
        """
    def revert(self, nbytes: int) -> None:
        """Moves back by `nbytes` bytes (`iov_iter_revert`). ValueError if that is before the start. On a PIPE the bytes
        are removed.
        """
    def truncate(self, count: int) -> None:
        """Lowers `count` to this number if it is more (`iov_iter_truncate`). The position does not change."""
    def reexpand(self, count: int) -> None:
        """Sets `count`, to undo a truncation (`iov_iter_reexpand`). ValueError if the segments have fewer bytes."""
    def save_state(self) -> IterState:
        """Saves the position, for `restore` (`iov_iter_save_state`)."""
    def restore(self, state: IterState) -> None:
        """Moves to a saved position, backwards or forwards (`iov_iter_restore`). UBUF, IOVEC, KVEC and BVEC only."""
    def dup(self) -> IovIter:
        """Makes a second iterator over the rest of the memory (`dup_iter`). It cannot be moved back beyond this
        position.
        """
    def zero(self, nbytes: int | None = None) -> int:
        """Zeroes the next `nbytes` bytes (all by default) and returns their number (`iov_iter_zero`). It writes to the
        memory whatever the direction, so that of a WRITE iterator, too, unless it is read-only.
        """
    def single_seg_count(self) -> int:
        """The bytes left in the current segment (`iov_iter_single_seg_count`). It may be 0 although more segments
        follow.
        """
    def alignment(self) -> int:
        """The bitwise OR of the addresses and lengths of all remaining segments (`iov_iter_alignment`)."""
    def is_aligned(self, addr_mask: int, len_mask: int) -> bool:
        """Whether no address has a bit in common with `addr_mask` and no length one with `len_mask`
        (`iov_iter_is_aligned`).
        """
    def gap_alignment(self) -> int:
        """The bitwise OR of the boundaries between the segments of an IOVEC (`iov_iter_gap_alignment`); 0 if they join
        without gaps. UBUF gives 0, and any other kind 0xffffffff.
        """
    def npages(self, maxpages: int) -> int:
        """The number of pages that the remaining memory touches, at most `maxpages` (`iov_iter_npages`)."""
    def get_pages(self, maxsize: int, maxpages: int) -> PageSpan:
        """The pages of the next bytes, at most `maxsize` bytes and `maxpages` pages, as a `PageSpan`
        (`iov_iter_get_pages2`). Advances the iterator by their bytes.
        """
    def extract_pages(self, maxsize: int, maxpages: int) -> PageSpan:
        """The pages of the next bytes as by `get_pages`, without taking references to them (`iov_iter_extract_pages`).
        Advances the iterator by their bytes.
        """
    def for_each_range(self, nbytes: int, callback: Callable[[memoryview], int | None]) -> int:
        """Calls `callback` with a memoryview of each piece of the next `nbytes` bytes, and returns what the last call
        returned, 0 for `None` (`iov_iter_for_each_range`). It does not move the iterator and does not clip to `count`.
        Kernel-backed kinds only.
        """
    def fault_in_readable(self, nbytes: int) -> int:
        """Faults in the next `nbytes` bytes for reading, and returns how many could not be faulted in
        (`fault_in_iov_iter_readable`).
        """
    def fault_in_writeable(self, nbytes: int) -> int:
        """Faults in the next `nbytes` bytes for writing, without changing them, and returns how many could not be
        faulted in (`fault_in_iov_iter_writeable`).
        """
    def ranges(self) -> list[UserRange]:
        """The memory that remains, clipped to `count`: a list with a `UserRange` for each non-empty segment, for each
        page of an XArray up to the first hole, or for each folio.
        """
    def release(self) -> None:
        """Releases the iterator's buffers now, and not only when it is collected. Views of them and duplicates of the
        iterator keep what they need. Any later use of the iterator is a ValueError, but another `release` does nothing.
        `RuntimeError` while a call uses the iterator.
        """
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc: object) -> None: ...
    def segment(self) -> UserRange | None:
        """The rest of the current segment, clipped to `count`, as a `UserRange` (`iter_iov_addr`, `iter_iov_len`). For
        an XARRAY it is the rest of the current page, for a FOLIOQ of the current folio. It is empty if the position is
        at the end of a segment and more segments follow; `advance(0)` moves to the next. None at the end of the
        iterator, at a hole, and for PIPE and DISCARD.
        """
    def iterate_and_advance(self, nbytes: int, step: Callable[[memoryview, int], int | None]) -> int:
        """Calls `step(view, progress)` with a memoryview of each contiguous chunk of the next `nbytes` bytes (clipped
        to `count`). Advances by the bytes that the steps processed, and returns their number. It is the kernel's
        `iterate_and_advance`; use it to write copies of your own.

        `progress` is the number of bytes in the chunks before. A chunk is a segment, or a page of kinds that have
        pages. Its view is read-only if the iterator is a source, and is released after the step. The step returns how
        many bytes of its chunk it did not process, None for 0; any but 0 ends the walk. ValueError if the number is
        more than the chunk has. If a step raises, the iterator has moved by what earlier steps processed. Any use of
        the iterator by a step is a `RuntimeError`. `TypeError` over a `UserRange`, PIPE or DISCARD.
        """
    def views(self, maxsegs: int | None = None, nbytes: int | None = None) -> list[memoryview]:
        """The memory that remains as a list of memoryviews, of at most `maxsegs` segments and `nbytes` bytes. They are
        writable if the iterator is a destination and the page is not read-only. They keep the memory exported.
        TypeError over a `UserRange`, PIPE or DISCARD.
        """

@final
class IovecArray(Sequence[UserRange]):
    """The validated and truncated copy of a user vector, as a sequence of `UserRange`. The iterator made with it walks
    over the same array. The buffers that it names stay exported while it lives.
    """

    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> UserRange: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[UserRange]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def count(self, value: object) -> int:
        """The number of times that a range occurs."""
    def index(self, value: object) -> int:  # type: ignore[override]
        """The index at which a range occurs first. ValueError if it does not occur."""

def import_iovec(
    type: Direction | int,
    uvector: _Uvector,
    nr_segs: int | None = None,
    fast_segs: int | None = None,
    *,
    compat: bool = False,
) -> tuple[IovecArray | None, IovIter]:
    """Validates a user vector and makes an iterator over it (`import_iovec`). Returns the array and the iterator.

    The vector is an iterable of buffers and `UserRange`s, a packed array of `struct iovec` in a buffer, or that array's
    address. The array is `None` when `nr_segs <= fast_segs`. One segment makes a UBUF. OSError in the kernel's order of
    checks: EINVAL (more than 1024 segments, a negative length), EFAULT (an unreadable array, a range outside user
    space), ENOMEM.
    """

def iovec_from_user(
    uvector: _Uvector, nr_segs: int | None = None, fast_segs: int | None = None, *, compat: bool = False
) -> IovecArray:
    """Reads a user vector and checks its lengths (`iovec_from_user`). It neither checks ranges nor truncates. Returns
    an array, also for one segment.
    """

def import_ubuf(type: Direction | int, buffer: Buffer | UserRange) -> IovIter:
    """Makes an iterator over one range of user memory, which is truncated to `MAX_RW_COUNT` and then checked
    (`import_ubuf`).
    """

def import_single_range(type: Direction | int, buffer: Buffer | UserRange) -> IovIter:
    """The older name of `import_ubuf` (`import_single_range`)."""

def copy_to_iter(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> int:
    """Copies `nbytes` bytes (by default, all) of `addr` into the iterator, which advances by the bytes copied; returns
    their number (`copy_to_iter`). The copy is short at `count`, a full pipe, a hole, the end of a queue, or bad memory;
    in that case `i.fault` says why. Over trusted memory bad memory raises `FaultError`, with `.copied`.
    """

def copy_from_iter(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> int:
    """Copies `nbytes` bytes (by default, the length of `addr`) out of the iterator to `addr`; returns the bytes copied
    (`copy_from_iter`). It is short and raises as `copy_to_iter` does.
    """

def copy_to_iter_full(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> bool:
    """`copy_to_iter`, all or nothing: after a short copy the iterator is moved back and the result is `False`
    (`copy_to_iter_full`).
    """

def copy_from_iter_full(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> bool:
    """`copy_from_iter`, all or nothing: after a short copy the iterator is moved back and the result is `False`
    (`copy_from_iter_full`). `addr` may be partly written.
    """

def copy_from_iter_nocache(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> int:
    """`copy_from_iter` with non-temporal stores: whole cache lines of `addr` are written past the CPU's caches
    (`copy_from_iter_nocache`). It fences once. It promises no durability.
    """

def copy_from_iter_full_nocache(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> bool:
    """`copy_from_iter_nocache`, all or nothing. After a short copy the iterator is back where it was and the result is
    `False`; `addr` may be partly written.
    """

def copy_from_iter_flushcache(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> int:
    """`copy_from_iter` whose bytes are durable when it returns, if `addr` is in a `PmemRegion`, of any granularity, or
    in a mapping with `MAP_SYNC` (`copy_from_iter_flushcache`). That holds for every kind, and for the bytes counted of
    a short copy. In other memory the bytes have only left the CPU's caches; a file that was mapped in another way needs
    an msync, too. It fences once. OSError if an msync of the region fails, this call's or any other's while it runs:
    then no byte counts, and `i` is where it was. OSError EOPNOTSUPP if the CPU cannot write cache lines back.
    """

def copy_to_iter_flushcache(addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None) -> int:
    """`copy_to_iter` with the durability of `copy_from_iter_flushcache`: it makes scattered destinations durable in one
    call, with one fence. If another thread puts pages into an XArray or a FolioQueue meanwhile, they are stored to, but
    not msynced. The kernel has no such function: there the iterator is always the source.
    """

def memcpy_nocache(dst: Buffer | UserRange, src: Buffer | UserRange) -> McResult:
    """Copies `src` to `dst`, which has the same length, with non-temporal stores. Returns an `McResult`."""

def memcpy_flushcache(dst: Buffer | UserRange, src: Buffer | UserRange) -> McResult:
    """Copies `src` to `dst`, which has the same length, with the durability of `copy_from_iter_flushcache`. Returns an
    `McResult`. OSError if an msync of the region fails, this call's or any other's while it runs: then no byte
    counts.
    """

def copy_to_iter_mcsafe(
    addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None, *, fault_map: FaultMap | None = None
) -> int:
    """`copy_to_iter` that survives bad memory on either side (`copy_mc_to_iter`, `copy_to_iter_mcsafe`). It stops
    before a range in `fault_map`, at the byte where the kernel's machine-check-safe copy would stop, and at memory that
    faults, which it adds to the map. For every kind, the count is short then, the iterator advances by the bytes
    copied, and `i.fault` says why.
    """

def memcpy_mcsafe(dst: Buffer | UserRange, src: Buffer | UserRange, *, fault_map: FaultMap | None = None) -> McResult:
    """Copies `src` to `dst`, which has the same length, and survives bad memory on either side. Returns an `McResult`.

    Only whole pages fault. In the page in which a mapped file ends, bytes behind the end are read as zeroes and
    counted; bytes written there are counted, too, and never reach the file. `PmemRegion.read_into` and `write` stop at
    the end of the file.
    """

def copy_page_to_iter(page: Buffer, offset: int, nbytes: int, i: IovIter) -> int:
    """Copies `page[offset:offset + nbytes]` into the iterator (`copy_page_to_iter`). A PIPE gets a reference to the
    page instead, to all bytes or none: the pipe shows later changes of the page.
    """

def copy_page_from_iter(page: Buffer, offset: int, nbytes: int, i: IovIter) -> int:
    """Copies out of the iterator into `page[offset:offset + nbytes]` (`copy_page_from_iter`)."""

def copy_page_from_iter_atomic(page: Buffer, offset: int, nbytes: int, i: IovIter) -> int:
    """`copy_page_from_iter` that returns a short count for bad memory over every kind (`copy_page_from_iter_atomic`).
    The iterator advances by the bytes copied.
    """

def copy_iter(dst: IovIter, src: IovIter, nbytes: int | None = None) -> int:
    """Copies `nbytes` bytes (by default, as many as both have) from `src` to `dst`. Both advance by the bytes copied,
    whose number is returned.
    """

def csum_and_copy_to_iter(
    addr: Buffer, i: IovIter, nbytes: int | None = None, csum: int = 0, offset: int = 0
) -> tuple[int, int]:
    """`copy_to_iter` that also adds the bytes copied to an Internet checksum (`csum_and_copy_to_iter`). `csum` is the
    sum of the `offset` bytes before them. Returns the number of bytes copied and the ones'-complement sum, folded to 16
    bits; if nothing was copied, that is `csum` unchanged.
    """

def csum_and_copy_from_iter(addr: Buffer, i: IovIter, nbytes: int | None = None, csum: int = 0) -> tuple[int, int]:
    """`copy_from_iter` that also adds the bytes copied to the Internet checksum `csum` (`csum_and_copy_from_iter`).
    Returns the number of bytes copied and the sum, as `csum_and_copy_to_iter` does.
    """

def csum_and_copy_from_iter_full(
    addr: Buffer, i: IovIter, nbytes: int | None = None, csum: int = 0
) -> tuple[bool, int]:
    """`csum_and_copy_from_iter`, all or nothing. After a short copy the iterator is back where it was and the result is
    `(False, csum)`, with the sum of the bytes that were copied. Otherwise it is `(True, csum)`.
    """

@final
class RangeResults(Sequence[McResult]):
    """The results of `copy_ranges`, one for each range: a sequence of `McResult`, which makes each when it is read."""

    @property
    def copied(self) -> int:
        """The bytes copied, of all ranges together."""
    @property
    def failed(self) -> list[int]:
        """The indexes of the ranges that were not copied whole, in order."""
    @property
    def crc32c(self) -> list[int] | None:
        """The CRC-32C of the bytes copied of each range; `None` unless `copy_ranges` was called with `crc32c=True`."""
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, index: SupportsIndex, /) -> McResult: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[McResult]: ...
    def __contains__(self, value: object, /) -> bool: ...
    def count(self, value: object) -> int:
        """The number of results that equal a value."""
    def index(self, value: object, start: SupportsIndex = 0, stop: SupportsIndex | None = None) -> int:
        """The index of the first result that equals a value, among those from `start` up to but not including `stop`.
        Negative limits count from the end. ValueError if there is none.
        """

_Ranges = Sequence[Buffer | UserRange] | Buffer

def copy_ranges(
    dst: _Ranges, src: _Ranges, *, flush: bool = False, fault_map: FaultMap | None = None, crc32c: bool = False
) -> RangeResults:
    """Copies range k of `src` to range k of `dst`, for every k in order, in one call that releases the interpreter once
    and fences once. Each range is copied as by `memcpy_mcsafe`; with `flush`, by non-temporal stores and durably. A
    range that has bad memory, or memory in `fault_map`, is copied up to there; the others are copied all the same.
    Memory that faults is added to the map. Returns a `RangeResults`.

    Each side is a sequence of buffers and `UserRange`s, or a packed array of `struct iovec`: a buffer with 16 bytes for
    each range, its address and its length, such as a numpy array of uint64 pairs. Nothing is copied if the sides differ
    in their number of ranges or in a length (ValueError), if a destination is read-only (BufferError), or if an item is
    no buffer (TypeError); the error names the index. Nor is anything copied if a packed array has elements of other
    types, such as floats or integers of 4 bytes (TypeError), or rows that are no pairs (ValueError). OSError if
    an msync fails that `flush` needs: then no byte counts.
    """

def crc32c(data: Buffer | UserRange | IovIter, crc: int = 0) -> int:
    """The CRC-32C (Castagnoli) of a buffer, of a `UserRange`, or of the bytes that remain of an iterator, which is not
    moved. `crc` is the sum of the bytes before. `FaultError` if the memory is bad: `.copied` bytes were summed, and
    `.crc32c` is their sum. ValueError over a PIPE or DISCARD, which cannot be read, and over an iterator that has a
    hole or reaches past the end of its queue.
    """

def crc32c_combine(crc1: int, crc2: int, len2: int) -> int:
    """The CRC-32C of two pieces in a row, computed from the CRC-32C of each. The second piece is `len2` bytes long."""

def crc32c_and_copy_to_iter(
    addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None, crc: int = 0
) -> tuple[int, int]:
    """`copy_to_iter` that also adds the bytes copied to a CRC-32C (`skb_copy_and_crc32c_datagram_iter`). Returns
    `(copied, crc)`. The sum continues `crc` and covers exactly the bytes copied, whatever made the copy short.
    `FaultError` has it in `.crc32c`.
    """

def crc32c_and_copy_from_iter(
    addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None, crc: int = 0
) -> tuple[int, int]:
    """`copy_from_iter` that also adds the bytes copied to a CRC-32C. Returns `(copied, crc)`."""

def crc32c_and_copy_from_iter_flushcache(
    addr: Buffer | UserRange, i: IovIter, nbytes: int | None = None, crc: int = 0
) -> tuple[int, int]:
    """`copy_from_iter_flushcache`, with the same durability, that also adds the bytes copied to a CRC-32C. Returns
    `(copied, crc)`.
    """

def crc32c_and_copy_to_iter_mcsafe(
    addr: Buffer | UserRange,
    i: IovIter,
    nbytes: int | None = None,
    crc: int = 0,
    *,
    fault_map: FaultMap | None = None,
) -> tuple[int, int]:
    """`copy_to_iter_mcsafe` that also adds the bytes copied to a CRC-32C. Returns `(copied, crc)`."""

def crc32c_and_memcpy_mcsafe(
    dst: Buffer | UserRange, src: Buffer | UserRange, crc: int = 0, *, fault_map: FaultMap | None = None
) -> tuple[McResult, int]:
    """`memcpy_mcsafe` that also adds the bytes copied to a CRC-32C. Returns `(McResult, crc)`."""

def crc32c_and_memcpy_flushcache(
    dst: Buffer | UserRange, src: Buffer | UserRange, crc: int = 0
) -> tuple[McResult, int]:
    """`memcpy_flushcache`, with the same durability, that also adds the bytes copied to a CRC-32C. Returns
    `(McResult, crc)`.
    """

def hash_and_copy_to_iter(addr: Buffer, i: IovIter, hash: _Hash | Any, nbytes: int | None = None) -> int:
    """`copy_to_iter` that also passes the bytes copied to `hash.update`, in blocks of 64 KiB (`hash_and_copy_to_iter`).
    If `update` raises, so does this, and the iterator is back where it was.
    """

def fault_map_moved(map: FaultMap, pieces: Sequence[tuple[int, int, int]], incomplete: bool = False) -> FaultMap:
    """Makes a map of the `pieces`, each `(from, to, length)`: the bad bytes of `length` bytes at `from` in the given
    map, moved to `to`. It is incomplete if the given map is, or if `incomplete` says that there are pieces that are not
    known.
    """

def readv(fd: int | _Fileno, i: IovIter, flags: int = 0) -> int:
    """Reads into a READ iterator with one `readv` (`preadv2` with `RWF_*` flags). Returns the number of bytes, 0 at the
    end of the file, and advances the iterator by it.

    One call transfers at most 1024 segments and `MAX_RW_COUNT` bytes. `BlockingIOError` if the file has no data now,
    `TimeoutError` for a socket with a timeout, `OSError` for any other error: then the iterator has not moved.
    """

def preadv(fd: int | _Fileno, i: IovIter, offset: int, flags: int = 0) -> int:
    """As `readv`, at a file offset in bytes; the file's position does not change (`preadv`, `preadv2` with flags)."""

def writev(fd: int | _Fileno, i: IovIter, flags: int = 0) -> int:
    """Writes from a WRITE iterator with one `writev` (`pwritev2` with `RWF_*` flags). Returns the number of bytes, and
    advances the iterator by it.

    One call transfers at most 1024 segments and `MAX_RW_COUNT` bytes. `BlockingIOError` if the file takes no data now,
    `TimeoutError` for a socket with a timeout, `OSError` for any other error: then the iterator has not moved.
    """

def pwritev(fd: int | _Fileno, i: IovIter, offset: int, flags: int = 0) -> int:
    """As `writev`, at a file offset in bytes; the file's position does not change (`pwritev`, `pwritev2` with
    flags).
    """

def readv_all(fd: int | _Fileno, i: IovIter, flags: int = 0) -> int:
    """Reads until the iterator is full or the file ends, over any number of segments. Returns the number of bytes,
    which is less than `i.count` was only at the end of the file.

    `BlockingIOError` and any other `OSError` have the number of bytes read as `characters_written`; the iterator is at
    the first byte not read, and the call can be repeated. `FaultError` if the iterator's memory is bad.
    """

def preadv_all(fd: int | _Fileno, i: IovIter, offset: int, flags: int = 0) -> int:
    """As `readv_all`, from a file offset on; the file's position does not change."""

def writev_all(fd: int | _Fileno, i: IovIter, flags: int = 0) -> int:
    """Writes all the bytes of the iterator, over any number of segments. Returns their number.

    `BlockingIOError` and any other `OSError` have the number of bytes written as `characters_written`; the iterator is
    at the first byte not written, and the call can be repeated. `FaultError` if the iterator's memory is bad.
    """

def pwritev_all(fd: int | _Fileno, i: IovIter, offset: int, flags: int = 0) -> int:
    """As `writev_all`, from a file offset on; the file's position does not change."""

def keeps_messages(fd: int) -> bool:
    """Whether a descriptor is a socket that keeps message boundaries."""

def readv_part(fd: int | _Fileno, i: IovIter, limit: int) -> int:
    """Calls `readv` for at most `limit` bytes."""

def writev_part(fd: int | _Fileno, i: IovIter, limit: int) -> int:
    """Calls `writev` for at most `limit` bytes."""

def sendmsg_raw(
    sock: int | _Fileno, i: IovIter, control: bytes, flags: int, name: bytes, limit: int | None = None
) -> int:
    """Calls `sendmsg` once. Control messages and address are in the kernel's format. With a limit it is one call of a
    whole transfer, for at most that many bytes.
    """

def sendmsg_all_raw(sock: int | _Fileno, i: IovIter, control: bytes, flags: int) -> int:
    """Calls `sendmsg` until everything is sent. The control messages go with the first bytes."""

def recvmsg_raw(sock: int | _Fileno, i: IovIter, ancbufsize: int, flags: int) -> tuple[int, bytes, int, bytes]:
    """Calls `recvmsg` once. Returns the number of bytes, the control messages, the flags and the address, in the
    kernel's format. If it raises, it closes the descriptors that were received.
    """

def close_received(control: bytes) -> None:
    """Closes the descriptors in control messages that are not passed on."""

def recvmsg_part(sock: int | _Fileno, i: IovIter, flags: int, limit: int) -> int:
    """Calls `recvmsg` for at most `limit` bytes."""

def recvmsg_all(sock: int | _Fileno, i: IovIter, flags: int = 0) -> int:
    """Receives until the iterator is full or the peer has shut down. Returns the number of bytes.

    Errors are those of `readv_all`, and `ValueError` for flags that leave the bytes in the queue (`MSG_PEEK`) or do not
    receive them (`MSG_TRUNC`, `MSG_ERRQUEUE`).
    """

def vmsplice(fd: int | _Fileno, i: IovIter, flags: int = 0) -> int:
    """Calls `vmsplice` once. It moves the pages of a WRITE iterator by reference into the writing end of a pipe, or
    copies bytes from the reading end into a READ iterator.

    Spliced memory must not be changed until the reader has read it, since the pipe has the pages and not a copy.
    OSError EBADF if the descriptor is the wrong end of the pipe.
    """

def process_vm_readv(pid: int, local: IovIter, remote: Iterable[UserRange]) -> int:
    """Calls `process_vm_readv` once, which copies from ranges of another process's memory to a READ iterator. Only the
    first 1024 ranges are used.
    """

def process_vm_writev(pid: int, local: IovIter, remote: Iterable[UserRange]) -> int:
    """Calls `process_vm_writev` once, which copies from a WRITE iterator to ranges of another process's memory. Only
    the first 1024 ranges are used.
    """
