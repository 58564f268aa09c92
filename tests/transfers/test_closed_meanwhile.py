"""Descriptors that are closed during a transfer: it never continues over a file that gets the number."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import resource
import signal
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, PipeRing, aio, io

from transfers.support import pattern

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1 << 20


class Reopening:
    """Closes its pipe when it is asked for its descriptor for the `n`th time. Another file then gets the number."""

    def __init__(self, n: int, answer: Callable[[int], int]) -> None:
        self.asked = 0
        self.n = n
        self.answer = answer
        self.out, self.into = os.pipe()
        os.set_blocking(self.into, False)

    def fileno(self) -> int:
        self.asked += 1
        return self.answer(self.into) if self.asked >= self.n else self.into


def in_a_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def wait_until(has_come: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not has_come():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def unread(sock: socket.socket) -> int:
    try:
        return len(sock.recv(SIZE, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except BlockingIOError:
        return 0


@pytest.mark.parametrize("function", [io.sendmsg_all, io.writev_all])
def test_nothing_is_sent_to_a_file_that_got_the_number(function: Callable[[Any, IovIter], int]) -> None:
    left, right = socket.socketpair()
    left.settimeout(60)
    right.settimeout(60)
    i = IovIter.iovec(WRITE, [b"secret" * 100] * (SIZE // 600))
    total = i.count
    errors: list[OSError] = []

    def send() -> None:
        with pytest.raises(OSError, match="closed during the transfer") as raised:
            function(left, i)
        errors.append(raised.value)

    sending = in_a_thread(send)
    wait_until(lambda: i.count < total and unread(right) > 0)
    number = left.fileno()
    left.close()
    pair = socket.socketpair()
    assert number in [sock.fileno() for sock in pair], "the number is used again at once"
    received = 0
    while part := right.recv(SIZE):
        received += len(part)
    sending.join()
    assert (errors[0].errno, errors[0].characters_written) == (errno.EBADF, received)  # type: ignore[attr-defined]
    assert i.count == total - received
    for sock in pair:
        assert unread(sock) == 0
        sock.close()
    right.close()


@pytest.mark.parametrize("function", [io.recvmsg_all, io.readv_all])
def test_nothing_is_received_from_a_file_that_got_the_number(function: Callable[[Any, IovIter], int]) -> None:
    left, right = socket.socketpair()
    left.settimeout(60)
    into = bytearray(SIZE)
    i = IovIter.ubuf(READ, into)
    errors: list[OSError] = []

    def receive() -> None:
        with pytest.raises(OSError, match="closed during the transfer") as raised:
            function(left, i)
        errors.append(raised.value)

    receiving = in_a_thread(receive)
    right.send(b"mine")
    wait_until(lambda: i.count == SIZE - 4)
    number = left.fileno()
    left.close()
    pair = socket.socketpair()
    stranger, other = pair if pair[0].fileno() == number else pair[::-1]
    other.send(b"stranger")
    right.send(b"wakes who waits")
    receiving.join()
    assert stranger.fileno() == number
    assert errors[0].characters_written == 4  # type: ignore[attr-defined]
    assert (bytes(into[:8]), stranger.recv(100)) == (b"mine\0\0\0\0", b"stranger")
    for sock in (stranger, other, right):
        sock.close()


def test_a_pipe_s_file_object_that_is_closed_between_two_turns() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    file = os.fdopen(into, "wb", buffering=0)
    i = IovIter.ubuf(WRITE, bytes(SIZE))

    async def main() -> None:
        sending = asyncio.ensure_future(aio.writev_all(file, i))
        await asyncio.sleep(0)
        file.close()
        received = os.read(out, SIZE)
        with pytest.raises(OSError, match="closed during the transfer") as raised:
            await sending
        assert raised.value.errno == errno.EBADF
        assert raised.value.characters_written == len(received) == SIZE - i.count  # type: ignore[attr-defined]

    asyncio.run(main())
    os.close(out)


def test_a_regular_file_object_that_is_closed_between_two_pieces(tmp_path: Path) -> None:
    file = (tmp_path / "file").open("wb", buffering=0)
    memory = bytes(3 * aio.PIECE)
    i = IovIter.ubuf(WRITE, memory)

    async def main() -> None:
        sending = asyncio.ensure_future(aio.writev_all(file, i))
        while i.count == len(memory):
            await asyncio.sleep(0)
        file.close()
        with pytest.raises(OSError, match="closed during the transfer") as raised:
            await sending
        assert raised.value.errno == errno.EBADF
        assert raised.value.characters_written == len(memory) - i.count  # type: ignore[attr-defined]

    asyncio.run(main())
    assert (tmp_path / "file").stat().st_size == len(memory) - i.count


@pytest.mark.parametrize("call", [io.recvmsg, io.readv, io.recvmsg_all])
def test_a_handler_may_close_the_file_that_a_call_waits_for(call: Callable[[Any, IovIter], object]) -> None:
    left, right = socket.socketpair()
    left.settimeout(60)
    others: list[socket.socket] = []

    def close(*_: object) -> None:
        number = left.fileno()
        left.close()
        others.extend(socket.socketpair())
        assert number in [sock.fileno() for sock in others]
        for sock in others:
            sock.send(b"stranger")

    old = signal.signal(signal.SIGALRM, close)
    i = IovIter.ubuf(READ, bytearray(100))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(OSError, match="closed during the transfer"):
            call(left, i)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert i.count == 100
    for sock in (*others, right):
        sock.close()


@pytest.mark.parametrize("answer", [lambda fd: fd + 1000, lambda _: -1], ids=["another number", "none"])
@pytest.mark.parametrize("n", [2, 3, 4])
def test_an_object_that_returns_another_descriptor_ends_the_transfer(n: int, answer: Callable[[int], int]) -> None:
    file = Reopening(n, answer)
    data = pattern(3 * 1024 * 8)
    i = IovIter.iovec(WRITE, [data[at : at + 8] for at in range(0, len(data), 8)])
    with pytest.raises(OSError, match="closed during the transfer") as raised:
        io.writev_all(file, i)
    went = raised.value.characters_written  # type: ignore[attr-defined]
    assert (went, i.count) == ((n - 2) * 1024 * 8, len(data) - went)
    assert os.read(file.out, went) == data[:went] if went else True
    os.close(file.out)
    os.close(file.into)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_close_right_after_fileno_reaches_no_other_file(n: int) -> None:
    stranger_out, stranger_in = os.pipe()

    class Lying(Reopening):
        """Returns the same number, which is another file's from the `n`th call on."""

        def fileno(self) -> int:
            super().fileno()
            if self.asked == n + 1:
                os.dup2(stranger_in, self.into)
            return self.into

    file = Lying(99, abs)
    i = IovIter.iovec(WRITE, [b"secret"] * 3000)
    assert io.writev_all(file, i) == 18000
    os.set_blocking(stranger_out, False)
    with pytest.raises(BlockingIOError):
        os.read(stranger_out, 1)
    assert len(os.read(file.out, 18000)) == 18000
    for fd in (stranger_out, stranger_in, file.out, file.into):
        os.close(fd)


@pytest.mark.parametrize("function", [io.writev_all, io.sendmsg_all])
def test_no_descriptor_is_leaked_and_none_is_required(function: Callable[[Any, IovIter], int]) -> None:
    left, right = socket.socketpair()
    with left, right:
        before = len(list(Path("/proc/self/fd").iterdir()))
        for limit in (None, 3):
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit or soft, hard))
            try:
                assert function(left, IovIter.iovec(WRITE, [b"x"] * 3000)) == 3000
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            assert right.recv(3000, socket.MSG_WAITALL) == b"x" * 3000
        assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_locks_of_a_file_outlive_a_transfer(tmp_path: Path) -> None:
    """Closing any descriptor of a file drops the process's POSIX locks on it, so a transfer makes no duplicate of a
    file.
    """
    with (tmp_path / "locked").open("wb+", buffering=0) as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        io.writev_all(file, IovIter.iovec(WRITE, [b"x"] * 3000))
        io.preadv_all(file, IovIter.ubuf(READ, bytearray(3000)), 0)
        child = os.fork()
        if child == 0:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_exception_of_fileno_during_a_transfer_is_passed_on(error: type[BaseException]) -> None:
    def fails(_: int) -> int:
        raise error

    file = Reopening(3, fails)
    i = IovIter.iovec(WRITE, [b"x"] * 3000)
    with pytest.raises(error):
        io.writev_all(file, i)
    assert i.count == 3000 - 1024
    os.close(file.out)
    os.close(file.into)


def test_a_splice_does_not_continue_over_a_file_that_got_the_number() -> None:
    ring = PipeRing(1 << 11)
    ring_in = IovIter.pipe(READ, ring, 2000 * PAGE_SIZE)
    out, into = os.pipe()
    os.write(into, bytes(PAGE_SIZE))
    io.readv(out, ring_in)
    ring.write(b"more")
    before = len(ring.slots)
    file = Reopening(2, lambda _: -1)
    with pytest.raises(OSError, match="closed during the transfer"):
        ring.splice(file)
    assert len(ring.slots) == before
    for fd in (out, into, file.out, file.into):
        os.close(fd)
