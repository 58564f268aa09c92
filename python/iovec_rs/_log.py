"""`PmemLog`: opening a log, with the bad blocks and the persistence domain of its device from sysfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import _badblocks, _nvdimm
from iovec_rs._core import MappedLog, RegionFile
from iovec_rs._names import file_name, require_open

if TYPE_CHECKING:
    from typing import Any, Self

    from _typeshed import StrOrBytesPath

__all__ = ["PmemLog"]


class PmemLog(MappedLog):
    """An append-only log in a persistent region: a ring of records, each complete and durable when `append` returns.

        with PmemLog.open("/mnt/pmem/wal", size=64 << 20, create=True) as log:
            n = log.append([key, value])  # one fence
            assert log.read(n) == key + value
            log.discard_before(n)

    Iteration yields a `Record` for each record whose header is intact, oldest first. One process writes; any number of
    processes may open the log with `writable=False` and see records as they are appended. docs/log.md has the format
    and the guarantees.
    """

    __slots__ = ()

    def __new__(cls, *opened: Any) -> Self:
        require_open(cls, opened, RegionFile)
        return super().__new__(cls, *opened)

    @classmethod
    def open(
        cls, path: StrOrBytesPath | int, *, size: int | None = None, create: bool = False, writable: bool = True
    ) -> Self:
        """Opens the log in a file. `path` is a path or a descriptor. A writer removes an incomplete record at the end;
        `recovered` is its size in bytes.

        With `create`, a log of `size` bytes (by default, the file's length) is made in a new file or one of zeroes; an
        existing log is opened. ValueError: the file holds something else, `size` is not that of the log, or it is less
        than 12288 bytes. BlockingIOError: another writer, in this process or another, has it open. OSError EBADMSG:
        both superblocks are damaged, or the file was truncated. An error leaves the file as it was.
        """
        name = file_name(path)
        with RegionFile(name, size=size, create=create, writable=writable) as file:
            found = file.claim_log(create)
            is_device = file.character_device is not None
            file.reserve(_nvdimm.dax_device(file.device, name) if is_device else None, found)
            bad = _badblocks.of_descriptor(file.fileno())
            caches_persist = _nvdimm.caches_persist("char" if is_device else "block", file.device)
            return cls(file, bad, caches_persist, create)
