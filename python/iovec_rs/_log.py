"""`PmemLog`: opening a log, with what the system knows about its file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iovec_rs import _badblocks, _nvdimm
from iovec_rs._core import LogClaim, MappedLog, RegionFile

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import StrOrBytesPath

__all__ = ["PmemLog"]


class PmemLog(MappedLog):
    """An append-only log in a persistent region: a ring of records, each durable and whole when `append` returns.

        with PmemLog.open("/mnt/pmem/wal", size=64 << 20, create=True) as log:
            n = log.append([key, value])  # one fence
            assert log.read(n) == key + value
            log.discard_before(n)

    Iterating gives a `Record` for each record whose header is good, oldest first. One process writes; any number may
    open it with `writable=False` and see what is appended. docs/log.md says what is stored and what survives what.
    """

    __slots__ = ()

    @classmethod
    def open(
        cls, path: StrOrBytesPath | int, *, size: int | None = None, create: bool = False, writable: bool = True
    ) -> Self:
        """Opens the log in a file, by its path or a descriptor of it, and cuts its torn tail: `recovered` bytes.

        `create` makes one of `size` bytes (the file's length by default) in a new file or one of zeroes; a log that is
        there is opened all the same. ValueError: the file has something else in it; `size` is not that of the log;
        fewer than 12288 bytes. BlockingIOError: another writer, of this process or another, has it open. OSError
        EBADMSG: both superblocks are damaged, or the file was cut. What is refused leaves the file as it was.
        """
        name = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)
        with RegionFile(name, size=size, create=create, writable=writable) as file:
            claim = LogClaim(file, create)
            is_device = file.character_device is not None
            file.reserve(_nvdimm.dax_device(file.device, name) if is_device else None, claim.size)
            bad = _badblocks.of_descriptor(file.fileno())
            caches_persist = _nvdimm.caches_persist("char" if is_device else "block", file.device)
            return cls(file, claim, bad, caches_persist, create)
