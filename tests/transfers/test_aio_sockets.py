"""Sockets on a loop: closed meanwhile, used by others, keeping messages apart."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import READ, WRITE, IovIter, aio

from transfers.support import connected

if TYPE_CHECKING:
    from transfers.loops import Run


class TestASocketThatIsClosedMeanwhile:
    """By another task. No loop is told of it."""

    @pytest.mark.parametrize("by_number", [False, True], ids=["object", "number"])
    @pytest.mark.parametrize("direction", [READ, WRITE], ids=["read", "write"])
    def test_ends_the_transfer_and_gives_its_number_back(self, direction: Any, by_number: bool, run: Run) -> None:
        async def main() -> None:
            with connected(4096) as (left, right):
                i = IovIter.iovec(direction, [bytearray(1 << 20)])
                transfer = aio.writev_all if direction is WRITE else aio.readv_all
                waiting = asyncio.ensure_future(transfer(left.fileno() if by_number else left, i))
                await asyncio.sleep(0.01)
                number = left.fileno()
                left.close()
                a, b = socket.socketpair()
                with a, b:
                    assert number in (a.fileno(), b.fileno())
                    stranger, other = (a, b) if a.fileno() == number else (b, a)
                    stranger.setblocking(False)
                    other.send(b"for the stranger")
                    mine = await asyncio.wait_for(aio.recvmsg_all(stranger, IovIter.ubuf(READ, bytearray(3))), 60)
                    with pytest.raises(OSError, match="closed during the transfer") as raised:
                        await asyncio.wait_for(waiting, 60)
                    assert (mine, raised.value.errno) == (3, errno.EBADF)
                    went = (1 << 20) - i.count
                    assert raised.value.characters_written == went  # type: ignore[attr-defined]
                    other.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        other.recv(10)
                    assert stranger.recv(100) == b" the stranger"
                    if direction is WRITE:
                        assert len(received_until_the_end(right)) == went

        run(main())

    def test_ends_it_at_the_next_turn(self, run: Run) -> None:
        async def main() -> None:
            with connected(4096) as (left, right):
                i = IovIter.iovec(WRITE, [bytes(1 << 20)])
                waiting = asyncio.ensure_future(aio.sendmsg_all(left, i))
                await asyncio.sleep(0.01)
                left.close()
                right.recv(1 << 20)
                with pytest.raises(OSError, match="Bad file descriptor") as raised:
                    await asyncio.wait_for(waiting, 60)
                assert raised.value.errno == errno.EBADF

        run(main())


def received_until_the_end(sock: socket.socket) -> bytes:
    sock.settimeout(60)
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


class TestBesideOtherUsersOfTheSocket:
    def test_the_loop_s_own_receiver_keeps_its_place(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            with connected() as (left, right):
                theirs = asyncio.ensure_future(loop.sock_recv(left, 3))
                await asyncio.sleep(0)
                ours = asyncio.ensure_future(aio.recvmsg_all(left, IovIter.ubuf(READ, bytearray(3))))
                await asyncio.sleep(0)
                right.send(b"abcdef")
                assert len(await asyncio.wait_for(theirs, 60)) == 3
                assert await asyncio.wait_for(ours, 60) == 3

        run(main())

    def test_a_reader_of_the_program_s_keeps_its_place(self, run: Run) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            called: asyncio.Future[None] = loop.create_future()
            with connected() as (left, right):
                loop.add_reader(left, lambda: None if called.done() else called.set_result(None))
                ours = asyncio.ensure_future(aio.recvmsg_all(left, IovIter.ubuf(READ, bytearray(3))))
                await asyncio.sleep(0)
                right.send(b"abc")
                assert await asyncio.wait_for(ours, 60) == 3
                right.send(b"abc")
                await asyncio.wait_for(called, 60)
                loop.remove_reader(left)

        run(main())

    def test_a_transport_s_socket_is_refused(self, run: Run) -> None:
        async def main() -> None:
            with connected() as (left, right):
                _, writer = await asyncio.open_connection(sock=left)
                shown = writer.transport.get_extra_info("socket")
                for transfer in (aio.sendmsg_all, aio.writev_all):
                    with pytest.raises(TypeError, match="a transport's socket"):
                        await transfer(shown, IovIter.ubuf(WRITE, b"abc"))
                writer.close()
                await writer.wait_closed()
                assert right.recv(10) == b""

        run(main())

    def test_no_descriptor_stays_behind(self, run: Run) -> None:
        async def main() -> None:
            with connected(4096) as (left, right):
                before = sorted(Path("/proc/self/fd").iterdir())
                for _ in range(3):
                    waiting = asyncio.ensure_future(aio.sendmsg_all(left, IovIter.ubuf(WRITE, bytes(1 << 20))))
                    await asyncio.sleep(0.01)
                    waiting.cancel()
                    await asyncio.wait([waiting])
                assert sorted(Path("/proc/self/fd").iterdir()) == before
                assert right.recv(1)

        run(main())

    def test_without_a_descriptor_to_be_had_nothing_is_lost(self, run: Run) -> None:
        async def main() -> None:
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            with connected(4096) as (left, right):
                i = IovIter.ubuf(WRITE, bytes(1 << 20))
                resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
                try:
                    with pytest.raises(OSError, match="Too many open files") as raised:
                        await aio.sendmsg_all(left, i)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                went = (1 << 20) - i.count
                assert raised.value.characters_written == went  # type: ignore[attr-defined]
                left.close()
                assert len(received_until_the_end(right)) == went

        run(main())


class TestSocketsThatKeepMessagesApart:
    @pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
    def test_one_message_goes_or_none(self, kind: int, run: Run) -> None:
        async def main() -> None:
            left, right = socket.socketpair(type=kind)
            with left, right:
                for sock in (left, right):
                    sock.setblocking(False)
                for transfer in (aio.sendmsg_all, aio.writev_all):
                    i = IovIter.iovec(WRITE, [b"x"] * 1025)
                    with pytest.raises(OSError, match="one message takes 1024"):
                        await transfer(left, i)
                    assert i.count == 1025
                    assert await transfer(left, IovIter.iovec(WRITE, [b"x"] * 1024)) == 1024
                for receive in (aio.recvmsg_all, aio.readv_all):
                    i = IovIter.ubuf(READ, bytearray(5000))
                    assert await receive(right, i) == 1024
                    assert i.count == 5000 - 1024

        run(main())

    def test_a_message_that_is_cut_is_told_of(self, run: Run) -> None:
        async def main() -> None:
            left, right = socket.socketpair(type=socket.SOCK_SEQPACKET)
            with left, right:
                right.setblocking(False)
                for receive in (aio.recvmsg_all, aio.readv_all):
                    left.send(b"abcdef")
                    with pytest.raises(OSError, match="its end is lost") as raised:
                        await receive(right, IovIter.ubuf(READ, bytearray(3)))
                    assert raised.value.characters_written == 3  # type: ignore[attr-defined]

        run(main())
