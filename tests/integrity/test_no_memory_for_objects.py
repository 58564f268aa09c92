"""The interpreter's allocator fails once, or from some allocation on for ever: logs, slots, ranges and sums raise.

Each call runs in a child for each allocation that may fail. It succeeds, or raises what a caller can catch: no panic of
PyO3's, which is a `BaseException`, or the end of the process where a second one follows, and no `SystemError` for
want of an exception.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = r"""
import os, sys
import _testcapi
from iovec_rs import *
from iovec_rs.pmem import PmemLog

path = sys.argv[1]
log = PmemLog.open(path, size=1 << 16, create=True)
log.append(bytes(1000))
with PmemLog.open(path + ".damaged", size=1 << 16, create=True) as whole:
    at = whole.record(whole.append(b"data" * 100)).offset
with open(path + ".damaged", "r+b") as file:
    file.seek(at + 8)
    file.write(b"DATA")
damaged = PmemLog.open(path + ".damaged")
slot, torn, room = Slot(bytearray(4096)), Slot(bytearray(b"\1" * 128)), bytearray(2000)
slot.publish(bytes(500))
bad, dst, data = UserRange(0, 100), [bytearray(3), bytearray(4)], [b"abc", b"defg"]
map_, results = FaultMap(), copy_ranges(dst, data, crc32c=True)
CALLS = {
    "append": lambda: log.append([b"a", b"b"]),
    "append nothing iterable": lambda: log.append(None),
    "append too much": lambda: log.append(bytes(1 << 17)),
    "append bad memory": lambda: log.append(IovIter.ubuf(SOURCE, bad)),
    "read": lambda: log.read(0),
    "read into": lambda: log.read_into(0, room),
    "read what is damaged": lambda: damaged.read(0),
    "read what is not there": lambda: log.read(1000),
    "verify": lambda: damaged.verify(),
    "records": lambda: list(log),
    "discard": lambda: log.discard_before(0),
    "numbers": lambda: (log.first, log.last, log.free, log.nbytes),
    "how a log looks": lambda: repr(log),
    "publish": lambda: slot.publish([bytes(400), bytes(100)]),
    "publish nothing iterable": lambda: slot.publish(5),
    "consume": lambda: slot.consume(room),
    "consume too much": lambda: slot.consume(bytearray(3)),
    "consume a torn publication": lambda: torn.consume(room),
    "ranges": lambda: copy_ranges(dst, data, crc32c=True),
    "packed ranges": lambda: copy_ranges(bytes(160), bytes(160)),
    "bad ranges": lambda: copy_ranges([bytearray(100)], [bad], crc32c=True, fault_map=map_),
    "results": lambda: (results[:], results[0], results.crc32c, results.failed, repr(results)),
    "no list": lambda: IovIter.kvec(SOURCE, 5),
    "the sum of bad memory": lambda: crc32c(bad),
    "a copy of bad memory and its sum": lambda: crc32c_and_copy_to_iter(bad, IovIter.kvec(DEST, [bytearray(100)])),
    "open to write": lambda: PmemLog.open(path + ".damaged"),
    "open to read": lambda: PmemLog.open(path, writable=False),
}


def ends_well(call, first, last):
    try:
        _testcapi.set_nomemory(first, last)
        try:
            call()
        finally:
            _testcapi.remove_mem_hooks()
    except SystemError as error:
        # CPython 3.11 loses any exception if there is no memory for the frame in its traceback, and says this. Of a
        # function of ours that raised nothing it would say that it "returned NULL without setting an exception".
        return str(error) == "error return without exception set"
    except Exception:
        return True
    return True


def fails_at(name, first, last):
    child = os.fork()
    if child == 0:
        code = 3
        try:
            code = 0 if ends_well(CALLS[name], first, last) else 4
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if status:
        print(f"{name}: allocation {first}{'' if last else ' and all after it'}: status {status:#x}")


# The first call of a process makes what later ones find.
for name in CALLS:
    for first in range(1, 12):
        fails_at(name, first, 0)
for call in CALLS.values():
    try:
        call()
    except Exception:
        pass
for name in CALLS:
    for first in range(1, 40):
        for last in (first + 1, 0):  # once, for ever
            fails_at(name, first, last)
"""


def test_no_memory_for_an_object_is_an_exception(tmp_path: Path) -> None:
    pytest.importorskip("_testcapi", reason="this CPython has no hooks into its allocator")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "log")],
        check=False, capture_output=True, text=True, timeout=600, env=os.environ | {"RUST_BACKTRACE": "0"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
