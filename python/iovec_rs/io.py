"""System calls over an iterator, with a cursor that is always right.

One call each: `readv`, `preadv`, `writev`, `pwritev`, `sendmsg`, `recvmsg`, `vmsplice`, `process_vm_readv`,
`process_vm_writev` make one system call over what remains of an `IovIter`, at most 1024 segments and `MAX_RW_COUNT`
bytes of it, and move it by exactly the result.

Whole transfers: `readv_all`, `preadv_all`, `writev_all`, `pwritev_all`, `sendmsg_all`, `recvmsg_all` go on until the
iterator is used up, over any number of segments and bytes, short counts and signals. They return the bytes, which are
fewer only at the end of the file. Whatever else ends them is an exception; an OSError has the bytes as
`characters_written`, and the iterator stands at the first byte that was not transferred, so that the same call goes
on from there.

A descriptor is an int or anything with `fileno()`, which is asked again before every system call: a transfer ends with
OSError EBADF when its socket or file was closed meanwhile. A socket's timeout holds: for the whole of a whole transfer,
as that of `sendall` does.

A socket that keeps messages apart sends or receives one message in a whole transfer, never a part of one: EMSGSIZE if
it takes more than one, and if one that came was longer than the iterator.
"""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING, Any

from iovec_rs import _message
from iovec_rs._core import (
    IovIter,
    IterKind,
    close_received,
    copy_from_iter,
    copy_to_iter,
    preadv,
    preadv_all,
    process_vm_readv,
    process_vm_writev,
    pwritev,
    pwritev_all,
    readv,
    readv_all,
    recvmsg_all,
    recvmsg_raw,
    sendmsg_all_raw,
    sendmsg_raw,
    vmsplice,
    writev,
    writev_all,
)
from iovec_rs._types import Direction, FaultError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from iovec_rs._core import _Fileno
    from iovec_rs._message import Ancillary

__all__ = [
    "IterReader",
    "IterWriter",
    "preadv",
    "preadv_all",
    "process_vm_readv",
    "process_vm_writev",
    "pwritev",
    "pwritev_all",
    "readv",
    "readv_all",
    "recvmsg",
    "recvmsg_all",
    "sendmsg",
    "sendmsg_all",
    "vmsplice",
    "writev",
    "writev_all",
]

_REVERT = 1 << 30  # IovIter.revert takes no more than MAX_RW_COUNT at once
_CHUNK = 1 << 20


def sendmsg(
    sock: int | _Fileno, i: IovIter, ancdata: Iterable[Ancillary] = (), flags: int = 0, address: Any = None
) -> int:
    """Sends what a WRITE iterator has with one `sendmsg` and returns the bytes; the iterator moves by them.

    `ancdata`, `flags` and `address` are those of `socket.sendmsg`; an address needs a socket object, whose family
    says how it is laid out. At most 1024 segments go into one message. BlockingIOError, TimeoutError by the socket's
    timeout, OSError otherwise: nothing was sent.
    """
    control = _message.encode_control(ancdata) if ancdata != () else b""
    name = _message.encode_address(sock, address) if address is not None else b""
    return sendmsg_raw(sock, i, control, flags, name)


def recvmsg(
    sock: int | _Fileno, i: IovIter, ancbufsize: int = 0, flags: int = 0
) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
    """Receives into a READ iterator with one `recvmsg`: `(nbytes, ancdata, msg_flags, address)`, as
    `socket.recvmsg_into`.

    The iterator moves by the bytes that came into its memory: with `MSG_TRUNC` in `flags`, `nbytes` may be more. In
    `msg_flags`, `MSG_TRUNC` says that the iterator was too short for a datagram, `MSG_CTRUNC` that `ancbufsize` was
    too small. `MSG_PEEK` moves the iterator, too. Without memory for what came beside the bytes: MemoryError, and the
    descriptors that came are closed.
    """
    nbytes, control, msg_flags, name = recvmsg_raw(sock, i, ancbufsize, flags)
    try:
        ancdata = _message.decode_control(control) if control else []
        return nbytes, ancdata, msg_flags, _message.decode_address(name)
    except BaseException:
        close_received(control)
        raise


def sendmsg_all(sock: int | _Fileno, i: IovIter, ancdata: Iterable[Ancillary] = (), flags: int = 0) -> int:
    """Sends all that a WRITE iterator has and returns the bytes. The control messages go with the first of them.

    For streams. OSError EMSGSIZE, nothing sent, if a socket that keeps messages apart would need more than one.
    """
    control = _message.encode_control(ancdata) if ancdata != () else b""
    if control and not i.count:
        return sendmsg_raw(sock, i, control, flags, b"")
    return sendmsg_all_raw(sock, i, control, flags)


class _IterIO(io.RawIOBase):
    """A position in an iterator: bytes from where it stood when the adapter was made."""

    def __init__(self, i: IovIter, direction: Direction) -> None:
        if not isinstance(i, IovIter):
            raise TypeError(f"i: an IovIter is expected, not {type(i).__name__}")
        if i.direction is not direction:
            raise ValueError(f"i: a {direction.name} iterator is expected, not a {i.direction.name} one")
        self._i = i
        self._size = i.count

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def seekable(self) -> bool:
        """Whether the iterator can go back: every kind but PIPE, whose reverted bytes are gone."""
        self._check()
        return self._i.kind is not IterKind.PIPE

    def tell(self) -> int:
        """Bytes between the beginning and here."""
        self._check()
        return self._size - self._i.count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the iterator, at most to its end. Returns the new position."""
        if not self.seekable():
            raise io.UnsupportedOperation("seek: a PIPE iterator cannot go back")
        here = self.tell()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: here, os.SEEK_END: self._size}.get(whence)
        if base is None:
            raise ValueError(f"whence is {whence}: expected 0, 1 or 2")
        target = base + offset
        if target < 0:
            raise ValueError(f"offset is {offset}: it leads to {target}, before the beginning")
        target = min(target, self._size)
        if target >= here:
            self._i.advance(target - here)
        for left in range(here - target, 0, -_REVERT):
            self._i.revert(min(left, _REVERT))
        return self.tell()


class IterReader(_IterIO):
    """A raw file that reads from a WRITE iterator: for `io.BufferedReader`, tarfile, zipfile, gzip, http.client.

    The iterator moves with every read. FaultError, or OSError EFAULT, where it has no memory to read; `readinto` and
    `read(n)` return what lies before first, `read()` of all is whole or has read nothing.
    """

    def __init__(self, i: IovIter) -> None:
        super().__init__(i, Direction.WRITE)

    def readable(self) -> bool:
        self._check()
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fills the buffer with the next bytes and returns how many, 0 at the end."""
        self._check()
        if not self._i.count:
            return 0
        return _moved(self._i, copy_from_iter, buffer)

    def readall(self) -> bytes:
        """All that remains. Whatever is raised, nothing was read; `FaultError.copied` bytes come before bad memory, and
        `read` of so many has them.
        """
        start = self.tell()
        parts: list[bytes] = []
        try:
            while self._i.count:
                part = bytearray(min(self._i.count, _CHUNK))
                got = self.readinto(part)
                parts.append(bytes(memoryview(part)[:got]))
        except BaseException as error:
            good = self.tell() - start
            self.seek(start)
            if isinstance(error, FaultError):
                error.copied = good
            if isinstance(error, OSError):
                error.add_note(f"{good} bytes come before it, which a read of so many has")
            raise
        return b"".join(parts)


class IterWriter(_IterIO):
    """A raw file that writes into a READ iterator: for `io.BufferedWriter` and whatever writes to a file.

    The iterator moves with every write, which is short at its end. OSError ENOSPC when it is full; FaultError, or
    EFAULT, where it has no memory to write to.
    """

    def __init__(self, i: IovIter) -> None:
        super().__init__(i, Direction.READ)

    def writable(self) -> bool:
        self._check()
        return True

    def write(self, buffer: Buffer, /) -> int:
        """Writes the next bytes and returns how many there was room for."""
        self._check()
        if not memoryview(buffer).nbytes:
            return 0
        if not self._i.count:
            raise OSError(errno.ENOSPC, "the iterator is full")
        return _moved(self._i, copy_to_iter, buffer)


def _moved(i: IovIter, copy: Any, buffer: Buffer) -> int:
    """Bytes copied, at least one if the buffer has any: 0 would be taken for the end of the file."""
    try:
        copied: int = copy(buffer, i)
    except FaultError as error:
        # The bytes before the fault count. The next call begins at it, and raises.
        if error.copied:
            return error.copied
        raise
    if copied or not memoryview(buffer).nbytes:
        return copied
    fault = i.fault
    if fault is None:
        raise OSError(errno.EFAULT, f"the {i.kind} iterator has no memory here, {i.count} bytes before its end")
    failure = FaultError(errno.EFAULT, f"bad memory at {fault.address:#x} ({fault.cause})")
    failure.copied, failure.fault = 0, fault
    raise failure
