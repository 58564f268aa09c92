"""Calls that need memory when there is little, each in a forked child: they succeed or raise MemoryError, and never
die.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import iovec_rs
from iovec_rs import READ, WRITE, FaultMap, FolioQueue, IovIter, PipeRing, PmemLog, Slot, XArray
from iovec_rs.pmem import PmemRegion

from hunt.finding import doing, expect, noted
from hunt.scene import ended, forked

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

NUMBER = 200_000
_BUFFER = bytearray(1 << 20)
_VIEWS = [memoryview(_BUFFER)[k : k + 1] for k in range(1000)] * (NUMBER // 1000)
_PAGE = bytearray(4096)
_MANY = IovIter.iovec(READ, _VIEWS)
_MAP = FaultMap((k * 2, 1) for k in range(NUMBER))
_TEXT = "\n".join(f"{k * 2} 1" for k in range(NUMBER))
_MAPFILE = _MAP.to_mapfile(2 * NUMBER)
_NDCTL = (
    '[{"dev":"namespace0.0","badblocks":[' + ",".join(f'{{"offset":{2 * k},"length":1}}' for k in range(50_000)) + "]}]"
)
_DIGEST = hashlib.sha256()
_LARGE = mmap.mmap(-1, 64 << 20)
_LOG, _FILE = (os.memfd_create(name) for name in ("log", "file"))
os.truncate(_FILE, len(_LARGE))
with PmemLog.open(_LOG, size=20 << 20, create=True) as _log:
    _log.append(_LARGE[: 12 << 20])
    for _ in range(10_000):
        _log.append(b"short")
_SLOT = Slot(mmap.mmap(-1, 40 << 20))
_SLOT.publish(_LARGE[: 16 << 20])


def _log_of_a_writer() -> None:
    with PmemLog.open(_LOG) as log:
        log.append(_VIEWS)
        for _ in range(3000):
            log.append(b"one more")
        log.discard_before(5)


def _log_of_a_reader() -> None:
    with PmemLog.open(_LOG, writable=False) as log:
        for record in list(log)[:3]:
            log.read(record.sequence)
        log.verify()


def _guard() -> None:
    """A guard that meets 64 pages of a truncated file."""
    file = os.memfd_create("cut")
    os.truncate(file, len(_LARGE))
    memory = mmap.mmap(file, len(_LARGE))
    os.truncate(file, 0)
    with iovec_rs.guard(memory, on_fault="record") as found:
        for at in range(0, len(memory), 1 << 20):
            memory[at]
    _ = found.faults


def _map_of_a_file() -> None:
    with iovec_rs.SafeMap.open(_FILE, "r+") as map_:
        map_.read(0, len(_LARGE))
        map_.write(0, _LARGE)
        map_.flush()


def _region() -> None:
    with PmemRegion.open(_FILE) as region:
        region.write(0, _VIEWS)
        region.write(5000, memoryview(region)[: 8 << 20])
        region.read_into_crc32c(0, _LARGE)


def _grow_map() -> None:
    known = FaultMap()
    for k in range(NUMBER * 10):
        known.add(k * 2, 1)


def _grow_queue() -> None:
    queue = FolioQueue()
    for _ in range(NUMBER * 10):
        queue.append(_PAGE)


def _grow_array() -> None:
    array = XArray()
    for index in range(NUMBER * 10):
        array.store(index * 64, _PAGE)


def _fill_ring() -> None:
    ring = PipeRing(1 << 14)
    iovec_rs.copy_to_iter(_LARGE, IovIter.pipe(READ, ring, 64 << 20))
    while ring.used:
        ring.read()


def _overlap() -> None:
    view = memoryview(_LARGE)
    iovec_rs.copy_to_iter(view[: 40 << 20], IovIter.iovec(READ, [view[5000 : (40 << 20) + 5000]]))


CALLS: dict[str, Callable[[], object]] = {
    "IovIter.iovec": lambda: IovIter.iovec(READ, _VIEWS),
    "IovIter.kvec": lambda: IovIter.kvec(WRITE, _VIEWS),
    "IovIter.bvec": lambda: IovIter.bvec(WRITE, [(_PAGE, 0, 1)] * NUMBER),
    "dup": _MANY.dup,
    "ranges": _MANY.ranges,
    "views": _MANY.views,
    "save_state": lambda: [_MANY.save_state() for _ in range(NUMBER)],
    "get_pages": lambda: IovIter.ubuf(WRITE, _LARGE).get_pages(64 << 20, 1 << 30),
    "extract_pages": lambda: IovIter.ubuf(WRITE, _LARGE).extract_pages(64 << 20, 1 << 30),
    "for_each_range": lambda: IovIter.kvec(WRITE, _VIEWS).for_each_range(1 << 20, lambda _: None),
    "import_iovec": lambda: iovec_rs.import_iovec(READ, _VIEWS[:1024]),
    "import_iovec packed": lambda: iovec_rs.import_iovec(READ, bytes(16 * 1024)),
    "iovec_from_user": lambda: [iovec_rs.iovec_from_user(_VIEWS[:1024]) for _ in range(2000)],
    "FaultMap": lambda: FaultMap((k * 2, 1) for k in range(NUMBER * 10)),
    "FaultMap.add": _grow_map,
    "FaultMap list": lambda: list(_MAP),
    "FaultMap.within": lambda: _MAP.within(iovec_rs.UserRange(0, 2 * NUMBER)),
    "FaultMap.from_badblocks": lambda: FaultMap.from_badblocks(_TEXT),
    "FaultMap.from_mapfile": lambda: FaultMap.from_mapfile(_MAPFILE),
    "FaultMap.from_ndctl": lambda: FaultMap.from_ndctl(_NDCTL),
    "FaultMap.to_mapfile": lambda: _MAP.to_mapfile(2 * NUMBER),
    "FolioQueue": lambda: FolioQueue([_PAGE] * NUMBER),
    "FolioQueue slots": lambda: FolioQueue([_PAGE], 1 << 24),
    "FolioQueue.append": _grow_queue,
    "XArray": lambda: XArray(dict.fromkeys(range(NUMBER), _PAGE)),
    "XArray.store": _grow_array,
    "PipeRing": lambda: PipeRing(1 << 17),
    "PipeRing filled": _fill_ring,
    "overlap": _overlap,
    "hash": lambda: iovec_rs.hash_and_copy_to_iter(_LARGE, IovIter.discard(READ, 64 << 20), _DIGEST),
    "checksum": lambda: iovec_rs.csum_and_copy_to_iter(_LARGE, IovIter.ubuf(READ, _LARGE)),
    "mcsafe": lambda: iovec_rs.memcpy_mcsafe(_LARGE, _LARGE, fault_map=_MAP),
    "copy_ranges": lambda: iovec_rs.copy_ranges(_VIEWS, _VIEWS, crc32c=True).crc32c,
    "PmemLog": _log_of_a_writer,
    "PmemLog to read": _log_of_a_reader,
    "Slot.publish": lambda: _SLOT.publish(_VIEWS),
    "Slot.consume": lambda: _SLOT.consume(_LARGE),
    "PmemRegion": _region,
    "SafeMap": _map_of_a_file,
    "guard": _guard,
}


def child(name: str, room: int) -> int:
    """The exit code of a child that makes one call with this many bytes of address space left."""
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
    try:
        CALLS[name]()
    except MemoryError:
        return 0
    except OSError as error:
        return 0 if error.errno == 12 else 3
    return 0


def hunt(rng: random.Random) -> None:
    name = rng.choice(list(CALLS))
    room = rng.choice((0, 64 << 10, 1 << 20, 3 << 20, rng.randrange(30 << 20)))
    doing(f"{name}, {room} bytes left")
    sys.stderr.flush()
    status = forked(lambda: child(name, room))
    how = ended(status)
    expect(status == 0, f"{name} with little memory ends in {how}", f"{room} bytes left", noted())
