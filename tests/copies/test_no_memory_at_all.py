"""The interpreter's allocator fails at each allocation of a call in turn: the call succeeds or raises, and never
aborts.

It raises MemoryError or the exception that is due, also if there is no memory for the text of that. No call makes PyO3
panic, which would be a PanicException.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = r"""
import copy, os, pickle, sys
import _testcapi
from iovec_rs import *
from iovec_rs import testing

page, map_ = bytearray(4096), FaultMap([(1, 2)])
filled = PipeRing(4)
copy_to_iter(b"abc", IovIter.pipe(READ, filled, 3))
cut = testing.truncated(1, 0)
gone = cut.__enter__()
ring, i = PipeRing(4), IovIter.iovec(READ, [bytearray(5000), bytearray(300)])
saved, full = i.save_state(), PipeRing(512)
assert full.write(bytes(512 * 4096)) == 512 * 4096
CALLS = {
    "a ring of no power of two": lambda: PipeRing(3),
    "no segments": lambda: IovIter.iovec(READ, 5),
    "a read-only destination": lambda: copy_to_iter(b"abc", IovIter.ubuf(READ, b"123")),
    "no such line": lambda: FaultMap.from_badblocks("1 2\n3 x"),
    "no such mode": lambda: fault_handler.mode("loud"),
    "a path that is not there": lambda: pmem.PmemRegion.open("/no/such/file"),
    "a ring": lambda: PipeRing(1 << 17),
    "a queue": lambda: FolioQueue([page] * 3),
    "an array": lambda: XArray({1: page}),
    "a vector": lambda: IovIter.iovec(READ, [page] * 4),
    "a copy": lambda: copy_to_iter(bytes(3000), IovIter.ubuf(READ, page)),
    "a copy and its sum": lambda: crc32c_and_copy_to_iter(bytes(3000), IovIter.ubuf(READ, page)),
    "a sum": lambda: crc32c(page, 1 << 31),
    "the sum of an iterator": lambda: crc32c(IovIter.ubuf(WRITE, page)),
    "two sums": lambda: crc32c_combine(1, 2, 3),
    "a careful copy and its sum": lambda: crc32c_and_copy_to_iter_mcsafe(bytes(3000), IovIter.ubuf(READ, page)),
    "a flat copy and its sum": lambda: crc32c_and_memcpy_mcsafe(page, bytes(4096)),
    "a durable copy and its sum": lambda: crc32c_and_memcpy_flushcache(page, bytes(4096)),
    "all of a copy": lambda: copy_to_iter_full(bytes(3000), IovIter.ubuf(READ, page)),
    "a flat copy": lambda: memcpy_mcsafe(page, bytes(4096)),
    "a map": lambda: list(map_),
    "maps joined": lambda: map_ | map_,
    "what is no map": lambda: map_ | 3,
    "the complement": lambda: map_.complement(1 << 40),
    "a map's copy": lambda: copy.copy(map_),
    "a map's pickle": lambda: pickle.dumps(map_),
    "maps compared": lambda: map_ == FaultMap(),
    "what a map knows": lambda: map_.first_in(0, 1 << 40),
    "a list of bad blocks": lambda: map_.to_badblocks(),
    "a mapfile": lambda: map_.to_mapfile(1 << 40),
    "more in a map": lambda: map_.add(1 << 40, 1 << 20),
    "JSON": lambda: FaultMap.from_ndctl('[{"dev":"namespace0.0","badblocks":[{"offset":2,"length":1}]}]'),
    "bad memory": lambda: copy_from_iter(bytearray(100), IovIter.kvec(WRITE, [gone])),
    "bad memory and a sum": lambda: crc32c_and_copy_from_iter(bytearray(100), IovIter.kvec(WRITE, [gone])),
    "what is in a ring": lambda: filled.slots,
    "how a ring looks": lambda: repr(ring),
    "how an iterator looks": lambda: repr(i),
    "how a map looks": lambda: repr(map_),
    "a state": i.save_state,
    "ranges": i.ranges,
    "views": i.views,
    "a count": lambda: i.count,
    "a saved count": lambda: saved.count,
    "alignment": i.alignment,
    "pages": lambda: i.npages(1 << 40),
    "slots": lambda: full.used,
    "the handler's state": fault_handler.status,
    "the mode": lambda: fault_handler.mode(),
    "the instructions": lambda: cpu.isa(),
    "segments from user space": lambda: import_iovec(READ, [page] * 4),
}
for name, call in CALLS.items():
    try:
        call()
    except Exception:
        pass
for name, call in CALLS.items():
    for at in range(40):
        child = os.fork()
        if child == 0:
            code = 3
            try:
                _testcapi.set_nomemory(at, at + 1)
                call()
                code = 0
            except Exception:
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        if status:
            print(f"{name}: allocation {at}: status {status}")
"""


def test_an_allocation_of_the_interpreters_that_fails_is_an_exception() -> None:
    pytest.importorskip("_testcapi", reason="this CPython has no hooks into its allocator")
    done = subprocess.run(
        [sys.executable, "-c", "from iovec_rs import pmem\n" + PROGRAM],
        check=False, capture_output=True, text=True, timeout=300, env=os.environ | {"RUST_BACKTRACE": "0"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]


def test_no_exception_is_left_for_pyo3_to_make() -> None:
    sources = (Path(__file__).parent.parent.parent / "src" / "py").rglob("*.rs")
    assert [path.name for path in sources if "::new_err(" in path.read_text(encoding="utf-8")] == []
