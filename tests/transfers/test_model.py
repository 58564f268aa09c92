"""Streams split in every way: whatever the calls transfer, each byte arrives once and in order."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import threading
import tracemalloc
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iovec_rs import PAGE_SIZE, READ, WRITE, FolioQueue, IovIter, IterKind, PipeRing, XArray, aio, io
from support.every_kind import DATA_KINDS

from transfers.support import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    Channel = Callable[[], AbstractContextManager[tuple[int, int]]]

LENGTHS = st.lists(st.integers(0, 3000), max_size=40)
STEPS = st.lists(st.integers(1, 5000), min_size=1, max_size=20)


def cut(data: bytes | bytearray | memoryview, lengths: list[int]) -> list[memoryview]:
    """The data in segments of these lengths, and the rest in one more."""
    view, segments = memoryview(data), []
    for length in lengths:
        segments.append(view[:length])
        view = view[length:]
    return [*segments, view]


def over(kind: IterKind, direction: int, data: bytearray, lengths: list[int]) -> IovIter:
    if kind is IterKind.UBUF:
        return IovIter.ubuf(direction, data)
    if kind is IterKind.IOVEC:
        return IovIter.iovec(direction, cut(data, lengths))
    if kind is IterKind.KVEC:
        return IovIter.kvec(direction, cut(data, lengths))
    if kind is IterKind.BVEC:
        return IovIter.bvec(direction, [(segment, 0, len(segment)) for segment in cut(data, lengths)])
    if kind is IterKind.FOLIOQ:
        return IovIter.folioq(direction, FolioQueue([part for part in cut(data, lengths) if part]), 0, 0, len(data))
    view = memoryview(data)
    pages = {index: view[index * PAGE_SIZE :][:PAGE_SIZE] for index in range(len(data) // PAGE_SIZE)}
    return IovIter.xarray(direction, XArray(pages), 0, len(data))


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe2(os.O_NONBLOCK)
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def tiny_sockets() -> Iterator[tuple[int, int]]:
    left, right = socket.socketpair()
    with left, right:
        for sock in (left, right):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        yield right.fileno(), left.fileno()


@pytest.mark.parametrize("channel", [pipe, tiny_sockets])
@pytest.mark.parametrize("kind", DATA_KINDS)
@settings(max_examples=25)
@given(shapes=st.tuples(LENGTHS, LENGTHS), steps=STEPS, pages=st.integers(1, 20))
def test_single_calls_and_whole_transfers_in_any_order(
    channel: Channel, kind: IterKind, shapes: tuple[list[int], list[int]], steps: list[int], pages: int
) -> None:
    """Random EAGAIN: the reader takes one step, the writer sends as much as there is room for."""
    data = bytearray(pattern(pages * PAGE_SIZE))
    back = bytearray(len(data))
    out_of, into = over(kind, WRITE, data, shapes[0]), over(kind, READ, back, shapes[1])
    with channel() as (out, end):
        turn = 0
        while into:
            step = steps[turn % len(steps)]
            turn += 1
            before = out_of.count
            try:
                sent = (io.writev_all if step % 2 else io.writev)(end, out_of)
            except BlockingIOError as error:
                sent = error.characters_written
            assert before - out_of.count == sent
            window = into.dup()
            window.truncate(step)
            try:
                received = (io.readv if step % 3 else io.readv_all)(out, window)
            except BlockingIOError as error:
                received = error.characters_written
            assert min(step, into.count) - window.count == received
            into.advance(received)
            moved = len(data) - into.count
            assert back[:moved] == data[:moved]
    assert back == data


@settings(max_examples=30)
@given(source=LENGTHS, steps=STEPS, nbytes=st.integers(0, 60_000))
def test_a_ring_between_two_descriptors(source: list[int], steps: list[int], nbytes: int) -> None:
    data = pattern(nbytes)
    i = IovIter.iovec(WRITE, cut(data, source))
    ring = PipeRing(4)
    filler = IovIter.pipe(READ, ring, nbytes)
    received = bytearray()
    turn = 0
    with pipe() as (first_out, first_in), pipe() as (second_out, second_in):
        while len(received) < nbytes:
            step = steps[turn % len(steps)]
            turn += 1
            if i:
                with suppress(BlockingIOError):
                    io.writev(first_in, i)
            try:
                io.readv(first_out, filler)
            except BlockingIOError:
                pass
            except OSError:
                assert ring.full
            ring.splice(second_in, step)
            with suppress(BlockingIOError):
                received += os.read(second_out, step)
    assert received == data


@settings(max_examples=30)
@given(source=LENGTHS, at=st.integers(0, 10_000), nbytes=st.integers(0, 60_000))
def test_files_hold_what_a_model_holds(source: list[int], at: int, nbytes: int) -> None:
    data = pattern(nbytes)
    fd = os.memfd_create("model")
    with closing(os.fdopen(fd, "wb", buffering=0)):
        assert io.pwritev_all(fd, IovIter.iovec(WRITE, cut(data, source)), at) == nbytes
        assert io.writev_all(fd, IovIter.iovec(WRITE, cut(b"head", source))) == 4
        model = bytearray(at) + data if nbytes else bytearray()
        model[:4] = b"head"
        assert os.pread(fd, 100_000, 0) == model
        back = bytearray(len(model) + 7)
        assert io.preadv_all(fd, IovIter.iovec(READ, cut(back, source)), 0) == len(model)
        assert back == model + bytes(7)


@pytest.mark.parametrize("free", [PAGE_SIZE, 5 * PAGE_SIZE])
def test_a_tmpfs_that_is_nearly_full(free: int, tmp_path: Path) -> None:
    mount = tmp_path / "full"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size={free} tmpfs {mount} 2>/dev/null") != 0:
        pytest.skip("may not mount a tmpfs")
    try:
        data = pattern(free + 10_000)
        i = IovIter.iovec(WRITE, cut(data, [1001] * 9))
        with (mount / "file").open("wb+", buffering=0) as file:
            with pytest.raises(OSError, match="No space left") as raised:
                io.writev_all(file, i)
            written = raised.value.characters_written  # type: ignore[attr-defined]
            assert written == free == len(data) - i.count
            assert os.pread(file.fileno(), 1 << 20, 0) == data[:written]
    finally:
        os.system(f"umount {mount}")


@pytest.mark.parametrize("seed", range(3))
def test_a_storm_of_signals_over_single_calls(seed: int) -> None:
    """A signal arrives every millisecond during the reader's calls: each call is repeated, and none transfers twice."""
    choose = random.Random(seed)
    data = bytearray(pattern(2 << 20))
    back = bytearray(len(data))
    out, into = os.pipe()
    source = IovIter.iovec(WRITE, cut(data, [choose.randrange(5000) for _ in range(500)]))
    to = IovIter.iovec(READ, cut(back, [choose.randrange(5000) for _ in range(500)]))

    def write() -> None:
        while source:
            io.writev(into, source)

    writer = threading.Thread(target=write)
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1

    old = signal.signal(signal.SIGALRM, count)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        writer.start()
        while to:
            io.readv(out, to)
        while not seen:
            pass
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    writer.join()
    os.close(out)
    os.close(into)
    assert back == data


class TestMemory:
    """There is no copy of the data and no list of views: allocated memory does not grow with either."""

    def test_of_a_whole_transfer(self) -> None:
        data = bytes(32 << 20)
        i = IovIter.kvec(WRITE, cut(data, [4096] * 8000))
        with Path("/dev/null").open("wb", buffering=0) as null:
            tracemalloc.start()
            try:
                assert io.writev_all(null, i) == len(data)
                assert tracemalloc.get_traced_memory()[1] < 10_000
            finally:
                tracemalloc.stop()

    def test_of_a_transfer_on_a_loop(self) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            right.setblocking(False)
            data = bytes(8 << 20)
            i = IovIter.kvec(WRITE, cut(data, [4096] * 2000))
            peak = 0

            async def main() -> None:
                nonlocal peak
                receiving = asyncio.ensure_future(aio.recvmsg_all(right, IovIter.discard(READ, len(data))))
                await asyncio.sleep(0)
                tracemalloc.start()
                try:
                    await aio.sendmsg_all(left, i)
                    peak = tracemalloc.get_traced_memory()[1]
                finally:
                    tracemalloc.stop()
                await receiving

            asyncio.run(main())
        assert 0 < peak < 200_000
