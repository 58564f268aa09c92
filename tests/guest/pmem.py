"""RAM set aside as persistent memory: a file system with DAX on it, and bad blocks below its files.

The device outlives the tests, so each test begins with a new file system and without bad blocks.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import struct
import subprocess
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iovec_rs import PAGE_SIZE

from guest.memory import Arena, address_of

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = Path("/dev/pmem0")
SYSFS = Path("/sys/block/pmem0")
HOME = Path("/dev/shm/pmem")  # a tmpfs, the only writable place
SECTOR = 512
MAP_SHARED_VALIDATE = 3
MAP_SYNC = 0x80000
FS_IOC_FIEMAP = 0xC020660B
FIEMAP_FLAG_SYNC = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Extent(NamedTuple):
    """A range of a file, and its offset on the device."""

    logical: int
    physical: int
    length: int


def mount() -> None:
    HOME.mkdir(exist_ok=True)
    _check(_libc.mount(bytes(DEVICE), bytes(HOME), b"ext4", ctypes.c_ulong(0), b"dax=always"), "mount")


def unmount() -> None:
    """Raises EBUSY as long as a file is open or mapped."""
    _check(_libc.umount2(bytes(HOME), 0), "umount")


def remount() -> None:
    """Makes the kernel drop everything that it has cached of the file system, so that later reads come from the
    device.
    """
    unmount()
    mount()


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextmanager
def domain() -> Iterator[Path]:
    """Makes a new file system without bad blocks, mounts it, and yields its path."""
    if HOME.is_mount():  # left by a test that died
        unmount()
    scrub()
    subprocess.run(["mkfs.ext4", "-q", "-F", "-b", str(PAGE_SIZE), DEVICE], check=True, capture_output=True)
    mount()
    yield HOME


def bad_sectors() -> list[tuple[int, int]]:
    """The device's bad blocks: first sector and number of sectors."""
    lines = (SYSFS / "badblocks").read_text(encoding="ascii").splitlines()
    return [(int(first), int(count)) for first, count in map(str.split, lines)]


def scrub() -> None:
    """Empties the list of bad blocks, which only a write to the device does."""
    page = mmap.mmap(-1, PAGE_SIZE)  # O_DIRECT wants it aligned
    device = os.open(DEVICE, os.O_WRONLY | os.O_DIRECT)
    try:
        for first, count in bad_sectors():
            for number in range(first // 8, (first + count + 7) // 8):
                os.pwrite(device, page, number * PAGE_SIZE)
    finally:
        os.close(device)
    assert not bad_sectors(), bad_sectors()


def extents(fd: int) -> list[Extent]:
    """The extents of a file on the device."""
    room = 64
    request = bytearray(struct.pack("=QQIIII", 0, (1 << 64) - 1, FIEMAP_FLAG_SYNC, 0, room, 0) + bytes(56 * room))
    fcntl.ioctl(fd, FS_IOC_FIEMAP, request)
    mapped = struct.unpack_from("=I", request, 20)[0]
    return [Extent(*struct.unpack_from("=QQQ", request, 32 + 56 * number)) for number in range(mapped)]


def device_offset(fd: int, offset: int) -> int:
    """The offset on the device of the byte at an offset of a file."""
    for logical, physical, length in extents(fd):
        if logical <= offset < logical + length:
            return physical + offset - logical
    raise AssertionError(f"byte {offset} of the file is nowhere on the device")


def spoil(fd: int, offset: int, length: int = SECTOR) -> None:
    """Declares the sectors of a file's bytes bad.

    A page that is mapped already stays readable until it is dropped from the mapping (MADV_DONTNEED), so spoil first.
    """
    assert offset % SECTOR == length % SECTOR == 0, (offset, length)
    for at in range(offset, offset + length, SECTOR):
        (SYSFS / "badblocks").write_text(f"{device_offset(fd, at) // SECTOR} 1\n", encoding="ascii")


def create(path: Path, content: bytes) -> int:
    """Creates a file with this content and all its blocks on the device, open for reading and writing."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    assert os.write(fd, content) == len(content)
    os.fsync(fd)
    return fd


def scatter(path: Path, content: bytes) -> int:
    """As `create`, but no two neighbouring pages of the file are neighbours on the device."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    for offset in reversed(range(0, len(content), PAGE_SIZE)):
        page = content[offset : offset + PAGE_SIZE]
        assert os.pwrite(fd, page, offset) == len(page)
    os.fsync(fd)
    pages = range(0, len(content), PAGE_SIZE)
    where = [device_offset(fd, offset) for offset in pages]
    assert all(second - first != PAGE_SIZE for first, second in pairwise(where)), where
    return fd


def read_device(offset: int, length: int) -> bytes:
    """Reads whole sectors, at most a page, from the device and not from a cache."""
    room = memoryview(mmap.mmap(-1, PAGE_SIZE))[:length]  # O_DIRECT wants it aligned
    device = os.open(DEVICE, os.O_RDONLY | os.O_DIRECT)
    try:
        return bytes(room[: os.preadv(device, [room], offset)])
    finally:
        os.close(device)


def map_sync(fd: int, length: int) -> mmap.mmap:
    """Maps the file's memory itself with MAP_SYNC: a store is in the file once it has left the CPU's caches."""
    return mmap.mmap(fd, length, flags=MAP_SHARED_VALIDATE | MAP_SYNC)


def spoiled_arena(directory: Path, content: bytes, *, bad_page: int = 4) -> tuple[int, Arena]:
    """Makes a file with one bad sector, and a mapping of it, in which the sector's page is bad."""
    fd = create(directory / "spoiled", content)
    spoil(fd, bad_page * PAGE_SIZE + 3 * SECTOR)
    view = memoryview(map_sync(fd, len(content)))
    return fd, Arena(view, address_of(view), bad_page * PAGE_SIZE, PAGE_SIZE)
