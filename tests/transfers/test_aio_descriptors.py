"""What a loop can watch, what is made to block meanwhile, and what is refused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import READ, WRITE, IovIter, aio

from transfers.loops import is_watched, on_asyncio
from transfers.support import connected, pattern, segments

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from transfers.loops import Run


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
