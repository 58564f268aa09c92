"""Whole transfers on asyncio's loop and on uvloop's: kinds, fairness, cancellation, memory that ends."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from iovec_rs import READ, WRITE, FaultError, IovIter, IterKind, UserRange, aio
from support.arena import PAGE_SIZE, Arena, Page
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

from transfers.loops import is_watched
from transfers.support import connected, pattern, segments

if TYPE_CHECKING:
    from transfers.loops import Run


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_every_kind_is_sent_and_received(kind: IterKind, run: Run) -> None:
    memory, back = three_pages(), three_pages()
    back[:] = bytes(TOTAL)

    async def main() -> None:
        with connected(4096) as (left, right):
            done = await asyncio.gather(
                aio.sendmsg_all(left, build(kind, WRITE, memory, 3)), aio.recvmsg_all(right, build(kind, READ, back, 3))
            )
            assert list(done) == [TOTAL - 3, TOTAL - 3]
            loop = asyncio.get_running_loop()
            assert not is_watched(loop, left.fileno())
            assert not is_watched(loop, right.fileno())

    run(main())
    assert back[3:] == memory[3:]


def test_more_than_a_hundred_thousand_segments(run: Run) -> None:
    data = pattern(110_000 * 7)
    back = bytearray(len(data))

    async def main() -> None:
        with connected() as (left, right):
            await asyncio.gather(
                aio.sendmsg_all(left, IovIter.iovec(WRITE, segments(data, 7))),
                aio.recvmsg_all(right, IovIter.iovec(READ, segments(back, 4099))),
            )

    run(main())
    assert back == data


def test_pipes(run: Run) -> None:
    data = pattern(1 << 20)
    back = bytearray(len(data))

    async def main() -> None:
        out, into = os.pipe2(os.O_NONBLOCK)
        await asyncio.gather(
            aio.writev_all(into, IovIter.iovec(WRITE, segments(data, 5000))),
            aio.readv_all(out, IovIter.iovec(READ, segments(back, 3000))),
        )
        os.close(into)
        assert await aio.readv_all(out, IovIter.ubuf(READ, bytearray(3))) == 0
        os.close(out)

    run(main())
    assert back == data


def test_a_peer_that_shuts_down_ends_the_transfer(run: Run) -> None:
    async def main() -> None:
        with connected() as (left, right):
            left.send(b"abc")
            left.shutdown(socket.SHUT_WR)
            i = IovIter.ubuf(READ, bytearray(10))
            assert await aio.recvmsg_all(right, i) == 3
            assert i.count == 7

    run(main())


def test_control_messages_go_with_the_first_bytes(run: Run) -> None:
    async def main() -> None:
        with connected() as (left, right):
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, "little"))
            assert await aio.sendmsg_all(left, IovIter.ubuf(WRITE, b"abc"), [rights]) == 3
            _, fds, _, _ = socket.recv_fds(right, 10, 10)
            assert len(fds) == 1
            os.close(fds[0])

    run(main())


def test_other_tasks_run_while_a_fast_peer_takes_all_bytes(run: Run) -> None:
    """The peer is a thread that never lets the socket's buffer fill up; the loop must not stay with it."""
    total = 256 << 20

    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        with connected() as (left, right):
            right.setblocking(True)

            def drain() -> None:
                buffer = bytearray(4 << 20)
                while right.recv_into(buffer):
                    pass

            thread = threading.Thread(target=drain)
            thread.start()
            ticking = asyncio.ensure_future(tick())
            await aio.sendmsg_all(left, IovIter.iovec(WRITE, [bytes(1 << 20)] * (total >> 20)))
            ticking.cancel()
            left.shutdown(socket.SHUT_WR)
            thread.join()
        return ticks

    assert run(main()) >= total // aio.TURN


def test_other_tasks_run_beside_small_transfers_that_never_wait(run: Run) -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        with connected() as (left, right):
            ticking = asyncio.ensure_future(tick())
            for _ in range(1000):
                assert await aio.sendmsg_all(left, IovIter.ubuf(WRITE, b"abc")) == 3
                assert await aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3))) == 3
            ticking.cancel()
        return ticks

    assert run(main()) >= 10


def test_a_waiting_transfer_uses_no_processor_time(run: Run) -> None:
    """A transfer that waits takes no processor time: nothing polls."""

    async def main() -> None:
        with connected() as (left, right):
            waiting = asyncio.ensure_future(aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3))))
            await asyncio.sleep(0.01)
            before = sum(os.times()[:2])
            await asyncio.sleep(1)
            assert sum(os.times()[:2]) - before < 0.5
            left.send(b"abc")
            assert await waiting == 3

    run(main())


@pytest.mark.parametrize("seed", range(10))
def test_after_a_cancellation_the_iterators_have_the_bytes_transferred(seed: int, run: Run) -> None:
    choose = random.Random(seed)
    data = pattern(1 << 20)
    back = bytearray(len(data))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with connected(8192) as (left, right):
            source, to = IovIter.iovec(WRITE, segments(data, 1001)), IovIter.iovec(READ, segments(back, 777))
            while to:
                tasks = [
                    asyncio.ensure_future(aio.sendmsg_all(left, source)),
                    asyncio.ensure_future(aio.recvmsg_all(right, to)),
                ]
                for _ in range(choose.randrange(40)):
                    await asyncio.sleep(0)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                assert not is_watched(loop, left.fileno())
                assert not is_watched(loop, right.fileno())
                sent, received = len(data) - source.count, len(data) - to.count
                assert received <= sent
                assert back[:received] == data[:received]

    run(main())
    assert back == data


def test_a_second_transfer_in_the_same_direction_is_refused(run: Run) -> None:
    async def main() -> None:
        with connected() as (left, right):
            first = asyncio.ensure_future(aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3))))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="in use by another transfer"):
                await aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3)))
            assert await aio.sendmsg_all(right, IovIter.ubuf(WRITE, b"other way")) == 9
            left.send(b"abc")
            assert await first == 3

    run(main())


def test_two_transfers_over_duplicates_of_one_socket(run: Run) -> None:
    async def main() -> None:
        with connected() as (left, right), right.dup() as again:
            first = asyncio.ensure_future(aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3))))
            await asyncio.sleep(0)
            for other in (aio.recvmsg_all(again, IovIter.ubuf(READ, bytearray(3))),
                          aio.readv_all(again.fileno(), IovIter.ubuf(READ, bytearray(3)))):  # fmt: skip
                with pytest.raises(RuntimeError, match="in use by another transfer"):
                    await other
            left.send(b"abc")
            assert await first == 3
            left.send(b"def")
            assert await aio.recvmsg_all(again, IovIter.ubuf(READ, bytearray(3))) == 3

    run(main())


def test_two_transfers_in_two_loops(run: Run) -> None:
    refused = []

    async def another(sock: socket.socket) -> None:
        with pytest.raises(RuntimeError, match="in use by another transfer"):
            await aio.recvmsg_all(sock, IovIter.ubuf(READ, bytearray(3)))
        refused.append(True)

    async def main() -> None:
        with connected() as (left, right):
            first = asyncio.ensure_future(aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3))))
            await asyncio.sleep(0)
            await asyncio.to_thread(lambda: run(another(right)))
            left.send(b"abc")
            assert await first == 3

    run(main())
    assert refused


def test_control_messages_alone_wait_for_room(run: Run) -> None:
    async def main() -> None:
        left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with left, right:
            left.setblocking(False)
            right.setblocking(False)
            filled = 0
            with suppress(BlockingIOError):
                while True:
                    left.send(b"x" * 1000)
                    filled += 1
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, left.fileno().to_bytes(4, sys.byteorder))]
            sending = asyncio.ensure_future(aio.sendmsg_all(left, IovIter.iovec(WRITE, []), rights))
            await asyncio.sleep(0.01)
            assert not sending.done()
            for _ in range(filled):
                assert len(right.recv(2000)) == 1000
            assert await sending == 0
            message, fds, *_ = socket.recv_fds(right, 10, 1)
            assert (message, len(fds)) == (b"", 1)
            os.close(fds[0])

    run(main())


def test_bad_memory_ends_a_transfer_exactly(run: Run) -> None:
    async def main() -> None:
        with connected() as (left, right), Arena([Page.GOOD, Page.UNMAPPED]) as arena:
            i = IovIter.ubuf(WRITE, UserRange(arena.address + 5, PAGE_SIZE))
            with pytest.raises(FaultError) as raised:
                await aio.sendmsg_all(left, i)
            assert raised.value.characters_written == PAGE_SIZE - 5  # type: ignore[attr-defined]
            assert i.count == 5
            assert len(right.recv(1 << 20)) == PAGE_SIZE - 5

    run(main())
