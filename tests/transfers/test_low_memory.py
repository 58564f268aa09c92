"""Transfers without memory: MemoryError, and the iterator has not moved."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, PipeRing, UserRange, XArray, io
from support.own_process import little_memory, survives

_LEAST = 512
"""The size in bytes from which allocations fail."""


def _use_up() -> None:
    """Uses up malloc's free memory, so that every larger allocation needs the system."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    size = 1 << 16
    while size >= _LEAST:
        while malloc(size):
            pass
        size = size * 7 // 8


def pages_of_an_array() -> None:
    page = bytearray(PAGE_SIZE)
    i = IovIter.xarray(WRITE, XArray(dict.fromkeys(range(1024), page)), 0, 1024 * PAGE_SIZE)
    null = os.open("/dev/null", os.O_WRONLY)
    with little_memory(0):
        _use_up()
        with pytest.raises(MemoryError):
            io.writev(null, i)
    assert i.count == 1024 * PAGE_SIZE


def ranges_of_another_process() -> None:
    i = IovIter.kvec(READ, [bytearray(10)])
    ranges = [UserRange(8, 1)] * 1024
    with little_memory(0):
        _use_up()
        with pytest.raises(MemoryError):
            io.process_vm_readv(os.getpid(), i, ranges)
    assert i.count == 10


def a_ring_that_is_empty() -> None:
    i = IovIter.pipe(READ, PipeRing(64), 64 * PAGE_SIZE)
    zero = os.open("/dev/zero", os.O_RDONLY)
    with little_memory(0):
        _use_up()
        with pytest.raises(MemoryError):
            io.readv(zero, i)
    assert i.count == 64 * PAGE_SIZE


@pytest.mark.parametrize("program", [pages_of_an_array, ranges_of_another_process, a_ring_that_is_empty])
def test_a_transfer_without_memory_is_refused(program: object) -> None:
    assert callable(program)
    survives(program)


RECEIVE = """
import array, os, socket
import _testcapi
from iovec_rs import READ, IovIter, io

def numbers():
    return set(os.listdir("/proc/self/fd"))

a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", os.pipe()))]
refused = whole = 0
for at in range(60):
    for ends in (at + 1, 0):  # one allocation fails, or each from there on
        b.sendmsg([b"hello"], rights)
        i = IovIter.ubuf(READ, bytearray(10))
        before = numbers()
        got = None
        _testcapi.set_nomemory(at, ends)
        try:
            got = io.recvmsg(a, i, 100)
        except MemoryError:
            pass
        finally:
            _testcapi.remove_mem_hooks()
        if got is not None:
            whole += 1
            for fd in array.array("i", got[1][0][2]):
                os.close(fd)
        elif i.count == 5:
            refused += 1
        else:
            assert a.recv(10) == b"hello", "nothing was received"
        assert numbers() == before, f"allocation {at}: {numbers() ^ before} stayed open"
assert refused and whole, (refused, whole)
"""


def test_received_descriptors_that_cannot_be_returned_are_closed() -> None:
    pytest.importorskip("_testcapi", reason="this CPython has no hooks into its allocator")
    done = subprocess.run([sys.executable, "-c", RECEIVE], check=False, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-2000:]
