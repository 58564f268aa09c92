"""A child forked at any moment can make results, since the classes and strings they need are made at import.

If a class or string were made at its first use, its thread would hold a lock while it waits for the interpreter, and a
child forked meanwhile would wait for that lock for ever. The race is narrow, so each test runs it several times.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import mmap, os, sys, threading, time
from iovec_rs import *

SIZE = 16384
fd = os.memfd_create("cut")
os.ftruncate(fd, SIZE)
cut = mmap.mmap(fd, SIZE)
os.ftruncate(fd, 4096)
sys.setswitchinterval(1e-6)

def result():
    assert memcpy_mcsafe(bytearray(SIZE), cut).fault.cause == "gone"

def error():
    try:
        copy_to_iter(cut, IovIter.kvec(READ, [bytearray(SIZE)]))
    except FaultError as error:
        assert error.copied == 4096

def attributes():
    i = IovIter.iovec(READ, [bytearray(SIZE)])
    assert copy_to_iter(cut, i, nbytes=SIZE) == 4096
    assert (i.fault.offset, i.kind, i.direction) == (4096, "iovec", READ)

def ranges():
    i = IovIter.iovec(READ, [memoryview(bytearray(SIZE))])
    (where,) = i.ranges()
    assert where.length == SIZE and i.views()[0].nbytes == SIZE and i.get_pages(1, 1).nbytes == 1
    bad = FaultMap([(1, 2)])
    assert list(bad) == [(1, 2, "read")] and copy_to_iter_mcsafe(b"x", i, fault_map=bad) == 1

def maps():
    bad = FaultMap([(1, 2), (4, 2, "write")])
    assert list(bad) == [(1, 2, "read"), (4, 2, "write")] and bad == FaultMap(bad)
    bad.poison(bytearray(8))

def refusals():
    for call in [lambda: copy_to_iter(b"", None), lambda: FaultMap(0), lambda: IovIter.ubuf(READ, b"x")]:
        try:
            call()
        except (TypeError, BufferError):
            pass

use = globals()[sys.argv[1]]
running = threading.Event()
def work():
    running.set()
    use()

threading.Thread(target=work, daemon=True).start()
running.wait()
children = []
for _ in range(15):
    child = os.fork()
    if not child:
        use()
        os._exit(0)
    children.append(child)
end = time.monotonic() + 60
while children and time.monotonic() < end:
    children = [child for child in children if not os.waitpid(child, os.WNOHANG)[0]]
    time.sleep(0.002)
for child in children:
    os.kill(child, 9)
os._exit(len(children))
"""


@pytest.mark.parametrize("use", ["result", "error", "attributes", "ranges", "maps", "refusals"])
def test_no_child_waits_for_ever(use: str) -> None:
    for _ in range(20):
        subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM, use], check=True, timeout=300)
