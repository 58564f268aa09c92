"""Whole transfers for asyncio and uvloop: `await sendmsg_all(sock, i)`.

The event loop watches the descriptor (`add_reader`, `add_writer`). Whenever it is ready, a transfer moves at most
`TURN` bytes, so that other tasks get their turns. The iterator moves with the bytes: when a transfer is cancelled or
fails, the iterator is at the first byte not transferred, the loop no longer watches the descriptor, and the same call
can continue.

The loop watches a duplicate of the descriptor. So a transfer displaces no other reader or writer of the original
number, and if the program closes that, no other file can get the number watched. Event loops are not notified of a
`close`: every `LOOK` seconds a waiting transfer checks whether its socket or file was closed, and ends with EBADF if
so.

Files that the loop cannot watch (regular files, block devices) are read and written in the loop's executor, `PIECE`
bytes at a time. A cancelled transfer first waits for the piece that is running, so that the iterator has its final
position when `CancelledError` is raised.

With trio, anyio and others, call `iovec_rs.io.sendmsg` and its relatives, and on BlockingIOError the library's own
`wait_writable`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

from iovec_rs._core import keeps_messages, readv_part, recvmsg_part, sendmsg_raw, writev_part
from iovec_rs._message import encode_control
from iovec_rs._types import Direction

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from iovec_rs._core import IovIter, _Fileno
    from iovec_rs._message import Ancillary

    _Part = Callable[[int | _Fileno, IovIter, int], int]

# asyncio takes longer to import than the whole package, so it is imported where it is used: a program that runs an
# event loop has imported it before. A module-level `__getattr__` of the package could import this module later instead,
# but CPython then does not specialise `iovec_rs.name`, which takes 10 ns longer.

__all__ = ["readv_all", "recvmsg_all", "sendmsg_all", "writev_all"]

TURN = 1 << 20
PIECE = 8 << 20
LOOK = 1.0
_CALL = 16 << 10  # what each transfer counts in addition to its bytes

# The transfers that are running, in any loop, by direction and file: the bytes of a second one in the same direction
# would mix with those of the first. A socket is identified by its inode, which its duplicates share. Descriptors of
# other files are identified by number as well, because independent descriptors of a device share its inode.
_under_way: dict[tuple[Direction, int, int, int], _Transfer] = {}
os.register_at_fork(after_in_child=_under_way.clear)


async def sendmsg_all(sock: Any, i: IovIter, ancdata: Iterable[Ancillary] = (), flags: int = 0) -> int:
    """Sends the rest of a WRITE iterator over a stream socket. Returns the bytes sent. Control messages are sent with
    the first of them.

    ValueError for a blocking socket; RuntimeError while another task sends on it; OSError from the socket. OSError
    EMSGSIZE, with nothing sent, if a socket with message boundaries would need more than one message.
    """
    control = encode_control(ancdata) if ancdata != () else b""

    def turn(sock: Any, done: int) -> int:
        return sendmsg_raw(sock, i, b"" if done else control, flags | socket.MSG_DONTWAIT, b"", TURN)

    _require_waiting(sock)
    return await _Transfer(sock, i, Direction.WRITE, turn, has_control=bool(control)).run()


async def recvmsg_all(sock: Any, i: IovIter, flags: int = 0) -> int:
    """Fills a READ iterator from a stream socket. Returns the bytes received, fewer only if the peer has shut down.
    From a socket with message boundaries it receives one message.

    ValueError for a blocking socket; RuntimeError while another task receives from it; OSError from the socket.
    """

    def turn(sock: Any, _done: int) -> int:
        return recvmsg_part(sock, i, flags | socket.MSG_DONTWAIT, TURN)

    _require_waiting(sock)
    return await _Transfer(sock, i, Direction.READ, turn).run()


async def writev_all(fd: int | _Fileno, i: IovIter) -> int:
    """Writes the rest of a WRITE iterator to a pipe, socket, device or file. Returns the bytes written.

    ValueError for a pipe, socket or terminal in blocking mode.
    """
    return await _file(fd, i, Direction.WRITE, writev_part)


async def readv_all(fd: int | _Fileno, i: IovIter) -> int:
    """Fills a READ iterator from a pipe, socket, device or file. Returns the bytes read, fewer only at its end.

    ValueError for a pipe, socket or terminal in blocking mode.
    """
    return await _file(fd, i, Direction.READ, readv_part)


def _require_waiting(sock: Any) -> None:
    """Refuses a blocking socket."""
    timeout = sock.gettimeout()
    if timeout != 0:
        raise ValueError(f"sock: it blocks (its timeout is {timeout}): call setblocking(False) first")


def _refuse_transport(file: Any) -> None:
    """Refuses the socket object of a transport: bytes sent past the transport would mix with those in its buffer."""
    from asyncio.trsock import TransportSocket  # noqa: PLC0415

    if isinstance(file, TransportSocket) or type(file).__module__ == "uvloop.loop":
        raise TypeError("a transport's socket: its bytes have to go through the transport")


def _number(file: Any) -> int:
    """The descriptor of an open file or socket. EBADF if it was closed."""
    fd: int = file if isinstance(file, int) else file.fileno()
    if fd < 0:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return fd


async def _file(file: int | _Fileno, i: IovIter, direction: Direction, part: _Part) -> int:
    fd = _number(file)
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
        return await _in_executor(i, direction, partial(part, file, i, PIECE))

    def turn(file: Any, _done: int) -> int:
        # All duplicates of a descriptor share O_NONBLOCK, so another holder may have cleared it.
        _require_nonblocking(_open_number(file))
        return part(file, i, TURN)

    def turn_over_a_socket(sock: Any, _done: int) -> int:
        if direction is Direction.WRITE:
            return sendmsg_raw(sock, i, b"", socket.MSG_DONTWAIT, b"", TURN)
        return recvmsg_part(sock, i, socket.MSG_DONTWAIT, TURN)

    transfer = _Transfer(file, i, direction, turn_over_a_socket if stat.S_ISSOCK(mode) else turn)
    if os.get_blocking(fd):
        if _is_watchable(fd):
            _require_nonblocking(fd)
        return await _in_executor(i, direction, partial(part, file, i, PIECE))
    return await transfer.run()


def _require_nonblocking(fd: int) -> None:
    if os.get_blocking(fd):
        raise ValueError(f"fd: {fd} blocks: call os.set_blocking({fd}, False) first")


def _open_number(file: Any) -> int:
    """The descriptor of a file during a transfer. EBADF if it was closed since the start."""
    try:
        return _number(file)
    except ValueError as error:
        raise OSError(errno.EBADF, "closed during the transfer") from error


def _is_watchable(fd: int) -> bool:
    """Whether epoll accepts the descriptor. It refuses regular files."""
    with select.epoll() as probe:
        try:
            probe.register(fd)
        except PermissionError:
            return False
    return True


def _check(i: IovIter, direction: Direction) -> None:
    if i.direction is not direction:
        raise ValueError(f"i: a {direction.name} iterator is expected, not a {i.direction.name} one")


def _count(error: OSError | ValueError, done: int) -> None:
    """Sets `characters_written` on an error, as the io module does on BlockingIOError. `done` is added to what the
    error's own system call had counted.
    """
    error.characters_written = done + getattr(error, "characters_written", 0)  # type: ignore[union-attr]


_at_once = 0


def _is_turn_over(done: int) -> bool:
    """Counts the bytes of transfers that did not have to wait. A task that makes many such transfers in a row must
    yield to the loop after `TURN` bytes, too.
    """
    global _at_once  # noqa: PLW0603
    _at_once += done + _CALL
    if _at_once < TURN:
        return False
    _at_once = 0
    return True


class _Transfer:
    """One transfer, made in turns. The loop calls for a turn whenever the descriptor is ready."""

    def __init__(
        self, file: Any, i: IovIter, direction: Direction, turn: Callable[[Any, int], int], has_control: bool = False
    ) -> None:
        import asyncio  # noqa: PLC0415

        _refuse_transport(file)
        self.loop = asyncio.get_running_loop()
        self.file = file
        self.fd = _number(file)
        self.stat = os.fstat(self.fd)
        self.i = i
        self.turn = turn
        self.done = 0
        self.has_control = has_control  # whether control messages are still to be sent; they may be sent without data
        is_socket = stat.S_ISSOCK(self.stat.st_mode)
        self.key = (direction, self.stat.st_dev, self.stat.st_ino, -1 if is_socket else self.fd)
        writes = direction is Direction.WRITE
        self.watch = self.loop.add_writer if writes else self.loop.add_reader
        self.unwatch = self.loop.remove_writer if writes else self.loop.remove_reader
        self.is_one_message = not writes and is_socket and keeps_messages(self.fd)
        _check(i, direction)

    def is_over(self, file: Any) -> bool:
        """Takes a turn. Returns whether it was the last; `False` after BlockingIOError, when the loop waits for the
        descriptor.
        """
        if not self.i.count and not self.has_control:
            return True
        try:
            moved = self.turn(file, self.done)
        except BlockingIOError:
            return False
        self.has_control = False
        self.done += moved
        return not moved or not self.i.count or self.is_one_message

    async def run(self) -> int:
        import asyncio  # noqa: PLC0415

        if _under_way.setdefault(self.key, self) is not self:
            raise RuntimeError(f"descriptor {self.fd} is in use by another transfer in the same direction")
        try:
            if not self.is_over(self.file):
                await self._until_over()
            elif _is_turn_over(self.done):
                await asyncio.sleep(0)
        except (OSError, ValueError) as error:
            _count(error, self.done)
            raise
        finally:
            del _under_way[self.key]
        return self.done

    def _require_open(self) -> None:
        """Raises EBADF if the file was closed, even if another file has its number by now."""
        try:
            is_open = _number(self.file) == self.fd and os.path.samestat(os.fstat(self.fd), self.stat)
        except (OSError, ValueError):
            is_open = False
        if not is_open:
            raise OSError(errno.EBADF, f"closed during the transfer: {self.fd} is not its own")

    async def _until_over(self) -> None:
        over: asyncio.Future[None] = self.loop.create_future()
        own = os.dup(self.fd)

        def take(step: Callable[[], bool | None]) -> None:
            if over.done():
                return
            try:
                if step():
                    over.set_result(None)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                over.set_exception(error)

        def look() -> None:
            take(self._require_open)
            looks[0] = self.loop.call_later(LOOK, look)

        # An object reports itself that it was closed. A bare number may belong to another file by now, so the duplicate
        # is used.
        file = own if isinstance(self.file, int) else self.file
        looks = [self.loop.call_later(LOOK, look)]
        try:
            self.watch(own, take, partial(self.is_over, file))
            try:
                await over
            finally:
                self.unwatch(own)
        finally:
            looks[0].cancel()
            os.close(own)


async def _in_executor(i: IovIter, direction: Direction, piece: Callable[[], int]) -> int:
    import asyncio  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    _check(i, direction)
    done = 0
    while i.count:
        running = loop.run_in_executor(None, piece)
        try:
            moved = await asyncio.shield(running)
        except asyncio.CancelledError:
            await _ended(running)
            raise
        except OSError as error:
            _count(error, done)
            raise
        done += moved
        if not moved:
            break
    return done


async def _ended(running: asyncio.Future[int]) -> None:
    """Waits for a running piece to end, even if the waiting is cancelled again."""
    import asyncio  # noqa: PLC0415

    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError:
            continue
    running.exception()
