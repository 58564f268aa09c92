"""Sockets with message boundaries: a message is transferred completely or refused, never truncated, never split."""

from __future__ import annotations

import errno
import mmap
import socket
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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
    copy_page_to_iter,
    guard,
    io,
)
from support.arena import Arena, Page
from support.places import address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call = Callable[[Any, IovIter], object]

KINDS = [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]


@contextmanager
def connected(kind: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(type=kind)
    with left, right:
        right.settimeout(60)
        yield left, right


def messages(sock: socket.socket) -> list[bytes]:
    sock.setblocking(False)
    found = []
    try:
        while True:
            found.append(sock.recv(1 << 16))
    except BlockingIOError:
        return found


@contextmanager
def met(content: bytes) -> Iterator[mmap.mmap]:
    """Two mapped pages of a file that has only the first, and a guard that has replaced the second by zeroes."""
    with tempfile.TemporaryFile() as file:
        file.write(content.ljust(2 * PAGE_SIZE, b"D"))
        file.flush()
        memory = mmap.mmap(file.fileno(), 2 * PAGE_SIZE)
        file.truncate(PAGE_SIZE)
        with guard(memory, on_fault="record"):
            assert memory[PAGE_SIZE] == 0
            yield memory
        memory.close()


SENDERS = [io.sendmsg, io.writev, io.sendmsg_all, io.writev_all]
RECEIVERS = [io.recvmsg, io.readv, io.recvmsg_all, io.readv_all]


@pytest.mark.parametrize("kind", KINDS)
class TestMemoryThatIsBad:
    @pytest.mark.parametrize("parts", [1, 16])
    @pytest.mark.parametrize("send", SENDERS)
    def test_zeroes_of_a_guard_do_not_cut_what_is_sent(self, send: Call, parts: int, kind: int) -> None:
        with connected(kind) as (left, right), met(b"") as memory, memoryview(memory) as view:
            size = len(view) // parts
            i = IovIter.kvec(WRITE, [view[start : start + size] for start in range(0, len(view), size)])
            with pytest.raises(FaultError) as refused:
                send(left, i)
            assert refused.value.fault.address == address(memory) + PAGE_SIZE
            assert (i.count, messages(right)) == (2 * PAGE_SIZE, [])
            i.release()

    @pytest.mark.parametrize("receive", RECEIVERS)
    def test_zeroes_of_a_guard_do_not_cut_what_is_received(self, receive: Call, kind: int) -> None:
        with connected(kind) as (left, right), met(b"") as memory:
            left.send(b"x" * 2 * PAGE_SIZE)
            i = IovIter.kvec(READ, [memory])
            with pytest.raises(FaultError):
                receive(right, i)
            assert (i.count, messages(right)) == (2 * PAGE_SIZE, [b"x" * 2 * PAGE_SIZE])
            i.release()

    @pytest.mark.parametrize("send", [io.sendmsg_all, io.writev_all])
    def test_a_bad_page_does_not_cut_what_is_sent(self, send: Call, kind: int) -> None:
        with connected(kind) as (left, right), Arena([Page.GOOD, Page.UNMAPPED]) as arena:
            i = IovIter.ubuf(WRITE, UserRange(arena.address, 2 * PAGE_SIZE))
            with pytest.raises(FaultError) as refused:
                send(left, i)
            assert refused.value.fault.address == arena.address + PAGE_SIZE
            assert (i.count, messages(right)) == (2 * PAGE_SIZE, [])

    @pytest.mark.parametrize("receive", [io.recvmsg_all, io.readv_all])
    def test_a_bad_page_does_not_lose_what_is_received(self, receive: Call, kind: int) -> None:
        with connected(kind) as (left, right), Arena([Page.GOOD, Page.UNMAPPED]) as arena:
            left.send(b"x" * 5000)
            i = IovIter.ubuf(READ, UserRange(arena.address, 2 * PAGE_SIZE))
            with pytest.raises(FaultError):
                receive(right, i)
            assert (i.count, messages(right)) == (2 * PAGE_SIZE, [b"x" * 5000])

    def test_a_ring_is_not_cut_at_zeroes(self, kind: int) -> None:
        ring = PipeRing()
        with connected(kind) as (left, right), met(b"") as memory:
            i = IovIter.pipe(READ, ring, 2 * PAGE_SIZE)
            for page in range(2):
                assert copy_page_to_iter(memory, page * PAGE_SIZE, PAGE_SIZE, i) == PAGE_SIZE
            before = sum(nbytes for _, _, nbytes, _ in ring.slots)
            with pytest.raises(OSError, match="Bad address"):
                ring.splice(left)
            assert (sum(nbytes for _, _, nbytes, _ in ring.slots), messages(right)) == (before, [])
            del i, ring


@pytest.mark.parametrize("kind", KINDS)
class TestOneMessage:
    @pytest.mark.parametrize("send", [io.sendmsg_all, io.writev_all])
    @pytest.mark.parametrize("segments", [1025, 5000])
    def test_is_never_made_into_several(self, segments: int, send: Call, kind: int) -> None:
        with connected(kind) as (left, right):
            i = IovIter.iovec(WRITE, [b"x"] * segments)
            with pytest.raises(OSError, match="one message takes 1024") as raised:
                send(left, i)
            assert (raised.value.errno, i.count, messages(right)) == (errno.EMSGSIZE, segments, [])
            i.truncate(1024)
            assert send(left, i) == 1024
            assert messages(right) == [b"x" * 1024]

    @pytest.mark.parametrize("send", [io.sendmsg_all, io.writev_all])
    def test_of_pages(self, send: Call, kind: int) -> None:
        with connected(kind) as (left, right):
            array = XArray(dict.fromkeys(range(16), b"p" * PAGE_SIZE))
            i = IovIter.xarray(WRITE, array, 100, 8 * PAGE_SIZE)
            assert send(left, i) == 8 * PAGE_SIZE
            assert messages(right) == [b"p" * 8 * PAGE_SIZE]

    def test_of_a_ring(self, kind: int) -> None:
        with connected(kind) as (left, right):
            ring = PipeRing(2048)
            i = IovIter.pipe(READ, ring, 1 << 23)
            page = b"p" * PAGE_SIZE
            for _ in range(1025):
                assert copy_page_to_iter(page, 0, 1, i) == 1
            before = len(ring.slots)
            assert before > 1024
            with pytest.raises(OSError, match="Message too long"):
                ring.splice(left)
            assert (len(ring.slots), messages(right)) == (before, [])
            assert ring.splice(left, 1000) == 1000
            assert messages(right) == [b"p" * 1000]
            del i, ring

    @pytest.mark.parametrize("receive", [io.recvmsg_all, io.readv_all])
    def test_is_what_is_received(self, receive: Call, kind: int) -> None:
        with connected(kind) as (left, right):
            left.send(b"first")
            left.send(b"second")
            into = bytearray(100)
            i = IovIter.ubuf(READ, into)
            assert receive(right, i) == 5
            assert (i.count, bytes(into[:5]), messages(right)) == (95, b"first", [b"second"])

    @pytest.mark.parametrize("receive", [io.recvmsg_all, io.readv_all])
    def test_that_is_cut_is_told_of(self, receive: Call, kind: int) -> None:
        with connected(kind) as (left, right):
            left.send(b"longer than that")
            i = IovIter.ubuf(READ, bytearray(6))
            with pytest.raises(OSError, match="its end is lost") as raised:
                receive(right, i)
            assert (raised.value.errno, i.count) == (errno.EMSGSIZE, 0)
            assert raised.value.characters_written == 6  # type: ignore[attr-defined]

    @pytest.mark.parametrize("receive", [io.recvmsg_all, io.readv_all])
    def test_that_has_no_bytes_is_an_end(self, receive: Call, kind: int) -> None:
        with connected(kind) as (left, right):
            left.send(b"")
            i = IovIter.discard(READ, 10)
            assert (receive(right, i), i.count) == (0, 10)
