"""System calls over an iterator, which moves by exactly the bytes transferred.

Single calls: `readv`, `preadv`, `writev`, `pwritev`, `sendmsg`, `recvmsg`, `vmsplice`, `process_vm_readv` and
`process_vm_writev` make one system call over the rest of an `IovIter`, at most 1024 segments and `MAX_RW_COUNT` bytes
of it.

Whole transfers: `readv_all`, `preadv_all`, `writev_all`, `pwritev_all`, `sendmsg_all` and `recvmsg_all` repeat the call
until the iterator is at its end, over any number of segments and bytes, short counts and signals. They return the bytes
transferred, which are fewer only at the end of the file. Anything else that ends them is an exception: an OSError has
the bytes transferred as `characters_written`, and the iterator is at the first byte that was not transferred, so the
same call can continue.

A descriptor is an int or an object with `fileno()`. That method is called before every system call, so a transfer ends
with OSError EBADF if its socket or file was closed meanwhile. A socket's timeout applies; to a whole transfer, it
applies in total, as in `socket.sendall`.

On a socket with message boundaries (datagram, seqpacket) a whole transfer is one message: EMSGSIZE if the iterator's
bytes do not fit one message, or if a received message was longer than the iterator.
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

_REVERT = 1 << 30  # IovIter.revert accepts at most MAX_RW_COUNT bytes
_CHUNK = 1 << 20


def sendmsg(
    sock: int | _Fileno, i: IovIter, ancdata: Iterable[Ancillary] = (), flags: int = 0, address: Any = None
) -> int:
    """Sends the rest of a WRITE iterator with one `sendmsg`. Returns the bytes sent, by which the iterator moves.

    `ancdata`, `flags` and `address` are those of `socket.sendmsg`. An address needs a socket object, whose family
    determines its layout. One message takes at most 1024 segments. After BlockingIOError, TimeoutError (the socket's
    timeout) or another OSError nothing was sent.
    """
    control = _message.encode_control(ancdata) if ancdata != () else b""
    name = _message.encode_address(sock, address) if address is not None else b""
    return sendmsg_raw(sock, i, control, flags, name)


def recvmsg(
    sock: int | _Fileno, i: IovIter, ancbufsize: int = 0, flags: int = 0
) -> tuple[int, list[tuple[int, int, bytes]], int, Any]:
    """Receives into a READ iterator with one `recvmsg`. Returns `(nbytes, ancdata, msg_flags, address)`, as
    `socket.recvmsg_into` does.

    The iterator moves by the bytes stored in its memory; with `MSG_TRUNC` in `flags`, `nbytes` may be greater. In
    `msg_flags`, `MSG_TRUNC` means that a datagram was longer than the iterator, `MSG_CTRUNC` that `ancbufsize` was too
    small. With `MSG_PEEK` the iterator moves, too. MemoryError if the control messages or the address cannot be
    allocated; descriptors among them are closed.
    """
    nbytes, control, msg_flags, name = recvmsg_raw(sock, i, ancbufsize, flags)
    try:
        ancdata = _message.decode_control(control) if control else []
        return nbytes, ancdata, msg_flags, _message.decode_address(name)
    except BaseException:
        close_received(control)
        raise


def sendmsg_all(sock: int | _Fileno, i: IovIter, ancdata: Iterable[Ancillary] = (), flags: int = 0) -> int:
    """Sends the rest of a WRITE iterator, with as many calls as necessary. Returns the bytes sent. The control messages
    are sent with the first of them.

    OSError EMSGSIZE, with nothing sent, if a socket with message boundaries would need more than one message.
    """
    control = _message.encode_control(ancdata) if ancdata != () else b""
    if control and not i.count:
        return sendmsg_raw(sock, i, control, flags, b"")
    return sendmsg_all_raw(sock, i, control, flags)


class _IterIO(io.RawIOBase):
    """A raw file over an iterator. File position 0 is the iterator's position when the file was made."""

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
        """Whether the iterator can move backwards: true for every kind but PIPE, where a revert removes bytes."""
        self._check()
        return self._i.kind is not IterKind.PIPE

    def tell(self) -> int:
        """The file position in bytes."""
        self._check()
        return self._size - self._i.count

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the iterator, at most to its end. Returns the new file position."""
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
    """A raw file that reads from a WRITE iterator, for `io.BufferedReader`, tarfile, zipfile, gzip and http.client.

    The iterator moves with every read. At bad or missing memory `readinto` and `read(n)` first return the bytes before
    it, and the next call raises FaultError or OSError EFAULT. `read()` either returns all bytes or raises and reads
    none.
    """

    def __init__(self, i: IovIter) -> None:
        super().__init__(i, Direction.WRITE)

    def readable(self) -> bool:
        self._check()
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        """Fills the buffer with the next bytes. Returns how many were read, 0 at the end."""
        self._check()
        if not self._i.count:
            return 0
        return _moved(self._i, copy_from_iter, buffer)

    def readall(self) -> bytes:
        """Returns all remaining bytes. If it raises, nothing was read; `FaultError.copied` bytes precede the bad
        memory, and a `read` of that many returns them.
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
    """A raw file that writes into a READ iterator, for `io.BufferedWriter` and other code that writes to a file.

    The iterator moves with every write. A write is short at the iterator's end, and OSError ENOSPC behind it.
    FaultError or OSError EFAULT where the iterator has no memory to write to.
    """

    def __init__(self, i: IovIter) -> None:
        super().__init__(i, Direction.READ)

    def writable(self) -> bool:
        self._check()
        return True

    def write(self, buffer: Buffer, /) -> int:
        """Writes the buffer's bytes. Returns how many there was room for."""
        self._check()
        if not memoryview(buffer).nbytes:
            return 0
        if not self._i.count:
            raise OSError(errno.ENOSPC, "the iterator is full")
        return _moved(self._i, copy_to_iter, buffer)


def _moved(i: IovIter, copy: Any, buffer: Buffer) -> int:
    """Copies, and returns the bytes copied: at least one if the buffer is not empty, since 0 would mean the end of the
    file.
    """
    try:
        copied: int = copy(buffer, i)
    except FaultError as error:
        # The bytes before the fault count. The next call begins at the fault and raises.
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
