"""Linux's `iov_iter` in user space: one cursor over scattered memory.

`IovIter` is the cursor. It has one class method for each kind of memory; `import_iovec` makes one from a vector. The
copy functions have the kernel's names: `copy_to_iter(addr, i)` fills the iterator's memory, `copy_from_iter(addr, i)`
reads it. Both return the number of bytes copied, by which the iterator moves.
"""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iovec_rs import cpu, fault_handler, pmem
from iovec_rs._core import (
    CACHE_LINE_SIZE,
    MAX_RW_COUNT,
    PAGE_SIZE,
    UIO_FASTIOV,
    UIO_MAXIOV,
    FaultMap,
    FolioQueue,
    Guard,
    IovecArray,
    IovIter,
    IterKind,
    IterState,
    PipeRing,
    RangeResults,
    Slot,
    XArray,
    __version__,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_full,
    copy_from_iter_full_nocache,
    copy_from_iter_nocache,
    copy_iter,
    copy_page_from_iter,
    copy_page_from_iter_atomic,
    copy_page_to_iter,
    copy_ranges,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_full,
    copy_to_iter_mcsafe,
    crc32c,
    crc32c_and_copy_from_iter,
    crc32c_and_copy_from_iter_flushcache,
    crc32c_and_copy_to_iter,
    crc32c_and_copy_to_iter_mcsafe,
    crc32c_and_memcpy_flushcache,
    crc32c_and_memcpy_mcsafe,
    crc32c_combine,
    csum_and_copy_from_iter,
    csum_and_copy_from_iter_full,
    csum_and_copy_to_iter,
    guard,
    hash_and_copy_to_iter,
    import_iovec,
    import_single_range,
    import_ubuf,
    iovec_from_user,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
)
from iovec_rs._log import PmemLog
from iovec_rs._safe_map import SafeMap
from iovec_rs._types import (
    DEST,
    READ,
    SOURCE,
    WRITE,
    BioVec,
    CorruptError,
    Direction,
    Fault,
    FaultError,
    FaultRange,
    McResult,
    PageSpan,
    Record,
    TornError,
    UserRange,
)

if TYPE_CHECKING:
    from types import ModuleType

    from iovec_rs import aio, io

Sequence.register(IovecArray)
Sequence.register(RangeResults)

copy_mc_to_iter = copy_to_iter_mcsafe

__all__ = [
    "CACHE_LINE_SIZE",
    "DEST",
    "MAX_RW_COUNT",
    "PAGE_SIZE",
    "READ",
    "SOURCE",
    "UIO_FASTIOV",
    "UIO_MAXIOV",
    "WRITE",
    "BioVec",
    "CorruptError",
    "Direction",
    "Fault",
    "FaultError",
    "FaultMap",
    "FaultRange",
    "FolioQueue",
    "Guard",
    "IovIter",
    "IovecArray",
    "IterKind",
    "IterState",
    "McResult",
    "PageSpan",
    "PipeRing",
    "PmemLog",
    "RangeResults",
    "Record",
    "SafeMap",
    "Slot",
    "TornError",
    "UserRange",
    "XArray",
    "__version__",
    "aio",
    "copy_from_iter",
    "copy_from_iter_flushcache",
    "copy_from_iter_full",
    "copy_from_iter_full_nocache",
    "copy_from_iter_nocache",
    "copy_iter",
    "copy_mc_to_iter",
    "copy_page_from_iter",
    "copy_page_from_iter_atomic",
    "copy_page_to_iter",
    "copy_ranges",
    "copy_to_iter",
    "copy_to_iter_flushcache",
    "copy_to_iter_full",
    "copy_to_iter_mcsafe",
    "cpu",
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
    "fault_handler",
    "guard",
    "hash_and_copy_to_iter",
    "import_iovec",
    "import_single_range",
    "import_ubuf",
    "io",
    "iovec_from_user",
    "memcpy_flushcache",
    "memcpy_mcsafe",
    "memcpy_nocache",
    "pmem",
]


def __getattr__(name: str) -> "ModuleType":
    # socket and asyncio take longer to import than the rest of the package.
    if name in {"aio", "io"}:
        return importlib.import_module(f"iovec_rs.{name}")
    raise AttributeError(f"module 'iovec_rs' has no attribute {name!r}")
