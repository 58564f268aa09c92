"""Whole transfers: short counts, signals, timeouts, descriptors that do not block, memory that ends in the middle."""

from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    IovIter,
    IterKind,
    PipeRing,
    UserRange,
    XArray,
    copy_from_iter,
    io,
)
from support.arena import Arena, Page
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

from transfers.support import pattern, wait_until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Drain(threading.Thread):
    """The other end: takes all there is, a few bytes at a time, until the end."""

    def __init__(self, fd: int, most: int = 1 << 16) -> None:
        super().__init__()
        self.fd, self.most = fd, most
        self.received = bytearray()
        self.start()

    def run(self) -> None:
        while part := os.read(self.fd, self.most):
            self.received += part


@contextmanager
def connected(buffers: int | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        if buffers is not None:
            left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
            right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        yield left, right


def segments(data: bytes, size: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + size] for start in range(0, len(data), size)]


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
    with connected() as (left, right):

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
    with connected() as (left, right):
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
        with connected() as (left, right):
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


class TestADescriptorThatDoesNotBlock:
    def test_says_how_much_went_and_goes_on(self) -> None:
        data = pattern(1 << 20)
        with connected() as (left, right):
            left.setblocking(False)
            i = IovIter.iovec(WRITE, segments(data, 1000))
            received = bytearray()
            sent = 0
            while True:
                try:
                    sent += io.sendmsg_all(left, i)
                    break
                except BlockingIOError as error:
                    sent += error.characters_written
                    assert i.count == len(data) - sent
                    received += right.recv(100_000)
            assert sent == len(data)
            while len(received) < sent:
                received += right.recv(1 << 20)
            assert received == data

    def test_reads_what_there_is(self) -> None:
        out, into = os.pipe2(os.O_NONBLOCK)
        back = bytearray(10)
        i = IovIter.ubuf(READ, back)
        os.write(into, b"abc")
        with pytest.raises(BlockingIOError) as raised:
            io.readv_all(out, i)
        assert (raised.value.characters_written, i.count) == (3, 7)
        with pytest.raises(BlockingIOError) as raised:
            io.readv_all(out, i)
        assert (raised.value.characters_written, i.count) == (0, 7)
        os.write(into, b"defghijklm")
        assert io.readv_all(out, i) == 7
        assert back == b"abcdefghij"
        os.close(out)
        os.close(into)

    def test_msg_dontwait_does_not_wait_for_a_socket_s_timeout(self) -> None:
        with connected() as (left, right):
            left.settimeout(600)
            right.settimeout(600)
            i = IovIter.ubuf(READ, bytearray(3))
            for call in (io.recvmsg_all, lambda sock, i, flags: io.recvmsg(sock, i, 0, flags)):
                with pytest.raises(BlockingIOError):
                    call(right, i, socket.MSG_DONTWAIT)
            with pytest.raises(BlockingIOError) as raised:
                io.sendmsg_all(left, IovIter.ubuf(WRITE, bytes(64 << 20)), flags=socket.MSG_DONTWAIT)
            assert raised.value.characters_written > 0


class TestASocketsTimeout:
    def test_is_for_the_whole_transfer(self) -> None:
        """A peer that takes a little now and then keeps no transfer alive."""
        with connected(4096) as (left, right):
            left.settimeout(0.5)
            done = threading.Event()

            def sip() -> None:
                while not done.wait(0.05):
                    right.recv(4096)

            sipping = threading.Thread(target=sip)
            sipping.start()
            i = IovIter.iovec(WRITE, [bytes(1 << 20)] * 64)
            started = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out") as raised:
                io.sendmsg_all(left, i)
            assert time.monotonic() - started >= 0.5
            done.set()
            sipping.join()
            sent = raised.value.characters_written  # type: ignore[attr-defined]
            assert 0 < sent == (64 << 20) - i.count

    @pytest.mark.parametrize("function", [io.recvmsg, io.recvmsg_all, io.readv, io.readv_all])
    def test_ends_a_wait_for_bytes(self, function: Callable[[Any, IovIter], object]) -> None:
        with connected() as (_left, right):
            right.settimeout(0.05)
            i = IovIter.ubuf(READ, bytearray(3))
            with pytest.raises(TimeoutError, match="timed out"):
                function(right, i)
            assert i.count == 3

    def test_waits_for_what_comes_in_time(self) -> None:
        with connected() as (left, right):
            right.settimeout(600)
            back = bytearray(6)
            receiver = threading.Thread(target=io.recvmsg_all, args=(right, IovIter.ubuf(READ, back)))
            receiver.start()
            left.sendall(b"abc")
            wait_until_blocked(receiver)
            left.sendall(b"def")
            receiver.join()
            assert back == b"abcdef"

    def test_an_int_has_none(self) -> None:
        with connected() as (_left, right):
            right.settimeout(600)
            with pytest.raises(BlockingIOError):
                io.recvmsg(right.fileno(), IovIter.ubuf(READ, bytearray(3)))


class InterruptedByHandlerError(Exception):
    pass


@contextmanager
def alarms(handler: Callable[[], None], interval: float) -> Iterator[None]:
    old = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, interval, interval)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


class TestSignals:
    def test_a_storm_of_them_loses_nothing(self) -> None:
        data = pattern(4 << 20)
        seen = 0

        def count() -> None:
            nonlocal seen
            seen += 1

        with connected(4096) as (left, right):
            back = bytearray(len(data))
            to = IovIter.iovec(READ, segments(back, 4001))  # type: ignore[arg-type]
            receiver = threading.Thread(target=io.recvmsg_all, args=(right, to))
            receiver.start()
            with alarms(count, 0.001):
                assert io.sendmsg_all(left, IovIter.iovec(WRITE, segments(data, 3001))) == len(data)
            receiver.join()
        assert back == data
        assert seen > 0

    def test_a_handler_that_raises_leaves_the_iterator_exact(self) -> None:
        data = pattern(1 << 20)

        def interrupt() -> None:
            raise InterruptedByHandlerError

        with connected(4096) as (left, right):
            i = IovIter.iovec(WRITE, segments(data, 1001))
            with alarms(interrupt, 0.05), pytest.raises(InterruptedByHandlerError):
                io.sendmsg_all(left, i)
            sent = len(data) - i.count
            assert 0 < sent < len(data)
            drain = Drain(right.fileno())
            assert io.sendmsg_all(left, i) == len(data) - sent
            left.shutdown(socket.SHUT_WR)
            drain.join()
        assert drain.received == data

    @pytest.mark.parametrize("function", [io.readv, io.readv_all])
    def test_one_that_does_not_raise_may_look_at_the_iterator(self, function: Callable[[Any, IovIter], int]) -> None:
        out, into = os.pipe()
        back = bytearray(3)
        i = IovIter.ubuf(READ, back)
        seen = []

        def look() -> None:
            seen.append(i.count)
            if len(seen) == 3:
                os.write(into, b"abc")

        with alarms(look, 0.01):
            assert function(out, i) == 3
        assert seen[:3] == [3, 3, 3]
        assert back == b"abc"
        os.close(out)
        os.close(into)

    @pytest.mark.parametrize(
        "change",
        [
            lambda i: i.advance(1000),
            lambda i: i.truncate(i.count - 1000),
            lambda i: i.revert(1000),
            lambda i: (i.truncate(i.count - 1000), i.revert(1000)),
        ],
        ids=["moved on", "cut", "moved back", "cut and moved back by as much"],
    )
    def test_one_that_changes_the_iterator_ends_a_transfer_at_an_offset(
        self, change: Callable[[IovIter], object]
    ) -> None:
        """Whether the bytes ahead have another place in the file then, nobody can tell."""
        data = pattern(160 << 20)
        i = IovIter.iovec(WRITE, segments(data, 32 << 20))
        left: list[int] = []

        def meddle() -> None:
            if not left and 0 < i.count < len(data):
                left.append(i.count)
                change(i)

        def write_until_changed() -> None:
            while not left:
                i.revert(len(data) - i.count)
                io.pwritev_all(fd, i, 10)

        fd = os.memfd_create("file")
        try:
            with alarms(meddle, 0.001), pytest.raises(RuntimeError, match="was moved or cut") as raised:
                write_until_changed()
            done = raised.value.characters_written  # type: ignore[attr-defined]
            assert done == len(data) - left[0]
            assert os.pread(fd, done + 10, 0) == bytes(10) + data[:done]
        finally:
            os.close(fd)

    def test_ctrl_c_within_a_terabyte(self) -> None:
        # Ten gigabytes of zeroes are over in 0.1 s, sooner than a timer rings on a loaded machine.
        zero = os.open("/dev/zero", os.O_RDONLY)
        i = IovIter.iovec(READ, [bytearray(1 << 20)] * (1 << 20))
        timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
        # A shell starts what runs in its background with SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                io.readv_all(zero, i)
            timer.join()
        finally:
            signal.signal(signal.SIGINT, before)
        assert 0 < i.count < 1 << 40
        os.close(zero)


def written_to_a_socket(i: IovIter) -> tuple[bytes, OSError]:
    with connected() as (left, right):
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
    with connected() as (left, right):
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
