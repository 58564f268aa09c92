"""Whole transfers on asyncio's loop and on uvloop's: readiness, fairness, cancellation, files no loop can watch."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import resource
import signal
import socket
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import READ, WRITE, FaultError, IovIter, IterKind, UserRange, aio
from support.arena import PAGE_SIZE, Arena, Page
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

from transfers.support import pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _on(make_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)


on_asyncio: Run = partial(_on, asyncio.new_event_loop)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a new loop. Without uvloop the test is skipped before it makes a coroutine."""
    if request.param == "asyncio":
        return on_asyncio
    return partial(_on, pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop)


@contextmanager
def connected(buffers: int | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        for sock in (left, right):
            sock.setblocking(False)
            if buffers is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        yield left, right


def segments(data: bytes | bytearray, size: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + size] for start in range(0, len(data), size)]


def is_watched(loop: asyncio.AbstractEventLoop, fd: int) -> bool:
    return bool(loop.remove_reader(fd)) or bool(loop.remove_writer(fd))


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


class TestMadeToBlock:
    """O_NONBLOCK is common to all duplicates of a descriptor: somebody clears it behind a transfer's back."""

    @pytest.mark.parametrize("receive", [aio.recvmsg_all, aio.readv_all])
    def test_a_socket_that_is_waited_for_leaves_the_loop_to_others(
        self, receive: Callable[[Any, IovIter], Coroutine[Any, Any, int]], run: Run
    ) -> None:
        async def main() -> None:
            with connected() as (left, right):
                into = bytearray(6)
                waiting = asyncio.ensure_future(receive(right, IovIter.ubuf(READ, into)))
                await asyncio.sleep(0)
                os.set_blocking(right.fileno(), True)
                left.send(b"abc")
                # A call that blocked would not come back before all six bytes have.
                await asyncio.sleep(0.05)
                left.send(b"def")
                assert await waiting == 6
                assert into == b"abcdef"

        in_a_watched_process(lambda: run(main()))

    @pytest.mark.parametrize("send", [aio.sendmsg_all, aio.writev_all])
    def test_a_socket_that_is_full(self, send: Callable[[Any, IovIter], Coroutine[Any, Any, int]], run: Run) -> None:
        async def main() -> None:
            with connected(4096) as (left, right):
                data = pattern(1 << 20)
                sending = asyncio.ensure_future(send(left, IovIter.ubuf(WRITE, data)))
                await asyncio.sleep(0)
                os.set_blocking(left.fileno(), True)
                received = b""
                while len(received) < len(data):
                    with suppress(BlockingIOError):
                        received += right.recv(1 << 16)
                    await asyncio.sleep(0)
                assert await sending == len(data)
                assert received == data

        in_a_watched_process(lambda: run(main()))

    def test_a_pipe_ends_the_transfer(self, run: Run) -> None:
        async def main() -> None:
            out, into = os.pipe()
            os.set_blocking(into, False)
            i = IovIter.ubuf(WRITE, bytes(1 << 20))
            sending = asyncio.ensure_future(aio.writev_all(into, i))
            await asyncio.sleep(0.01)
            os.set_blocking(into, True)
            sent = (1 << 20) - i.count
            assert sent == len(os.read(out, 1 << 20))
            with pytest.raises(ValueError, match="blocks") as raised:
                await sending
            assert raised.value.characters_written == sent  # type: ignore[attr-defined]
            assert i.count == (1 << 20) - sent
            os.close(out)
            os.close(into)

        in_a_watched_process(lambda: run(main()))


def in_a_watched_process(work: Callable[[], object]) -> None:
    """Where a loop that stands still is ended."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestRefusals:
    @pytest.mark.parametrize("timeout", [None, 1.0])
    def test_a_socket_that_blocks(self, timeout: float | None, run: Run) -> None:
        async def main() -> None:
            with connected() as (left, _right):
                left.settimeout(timeout)
                i = IovIter.ubuf(WRITE, b"abc")
                with pytest.raises(ValueError, match="it blocks"):
                    await aio.sendmsg_all(left, i)
                with pytest.raises(ValueError, match="it blocks"):
                    await aio.recvmsg_all(left, IovIter.ubuf(READ, bytearray(3)))
                assert i.count == 3

        run(main())

    def test_a_tls_socket(self, run: Run) -> None:
        ssl = pytest.importorskip("ssl")

        async def main() -> None:
            with connected() as (left, right):
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                context.check_hostname = False
                with context.wrap_socket(left, do_handshake_on_connect=False) as encrypted:
                    for transfer in (
                        aio.sendmsg_all(encrypted, IovIter.ubuf(WRITE, b"secret")),
                        aio.writev_all(encrypted, IovIter.ubuf(WRITE, b"secret")),
                    ):
                        with pytest.raises(TypeError, match="TLS"):
                            await transfer
                assert not right.recv(10), "nothing came before the end"

        run(main())

    def test_one_message_made_into_several(self, run: Run) -> None:
        async def main() -> None:
            left, right = socket.socketpair(type=socket.SOCK_DGRAM)
            with left, right:
                left.setblocking(False)
                i = IovIter.iovec(WRITE, [b"x"] * 1025)
                with pytest.raises(OSError, match="one message takes 1024"):
                    await aio.sendmsg_all(left, i)
                assert i.count == 1025

        run(main())

    def test_flags_that_would_repeat_bytes(self, run: Run) -> None:
        async def main() -> None:
            with connected() as (left, right):
                left.send(b"abc")
                with pytest.raises(ValueError, match="flags is"):
                    await aio.recvmsg_all(right, IovIter.ubuf(READ, bytearray(3)), socket.MSG_PEEK)
                assert right.recv(10) == b"abc"

        run(main())

    def test_a_pipe_that_blocks(self, run: Run) -> None:
        async def main() -> None:
            out, into = os.pipe()
            for transfer in (
                aio.writev_all(into, IovIter.ubuf(WRITE, b"abc")),
                aio.readv_all(out, IovIter.ubuf(READ, bytearray(3))),
            ):
                with pytest.raises(ValueError, match="blocks"):
                    await transfer
            os.close(out)
            os.close(into)

        run(main())

    def test_nobody_else_s_watch_is_taken_away(self) -> None:
        async def main() -> None:
            out, into = os.pipe()
            asyncio.get_running_loop().add_reader(out, int)
            with pytest.raises(ValueError, match="blocks"):
                await aio.readv_all(out, IovIter.ubuf(READ, bytearray(3)))
            assert asyncio.get_running_loop().remove_reader(out)
            os.close(out)
            os.close(into)

        on_asyncio(main())  # uvloop makes what it watches non-blocking

    def test_the_wrong_direction(self, run: Run, tmp_path: Path) -> None:
        async def main() -> None:
            file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
            with connected() as (left, _right):
                for function, where, i in (
                    (aio.sendmsg_all, left, IovIter.ubuf(READ, bytearray(3))),
                    (aio.recvmsg_all, left, IovIter.ubuf(WRITE, b"abc")),
                    (aio.writev_all, file, IovIter.ubuf(READ, bytearray(3))),
                    (aio.readv_all, file, IovIter.ubuf(WRITE, b"abc")),
                ):
                    with pytest.raises(ValueError, match="iterator is expected"):
                        await function(where, i)
                    assert i.count == 3
            os.close(file)

        run(main())

    def test_a_peer_that_is_gone(self, run: Run) -> None:
        async def main() -> None:
            with connected() as (left, right):
                i = IovIter.iovec(WRITE, [bytes(1 << 20)] * 64)
                sending = asyncio.ensure_future(aio.sendmsg_all(left, i))
                await asyncio.sleep(0.01)
                right.close()
                with pytest.raises(OSError, match=r"Broken pipe|Connection reset") as raised:
                    await sending
                assert raised.value.characters_written == (64 << 20) - i.count > 0  # type: ignore[attr-defined]
                assert not is_watched(asyncio.get_running_loop(), left.fileno())

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


class TestFilesThatNoLoopCanWatch:
    def test_are_written_and_read(self, run: Run, tmp_path: Path) -> None:
        data = pattern(3 * aio.PIECE + 5)
        back = bytearray(len(data) + 10)

        async def main() -> None:
            with (tmp_path / "file").open("wb+", buffering=0) as file:
                assert await aio.writev_all(file, IovIter.iovec(WRITE, segments(data, 1 << 16))) == len(data)
                file.seek(0)
                i = IovIter.iovec(READ, segments(back, 1 << 17))
                assert await aio.readv_all(file, i) == len(data)
                assert i.count == 10
            null = os.open("/dev/null", os.O_WRONLY)
            assert await aio.writev_all(null, IovIter.ubuf(WRITE, data)) == len(data)
            os.close(null)

        run(main())
        assert back[: len(data)] == data

    def test_cancelled_the_iterator_says_what_went(self, run: Run) -> None:
        data = pattern(8 * aio.PIECE)

        async def main() -> None:
            file = os.memfd_create("file")
            i = IovIter.iovec(WRITE, segments(data, 1 << 16))
            while i:
                writing = asyncio.ensure_future(aio.writev_all(file, i))
                await asyncio.sleep(0.001)
                writing.cancel()
                await asyncio.sleep(0)
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
                assert os.fstat(file).st_size == len(data) - i.count == os.lseek(file, 0, os.SEEK_CUR)
            assert os.pread(file, len(data), 0) == data
            os.close(file)

        run(main())

    def test_a_full_file_system_says_how_much_went(self, run: Run) -> None:
        async def main() -> None:
            full = os.open("/dev/full", os.O_WRONLY)
            i = IovIter.ubuf(WRITE, b"abc")
            with pytest.raises(OSError, match="No space") as raised:
                await aio.writev_all(full, i)
            assert (raised.value.characters_written, i.count) == (0, 3)  # type: ignore[attr-defined]
            os.close(full)

        run(main())


def test_a_loop_that_is_closed_in_the_middle_leaves_nothing_behind(run: Run) -> None:
    with connected(8192) as (left, right):
        i = IovIter.iovec(WRITE, [bytes(1000)] * 1000)

        async def abandon() -> None:
            task = asyncio.ensure_future(aio.sendmsg_all(left, i))
            await asyncio.sleep(0)
            task.add_done_callback(lambda _: None)

        run(abandon())
        sent = 1_000_000 - i.count
        assert sent > 0
        assert len(right.recv(sent + 1, socket.MSG_WAITALL)) == sent

        async def again() -> None:
            receiving = asyncio.ensure_future(aio.recvmsg_all(right, IovIter.discard(READ, 1_000_000 - sent)))
            assert await aio.sendmsg_all(left, i) == 1_000_000 - sent
            await receiving

        run(again())


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
