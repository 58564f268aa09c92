"""If there is no memory for something whose size the caller decides, the call raises MemoryError and the process goes
on.
"""

from __future__ import annotations

import ctypes
import errno
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    READ,
    FaultMap,
    IovIter,
    PmemLog,
    SafeMap,
    copy_ranges,
    copy_to_iter,
    cpu,
    fault_handler,
    guard,
    pmem,
)

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = """
import resource, sys
from iovec_rs import *

def leave(megabytes):
    used = int(open("/proc/self/statm").read().split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20),) * 2)
"""

GROWING = {
    "a map that is added to": """
bad = FaultMap()
leave(20)
try:
    for k in range(10**7):
        bad.add(2 * k, 1, "both")
except MemoryError:
    # What was refused changed nothing: all before it is there, and both accesses are of one mind.
    assert len(bad) == k
    assert all(bad.first_in(2 * k, 1, access) is None for access in ("read", "write"))
    assert bad.first_in(2 * k - 2, 1) == (2 * k - 2, 1, "both")
    print("refused")
""",
    "a list of bad blocks": """
text = "\\n".join(f"{2 * k} 1" for k in range(10**6))
leave(10)
try:
    FaultMap.from_badblocks(text)
except MemoryError:
    print("refused")
""",
    "a mapfile that is read": """
text = "0 +\\n" + "\\n".join(f"{k} 1 {'+-'[k % 2]}" for k in range(10**6))
leave(4)
try:
    FaultMap.from_mapfile(text)
except MemoryError:
    print("refused")
""",
    "a mapfile that is written": """
bad = FaultMap((2 * k, 1) for k in range(10**6))
leave(20)
try:
    bad.to_mapfile(2 * 10**6)
except MemoryError:
    print("refused")
""",
    "the bad parts of a buffer": """
bad, memory = FaultMap(), UserRange(4096, 2 * 10**6)
for k in range(10**6):
    bad.add(4096 + 2 * k, 1)
leave(20)
try:
    bad.within(memory)
except MemoryError:
    print("refused")
""",
    "segments": """
segments = [bytearray(8)] * 10**6
leave(20)
try:
    IovIter.iovec(READ, segments)
except MemoryError:
    segments[0].append(1)  # BufferError if it were still exported
    print("refused")
""",
    "packed ranges": """
import mmap
packed = mmap.mmap(-1, 16 * 10**7)
leave(60)
try:
    copy_ranges(packed, packed)
except MemoryError:
    print("refused")
""",
    "ranges of an iterator": """
i = IovIter.iovec(WRITE, [b"x"] * 10**6)
leave(20)
try:
    i.ranges()
except MemoryError:
    assert i.count == 10**6
    print("refused")
""",
    "a packed array of ranges": """
import mmap
vector = mmap.mmap(-1, 16 * 4 * 10**6)
leave(10)
try:
    copy_ranges(vector, vector)
except MemoryError as error:
    assert "no memory for 64000000 bytes" in str(error)
    vector.close()  # BufferError if it were still exported
    print("refused")
""",
    "a map that is read one range at a time": """
bad = FaultMap((2 * k, 1) for k in range(10**6))
leave(2)
assert sum(length for _, length, _ in bad) == 10**6
print("refused nothing")
""",
}


@pytest.mark.parametrize("name", GROWING)
def test_no_memory_is_an_exception(name: str) -> None:
    program = [sys.executable, "-c", HEAD + GROWING[name]]
    done = subprocess.run(program, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("refused"), "there was memory for it: the test asks for too little"


WITHOUT_ANY = {
    "a vector": "IovIter.iovec(READ, [page] * 2)",
    "one segment": "IovIter.ubuf(READ, page)",
    "an import": "import_iovec(READ, [page] * 9)",
    "an import of one's own array": "iovec_from_user([page] * 9)",
    "a record": "log.append([page, page])",
    "a publication": "slot.publish([page, page])",
}


@pytest.mark.parametrize("name", WITHOUT_ANY)
def test_that_there_is_no_memory_is_said_without_any(name: str) -> None:
    """Locks take the memory that the C library has, while the interpreter has room for objects of its own."""
    if sys.version_info >= (3, 13):
        pytest.skip("locks take no memory of the C library")
    program = f"""
import _thread, os
page, locks, room = bytearray(4096), [None] * 100_000, [bytes(10) for _ in range(100_000)]
log, slot = PmemLog.open(os.memfd_create("log"), size=1 << 16, create=True), Slot(bytearray(1 << 16))
call = lambda: {WITHOUT_ANY[name]}
leave(0)
room.clear()
try:
    for k in range(len(locks)):
        locks[k] = _thread.allocate_lock()
except (MemoryError, RuntimeError):
    try:
        call()  # A few bytes may be left, which are enough for some of them.
    except (MemoryError, OSError):
        pass
    os.write(1, b"alive")
"""
    command = [sys.executable, "-c", HEAD + program]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "alive"


LONG = "x" * 100_000
OF_A_LONG_NAME: Any = type(LONG, (), {})()
FIELDS = [(f"{LONG[:1000]}{k}", ctypes.c_float) for k in range(9)]
FLOATS: Any = type("Floats", (ctypes.Structure,), {"_fields_": FIELDS})


def iterate(i: IovIter, result: object) -> None:
    i.iterate_and_advance(1, lambda _view, _progress: result)  # type: ignore[arg-type, return-value]


QUOTING: dict[str, Callable[[], object]] = {
    "a mode": lambda: fault_handler.mode(LONG).__enter__(),  # type: ignore[arg-type]
    "an instruction set": lambda: cpu.use_isa(LONG),
    "an instruction": lambda: cpu.use_flush_instruction(LONG),
    "a tuning": lambda: cpu.use_tuning(LONG),
    "a length in a tuning": lambda: cpu.use_tuning(f"durable_from={LONG}"),
    "a guard's option": lambda: guard(bytearray(1), on_fault=LONG),  # type: ignore[arg-type]
    "a map's mode": lambda: SafeMap.open(__file__, LONG),  # type: ignore[arg-type]
    "an access": lambda: FaultMap().add(0, 1, LONG),
    "a class": lambda: copy_to_iter(OF_A_LONG_NAME, IovIter.ubuf(READ, bytearray(1))),
    "a step's class": lambda: iterate(IovIter.ubuf(READ, bytearray(1)), OF_A_LONG_NAME),
    "a format": lambda: copy_ranges((FLOATS * 4)(), bytes(4 * ctypes.sizeof(FLOATS))),
    "a path": lambda: pmem.PmemRegion.open(LONG),
    "a log's path": lambda: PmemLog.open(LONG),
}


@pytest.mark.parametrize("what", QUOTING)
def test_a_refusal_shows_only_the_beginning_of_a_long_text(what: str) -> None:
    """Its text is allocated whatever memory there is."""
    with pytest.raises((OSError, TypeError, ValueError)) as caught:
        QUOTING[what]()
    if isinstance(caught.value, OSError):
        assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, LONG)
    else:
        assert 20 < len(str(caught.value)) < 500
