"""Whole transfers that wait: descriptors that do not block, timeouts, signals."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    READ,
    WRITE,
    IovIter,
    io,
)

from transfers.support import Drain, connected, pattern, segments, wait_until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class TestADescriptorThatDoesNotBlock:
    def test_says_how_much_went_and_goes_on(self) -> None:
        data = pattern(1 << 20)
        with connected(blocks=True) as (left, right):
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
        with connected(blocks=True) as (left, right):
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
        with connected(4096, blocks=True) as (left, right):
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
        with connected(blocks=True) as (_left, right):
            right.settimeout(0.05)
            i = IovIter.ubuf(READ, bytearray(3))
            with pytest.raises(TimeoutError, match="timed out"):
                function(right, i)
            assert i.count == 3

    def test_waits_for_what_comes_in_time(self) -> None:
        with connected(blocks=True) as (left, right):
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
        with connected(blocks=True) as (_left, right):
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

        with connected(4096, blocks=True) as (left, right):
            back = bytearray(len(data))
            to = IovIter.iovec(READ, segments(back, 4001))
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

        with connected(4096, blocks=True) as (left, right):
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
