"""What the tests of transfers share."""

from __future__ import annotations

import os
import platform
import socket
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# poll, readv, writev, recvmsg, preadv
_TRANSFERS = {"x86_64": {"7", "19", "20", "47", "295"}, "aarch64": {"65", "66", "69", "73", "212"}}


def wait_until_blocked(thread: threading.Thread) -> None:
    """Returns when the thread waits for bytes, or for room, in a system call: not at its own start, and not for the
    interpreter.
    """
    state = Path(f"/proc/self/task/{thread.native_id}/syscall")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if state.read_text(encoding="ascii").split()[0] in _TRANSFERS[platform.machine()]:
            return
        time.sleep(0.001)
    raise AssertionError("the thread did not block")


def pattern(nbytes: int) -> bytes:
    """Bytes that tell where they are from: no two parts of 64 KiB are alike."""
    block = b"".join(number.to_bytes(4, "big") for number in range(min(nbytes // 4 + 1, 1 << 16)))
    return (block * (nbytes // len(block) + 1))[:nbytes] if len(block) < nbytes else block[:nbytes]


@contextmanager
def connected(buffers: int | None = None, *, blocks: bool = False) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a stream, with room for so many bytes on the way, or for as many as the system gives."""
    left, right = socket.socketpair()
    with left, right:
        for sock in (left, right):
            sock.setblocking(blocks)
            if buffers is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
        yield left, right


def segments(data: bytes | bytearray, size: int) -> list[memoryview]:
    view = memoryview(data)
    return [view[start : start + size] for start in range(0, len(data), size)]


class Drain(threading.Thread):
    """The other end: takes all there is, a few bytes at a time, until the end."""

    def __init__(self, fd: int, most: int = 1 << 16) -> None:
        super().__init__()
        self.fd, self.most = fd, most
        self.received = bytearray()
        self.start()

    def run(self) -> None:
        while part := os.read(self.fd, self.most):
            self.received += part
