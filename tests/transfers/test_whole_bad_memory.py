"""Whole transfers over memory that ends in the middle."""

from __future__ import annotations

import os
import resource
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    IovIter,
    PipeRing,
    UserRange,
    XArray,
    copy_from_iter,
    io,
)
from support.arena import Arena, Page

from transfers.support import connected, pattern, segments

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def written_to_a_socket(i: IovIter) -> tuple[bytes, OSError]:
    with connected(blocks=True) as (left, right):
        with pytest.raises(OSError, match="bad memory") as raised:
            io.sendmsg_all(left, i)
        left.shutdown(socket.SHUT_WR)
        received = bytearray()
        while part := right.recv(1 << 20):
            received += part
        return bytes(received), raised.value


def written_to_a_pipe(i: IovIter) -> tuple[bytes, OSError]:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader:
        with os.fdopen(into, "wb", buffering=0) as writer, pytest.raises(OSError, match="bad memory") as raised:
            io.writev_all(writer, i)
        return reader.read(), raised.value


def written_to_a_file(i: IovIter) -> tuple[bytes, OSError]:
    fd = os.memfd_create("written")
    try:
        with pytest.raises(OSError, match="bad memory") as raised:
            io.pwritev_all(fd, i, 0)
        return os.pread(fd, 1 << 20, 0), raised.value
    finally:
        os.close(fd)


@pytest.mark.parametrize("good", [0, 1, 100, PAGE_SIZE, 3 * PAGE_SIZE + 5])
@pytest.mark.parametrize("sink", [written_to_a_socket, written_to_a_pipe, written_to_a_file])
@pytest.mark.parametrize("bad", [Page.UNMAPPED, Page.PROTECTED, Page.GONE])
def test_the_bytes_before_bad_memory_are_written_and_counted(
    good: int, sink: Callable[[IovIter], tuple[bytes, OSError]], bad: Page
) -> None:
    pages = -(-good // PAGE_SIZE)
    content = pattern(pages * PAGE_SIZE)
    with Arena([Page.GOOD] * pages + [bad, Page.GOOD], content) as arena:
        start = arena.address + pages * PAGE_SIZE - good
        i = IovIter.iovec(WRITE, [UserRange(start, good + 100)])
        received, error = sink(i)
        assert received == content[len(content) - good :]
        assert i.count == 100
        assert isinstance(error, FaultError)
        assert (error.copied, error.characters_written) == (good, good)  # type: ignore[attr-defined]
        assert (error.fault.side, error.fault.cause, error.fault.address) == ("source", bad.cause, start + good)
        assert i.fault == error.fault


@pytest.mark.parametrize("bad", [Page.UNMAPPED, Page.READ_ONLY, Page.GONE])
def test_the_bytes_before_bad_memory_are_read_and_counted_and_the_rest_stays(bad: Page) -> None:
    content = pattern(3 * PAGE_SIZE)
    out, into = os.pipe()
    os.write(into, content)
    with Arena([Page.GOOD, bad]) as arena:
        i = IovIter.iovec(READ, [UserRange(arena.address + 100, PAGE_SIZE)])
        with pytest.raises(FaultError) as raised:
            io.readv_all(out, i)
        assert (raised.value.copied, i.count) == (PAGE_SIZE - 100, 100)
        assert raised.value.fault.side == "destination"
        copied = bytearray(PAGE_SIZE - 100)
        copy_from_iter(copied, IovIter.ubuf(WRITE, UserRange(arena.address + 100, PAGE_SIZE - 100)))
        assert copied == content[: PAGE_SIZE - 100]
        assert os.read(out, 1 << 20) == content[PAGE_SIZE - 100 :]
    os.close(out)
    os.close(into)


def test_efault_not_caused_by_the_iterators_memory_is_passed_on() -> None:
    i = IovIter.ubuf(READ, bytearray(10))
    with Arena([Page.UNMAPPED]) as arena, pytest.raises(OSError, match="Bad address") as raised:
        io.process_vm_readv(os.getpid(), i, [UserRange(arena.address, 10)])
    assert not isinstance(raised.value, FaultError)
    assert i.count == 10


class TestWhatEndsInTheMiddle:
    def test_a_hole(self) -> None:
        out, into = os.pipe()
        i = IovIter.xarray(WRITE, XArray({0: bytes(PAGE_SIZE), 2: bytes(PAGE_SIZE)}), 100, 2 * PAGE_SIZE)
        with pytest.raises(OSError, match="hole") as raised:
            io.writev_all(into, i)
        assert raised.value.characters_written == PAGE_SIZE - 100  # type: ignore[attr-defined]
        assert i.count == PAGE_SIZE + 100
        os.close(out)
        os.close(into)

    def test_a_full_ring(self) -> None:
        out, into = os.pipe()
        os.write(into, bytes(5 * PAGE_SIZE))
        ring = PipeRing(2)
        i = IovIter.pipe(READ, ring, 5 * PAGE_SIZE)
        with pytest.raises(OSError, match="full") as raised:
            io.readv_all(out, i)
        assert raised.value.characters_written == 2 * PAGE_SIZE  # type: ignore[attr-defined]
        ring.read(PAGE_SIZE)
        with pytest.raises(OSError, match="full"):
            io.readv_all(out, i)
        ring.read()
        assert io.readv_all(out, i) == 2 * PAGE_SIZE
        os.close(out)
        os.close(into)

    def test_a_limit_on_file_sizes(self, tmp_path: Path) -> None:
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
        data = pattern(20_000)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
            i = IovIter.iovec(WRITE, segments(data, 999))
            with pytest.raises(OSError, match="File too large") as raised:
                io.writev_all(fd, i)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, ignored)
        assert raised.value.characters_written == 10_000  # type: ignore[attr-defined]
        assert io.writev_all(fd, i) == 10_000
        assert os.pread(fd, 30_000, 0) == data
        os.close(fd)
