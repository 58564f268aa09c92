"""Whole transfers: every kind, short counts, the end of a file, what is refused, a fork."""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    IovIter,
    IterKind,
    io,
)
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

from transfers.support import Drain, connected, pattern, segments

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("most", [1, 777, 1 << 16])
@pytest.mark.parametrize("kind", DATA_KINDS)
def test_every_kind_is_written_completely_through_a_pipe(kind: IterKind, most: int) -> None:
    out, into = os.pipe()
    memory = three_pages()
    drain = Drain(out, most)
    assert io.writev_all(into, build(kind, WRITE, memory, 3)) == TOTAL - 3
    os.close(into)
    drain.join()
    os.close(out)
    assert drain.received == memory[3:]


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_every_kind_is_filled_from_a_stream_of_small_pieces(kind: IterKind) -> None:
    content = pattern(TOTAL)
    with connected(blocks=True) as (left, right):

        def send() -> None:
            for start in range(0, TOTAL, 1237):
                left.sendall(content[start : start + 1237])

        sender = threading.Thread(target=send)
        sender.start()
        back = three_pages()
        i = build(kind, READ, back, 5)
        assert io.recvmsg_all(right, i) == TOTAL - 5
        sender.join()
        assert back[5:] == content[: TOTAL - 5]
        assert not i


def test_more_than_a_hundred_thousand_segments() -> None:
    data = pattern(120_000 * 9)
    with connected(blocks=True) as (left, right):
        drain = Drain(right.fileno())
        assert io.sendmsg_all(left, IovIter.iovec(WRITE, segments(data, 9))) == len(data)
        left.shutdown(socket.SHUT_WR)
        drain.join()
    assert drain.received == data


def test_more_than_two_gigabytes_through_a_file_in_memory() -> None:
    block = pattern(64 << 20)
    total = 33 * len(block)
    if os.sysconf("SC_AVPHYS_PAGES") * PAGE_SIZE < 2 * total:
        pytest.skip("takes 2 GiB of memory")
    fd = os.memfd_create("whole")
    try:
        i = IovIter.kvec(WRITE, [block] * 33)
        assert io.writev_all(fd, i) == total > 1 << 31
        assert os.fstat(fd).st_size == total
        back = bytearray(len(block))
        for start in (0, 31 * len(block), 32 * len(block)):
            assert io.preadv_all(fd, IovIter.ubuf(READ, back), start) == len(back)
            assert back == block
        dropped = IovIter.discard(READ, 2 * total)
        assert io.preadv_all(fd, dropped, 0) == total
        assert dropped.count == total
    finally:
        os.close(fd)


class TestTheEndOfAFile:
    def test_is_a_smaller_number_and_no_error(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(pattern(5000))
        back = bytearray(8000)
        with path.open("rb", buffering=0) as file:
            i = IovIter.iovec(READ, [memoryview(back)[:17], memoryview(back)[17:]])
            assert io.readv_all(file, i) == 5000
            assert io.readv_all(file, i) == 0
            assert i.count == 3000
            assert io.preadv_all(file, i, 4000) == 1000
        assert back[:6000] == pattern(5000) + pattern(5000)[4000:]

    def test_of_a_stream_is_its_shutdown(self) -> None:
        with connected(blocks=True) as (left, right):
            left.sendall(b"abc")
            left.shutdown(socket.SHUT_WR)
            i = IovIter.ubuf(READ, bytearray(10))
            assert io.recvmsg_all(right, i) == 3
            assert i.count == 7

    def test_nothing_is_read_for_nothing(self) -> None:
        left, right = socket.socketpair(type=socket.SOCK_DGRAM)
        with left, right:
            left.send(b"abc")
            assert io.recvmsg_all(right, IovIter.ubuf(READ, bytearray())) == 0
            assert right.recv(10) == b"abc"
            assert io.sendmsg_all(left, IovIter.ubuf(WRITE, b"")) == 0
            right.setblocking(False)
            with pytest.raises(BlockingIOError):
                right.recv(10)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_an_iterator_too_long_for_one_message_is_refused(kind: int) -> None:
    left, right = socket.socketpair(type=kind)
    with left, right:
        i = IovIter.iovec(WRITE, [b"x"] * 1025)
        with pytest.raises(OSError, match="one message takes 1024") as raised:
            io.sendmsg_all(left, i)
        assert (raised.value.errno, i.count) == (errno.EMSGSIZE, 1025)
        right.setblocking(False)
        with pytest.raises(BlockingIOError):
            right.recv(10)
        assert io.sendmsg_all(left, IovIter.iovec(WRITE, [b"x"] * 1024)) == 1024
        assert len(right.recv(5000)) == 1024


@pytest.mark.parametrize("flag", [socket.MSG_PEEK, socket.MSG_TRUNC])
def test_flags_that_would_repeat_or_drop_bytes_are_refused_in_a_whole_transfer(flag: int) -> None:
    with connected(blocks=True) as (left, right):
        left.sendall(b"abc")
        with pytest.raises(ValueError, match="flags is"):
            io.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3)), flag)
        assert right.recv(10) == b"abc"


def test_a_forked_child_continues_from_the_iterators_position() -> None:
    out, into = os.pipe()
    i = IovIter.iovec(WRITE, [b"parent", b"child"])
    i.truncate(6)
    io.writev_all(into, i)
    i.reexpand(5)
    child = os.fork()
    if child == 0:
        io.writev_all(into, i)
        os._exit(i.count)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (os.read(out, 100), i.count) == (b"parentchild", 5)
    os.close(out)
    os.close(into)
