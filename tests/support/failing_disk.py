"""Disks that fail: one is full, another cannot read some of its blocks. Both need the privilege to mount. The second is
a FUSE file system of one file, served by another process (`python failing_disk.py DIR SIZE BAD...`): a fault waits for
the server, so that must not need the interpreter of the faulting process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE = 4096
NAME = "file"
PATIENCE = 60
"""The seconds in which the server must start."""
_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, where: Path, options: str) -> None:
    """Mounts a file system. OSError if that is not allowed."""
    if _libc.mount(b"test", os.fsencode(where), kind.encode(), 0, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount -t {kind}: {os.strerror(number)}")


def unmount(where: Path) -> None:
    _libc.umount2(os.fsencode(where), _DETACH)


@contextmanager
def full_disk(where: Path, npages: int) -> Iterator[Path]:
    """A file system with room for this many pages."""
    mount("tmpfs", where, f"size={npages * PAGE}")
    try:
        yield where
    finally:
        unmount(where)


def content(page: int) -> bytes:
    """The content of a readable page of the file."""
    return struct.pack("<Q", page + 1) * (PAGE // 8)


@contextmanager
def unreadable_disk(where: Path, npages: int, bad: Sequence[int]) -> Iterator[Path]:
    """A file of this many pages, of which some give EIO."""
    mount("tmpfs", where, "size=4096")  # fails now if mounting is not allowed
    unmount(where)
    command = [sys.executable, __file__, str(where), str(npages), *map(str, bad)]
    with subprocess.Popen(command) as server:
        try:
            end = time.monotonic() + PATIENCE
            while not (where / NAME).exists():
                assert server.poll() is None, "the server has ended"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.01)
            yield where / NAME
        finally:
            unmount(where)
            server.terminate()


class Request(IntEnum):
    """The requests of the kernel that the FUSE server answers; others it refuses."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    OPEN = 14
    READ = 15
    INIT = 26
    BATCH_FORGET = 42


_ROOT, _FILE = 1, 2
_MAJOR, _MINOR = 7, 31


def _attributes(node: int, size: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
    return struct.pack("<6Q10I", node, size, size // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, PAGE, 0)


def _answer(opcode: int, node: int, body: bytes, npages: int, bad: set[int]) -> bytes | int:
    """The reply to one request, or an errno."""
    size = npages * PAGE if node == _FILE else 0
    match opcode:
        case Request.INIT:
            return struct.pack("<4I2H2I2HI7I", _MAJOR, _MINOR, 0, 0, 1, 1, PAGE, 1, 1, 0, 0, *[0] * 7)
        case Request.LOOKUP:
            if body.rstrip(b"\0").decode() != NAME:
                return errno.ENOENT
            return struct.pack("<4Q2I", _FILE, 1, 60, 60, 0, 0) + _attributes(_FILE, npages * PAGE)
        case Request.GETATTR:
            return struct.pack("<Q2I", 60, 0, 0) + _attributes(node, size)
        case Request.OPEN:
            return struct.pack("<Q2I", 0, 0, 0)
        case Request.READ:
            _, offset, length = struct.unpack_from("<QQI", body)
            pages = range(offset // PAGE, min((offset + length) // PAGE, npages))
            return errno.EIO if bad.intersection(pages) else b"".join(map(content, pages))
    return errno.ENOSYS


def serve(where: Path, npages: int, bad: set[int]) -> None:
    """Answers requests until the file system is unmounted."""
    device = os.open("/dev/fuse", os.O_RDWR)
    mount("fuse", where, f"fd={device},rootmode=40000,user_id=0,group_id=0")
    while True:
        try:
            request = os.read(device, 1 << 20)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.ENOENT, errno.EINTR):
                continue
            raise
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        if opcode in (Request.FORGET, Request.BATCH_FORGET):
            continue
        answer = _answer(opcode, node, request[40:], npages, bad)
        number, data = (answer, b"") if isinstance(answer, int) else (0, answer)
        os.write(device, struct.pack("<IiQ", 16 + len(data), -number, unique) + data)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), {int(page) for page in sys.argv[3:]})
