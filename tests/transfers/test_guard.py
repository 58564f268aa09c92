"""Transfers inside a guard: pages that it has replaced by zeroes are bad memory, not data."""

from __future__ import annotations

import array
import errno
import mmap
import os
import socket
import tempfile
import threading
from contextlib import ExitStack, contextmanager
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
from support.places import address

from transfers.support import wait_until_blocked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = b"D" * PAGE_SIZE
PAGES = 4


@contextmanager
def met() -> Iterator[mmap.mmap]:
    """Four mapped pages of a file that has only the first, and a guard that has replaced the other three by zeroes."""
    with tempfile.TemporaryFile() as file:
        file.write(DATA * PAGES)
        file.flush()
        memory = mmap.mmap(file.fileno(), PAGES * PAGE_SIZE)
        file.truncate(PAGE_SIZE)
        with guard(memory, on_fault="record"):
            assert memory[:] == DATA + bytes(3 * PAGE_SIZE)
            yield memory
        memory.close()


def to_file(i: IovIter) -> tuple[int, bytes]:
    with tempfile.TemporaryFile() as file:
        return io.pwritev(file.fileno(), i, 0), file.read()


def to_pipe(call: Callable[[int, IovIter], int]) -> Callable[[IovIter], tuple[int, bytes]]:
    def send(i: IovIter) -> tuple[int, bytes]:
        out, into = os.pipe()
        with os.fdopen(out, "rb") as reader, os.fdopen(into, "wb") as writer:
            sent = call(writer.fileno(), i)
            writer.close()
            return sent, reader.read()

    return send


def to_socket(i: IovIter) -> tuple[int, bytes]:
    left, right = socket.socketpair()
    with left, right:
        return io.sendmsg(left, i), right.recv(PAGES * PAGE_SIZE)


def to_process(i: IovIter) -> tuple[int, bytes]:
    got = bytearray(PAGES * PAGE_SIZE)
    sent = io.process_vm_writev(os.getpid(), i, [UserRange(address(got), len(got))])
    return sent, bytes(got).rstrip(b"\0")


SENDERS = [to_file, to_pipe(io.writev), to_pipe(io.vmsplice), to_socket, to_process]
NAMES = ["pwritev", "writev", "vmsplice", "sendmsg", "process_vm_writev"]


@pytest.mark.parametrize("parts", [1, 2, 16])
@pytest.mark.parametrize("send", SENDERS, ids=NAMES)
def test_a_guards_zeroes_are_never_sent(send: Callable[[IovIter], tuple[int, bytes]], parts: int) -> None:
    with met() as memory, memoryview(memory) as view:
        size = len(view) // parts
        i = IovIter.kvec(WRITE, [view[start : start + size] for start in range(0, len(view), size)])
        assert send(i) == (PAGE_SIZE, DATA)
        assert i.count == 3 * PAGE_SIZE
        with pytest.raises(FaultError) as refused:
            send(i)
        assert (refused.value.fault.side, i.count) == ("source", 3 * PAGE_SIZE)
        i.release()


def test_no_bytes_are_received_into_a_guards_zeroes() -> None:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "wb") as writer, met() as memory:
        writer.write(b"Z" * PAGES * PAGE_SIZE)
        writer.flush()
        i = IovIter.kvec(READ, [memory])
        assert io.readv(reader.fileno(), i) == PAGE_SIZE
        with pytest.raises(FaultError) as refused:
            io.readv(reader.fileno(), i)
        assert refused.value.fault.side == "destination"
        writer.close()
        assert reader.read() == b"Z" * (PAGES - 1) * PAGE_SIZE, "the pipe keeps what there was no memory for"
        i.release()


def test_process_vm_readv_does_not_read_a_guards_zeroes_of_its_own_process() -> None:
    with met() as memory:
        got = bytearray(PAGES * PAGE_SIZE)
        start = address(memory)
        i = IovIter.kvec(READ, [got])
        assert io.process_vm_readv(os.getpid(), i, [UserRange(start, len(got))]) == PAGE_SIZE
        with pytest.raises(OSError, match="Bad address"):
            io.process_vm_readv(os.getpid(), i, [UserRange(start + PAGE_SIZE, PAGE_SIZE)])
        assert got == DATA + bytes(3 * PAGE_SIZE)


def test_a_thread_id_counts_as_the_own_process() -> None:
    with met() as memory:
        got = bytearray(PAGES * PAGE_SIZE)
        read: list[int] = []

        def transfer() -> None:
            remote = [UserRange(address(memory), len(got))]
            read.append(io.process_vm_readv(threading.get_native_id(), IovIter.kvec(READ, [got]), remote))

        thread = threading.Thread(target=transfer)
        thread.start()
        thread.join()
        assert (read, bytes(got)) == ([PAGE_SIZE], DATA + bytes(3 * PAGE_SIZE))


def test_a_ring_does_not_send_a_referenced_page_of_a_guards_zeroes() -> None:
    ring = PipeRing()
    out, into = os.pipe()
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "wb") as writer, met() as memory:
        i = IovIter.pipe(READ, ring, 2 * PAGE_SIZE)
        for page in range(2):
            assert copy_page_to_iter(memory, page * PAGE_SIZE, PAGE_SIZE, i) == PAGE_SIZE
        assert ring.splice(writer.fileno()) == PAGE_SIZE
        with pytest.raises(OSError, match="Bad address") as refused:
            ring.splice(writer.fileno())
        assert refused.value.errno == errno.EFAULT
        writer.close()
        assert reader.read() == DATA
        del i, ring


@pytest.mark.parametrize("kind", ["discard", "pipe"])
def test_kinds_without_memory_transfer_completely_inside_a_guard(kind: str) -> None:
    with ExitStack() as stack:
        stack.enter_context(met())
        out, into = os.pipe()
        reader = stack.enter_context(os.fdopen(out, "rb"))
        with os.fdopen(into, "wb") as writer:
            writer.write(b"abc")
        i = IovIter.discard(READ, 10) if kind == "discard" else IovIter.pipe(READ, PipeRing(), 10)
        assert io.readv_all(reader.fileno(), i) == 3
        assert i.count == 7


def test_a_hole_is_explained_inside_a_guard() -> None:
    with met(), tempfile.TemporaryFile() as file:
        i = IovIter.xarray(WRITE, XArray({0: DATA}), 0, 2 * PAGE_SIZE)
        with pytest.raises(OSError, match="the xarray has a hole here") as refused:
            io.writev_all(file.fileno(), i)
        assert refused.value.characters_written == PAGE_SIZE  # type: ignore[attr-defined]


class _Cut:
    """Mapped pages of a file that is truncated to its first during a transfer, and a guard that replaces the rest."""

    pages = 64

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.file = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self.file.write(DATA * self.pages)
        self.file.flush()
        self.memory = mmap.mmap(self.file.fileno(), self.pages * PAGE_SIZE)

    def cut_and_meet(self) -> None:
        """For the transfer this is another thread's guard."""
        self.file.truncate(PAGE_SIZE)
        self.stack.enter_context(guard(self.memory, on_fault="record"))
        for page in range(1, self.pages):
            assert self.memory[page * PAGE_SIZE] == 0


@pytest.fixture
def cut() -> Iterator[_Cut]:
    with ExitStack() as stack:
        yield _Cut(stack)


def failing(work: Callable[[], object]) -> tuple[threading.Thread, list[FaultError]]:
    """A thread with a call that must fail with FaultError. This returns when the call blocks."""
    errors: list[FaultError] = []

    def run() -> None:
        with pytest.raises(FaultError) as raised:
            work()
        errors.append(raised.value)

    thread = threading.Thread(target=run)
    thread.start()
    wait_until_blocked(thread)
    return thread, errors


SIZE = 64 * PAGE_SIZE


def read_exactly(fd: int, nbytes: int) -> bytes:
    data = b""
    while len(data) < nbytes:
        data += os.read(fd, nbytes - len(data))
    return data


@pytest.mark.parametrize("function", [io.writev, io.writev_all, "splice"])
def test_zeroes_sent_because_a_guard_began_during_the_call_are_reported(function: Any, cut: _Cut) -> None:
    out, into = os.pipe()
    os.write(into, bytes(1 << 16))
    i = IovIter.kvec(WRITE, [cut.memory])
    ring = PipeRing(cut.pages)
    if function == "splice":
        to_ring = IovIter.pipe(READ, ring, SIZE)
        for page in range(cut.pages):
            copy_page_to_iter(cut.memory, page * PAGE_SIZE, PAGE_SIZE, to_ring)
        thread, errors = failing(lambda: ring.splice(into))
    else:
        thread, errors = failing(lambda: function(into, i))
    cut.cut_and_meet()
    read_exactly(out, 1 << 16)
    received = read_exactly(out, SIZE)
    thread.join()
    assert received == DATA + bytes(SIZE - PAGE_SIZE), "the other side has them: that cannot be undone"
    error = errors[0]
    assert error.copied == error.characters_written == PAGE_SIZE  # type: ignore[attr-defined]
    assert error.__notes__[0].startswith(f"{SIZE - PAGE_SIZE} more bytes were transferred")
    assert (error.fault.side, error.fault.cause) == ("source", "gone")
    if function == "splice":
        assert sum(nbytes for _, _, nbytes, _ in ring.slots) == SIZE - PAGE_SIZE
    else:
        assert (i.count, i.fault) == (SIZE - PAGE_SIZE, error.fault)
        with pytest.raises(FaultError):
            io.writev(into, i)
    i.release()
    os.close(out)
    os.close(into)


@pytest.mark.parametrize("function", [io.readv, io.readv_all])
def test_bytes_received_into_zeroes_because_a_guard_began_are_reported(function: Any, cut: _Cut) -> None:
    out, into = os.pipe()
    i = IovIter.kvec(READ, [cut.memory])
    thread, errors = failing(lambda: function(out, i))
    cut.cut_and_meet()
    os.write(into, b"Z" * 3 * PAGE_SIZE)
    thread.join()
    assert errors[0].copied == PAGE_SIZE
    assert errors[0].__notes__[0].startswith(f"{2 * PAGE_SIZE} more bytes were transferred")
    assert (errors[0].fault.side, i.count) == ("destination", SIZE - PAGE_SIZE)
    assert cut.memory[:PAGE_SIZE] == b"Z" * PAGE_SIZE
    i.release()
    os.close(out)
    os.close(into)


def test_a_guard_over_other_memory_does_not_tear_a_transfer(cut: _Cut) -> None:
    out, into = os.pipe()
    os.write(into, bytes(1 << 16))
    data = os.urandom(SIZE)
    i = IovIter.kvec(WRITE, [data])
    thread = threading.Thread(target=io.writev_all, args=(into, i))
    thread.start()
    wait_until_blocked(thread)
    cut.cut_and_meet()
    read_exactly(out, 1 << 16)
    assert read_exactly(out, SIZE) == data
    thread.join()
    assert not i
    os.close(out)
    os.close(into)


def test_descriptors_of_a_message_that_a_guard_tears_are_closed(cut: _Cut) -> None:
    """Nobody has got them. A pipe is at its end once the last descriptor of its other end is closed."""
    left, right = socket.socketpair()
    out, into = os.pipe()
    with left, right:
        i = IovIter.kvec(READ, [cut.memory])
        thread, errors = failing(lambda: io.recvmsg(right, i, 1000))
        cut.cut_and_meet()
        rights = array.array("i", [into, into]).tobytes()
        left.sendmsg([b"Z" * 3 * PAGE_SIZE], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        os.close(into)
        thread.join()
        assert errors[0].copied == PAGE_SIZE
        os.set_blocking(out, False)
        assert os.read(out, 1) == b""
        i.release()
    os.close(out)
