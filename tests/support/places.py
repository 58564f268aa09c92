"""Places for the files of tests, and which bytes of a mapping are not on the disk yet."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from iovec_rs import PAGE_SIZE, WRITE, IovIter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""A directory in memory, where nothing waits for a device, if there is one."""

_MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs")


def file_system(path: Path) -> str:
    """The kernel's name for the file system that the path is on."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    below = [(len(place), name) for place, name in mounts if path.resolve().is_relative_to(place)]
    return max(below)[1]


@contextlib.contextmanager
def on_disk() -> Iterator[Path]:
    """A directory on a file system that writes its pages to a disk."""
    for base in (tempfile.gettempdir(), "/var/tmp", Path(__file__).parent):
        if file_system(Path(base)) not in _MEMORY_FILE_SYSTEMS:
            with tempfile.TemporaryDirectory(dir=base, prefix="iovec_rs-") as name:
                yield Path(name)
            return
    raise AssertionError("neither the temporary directory, /var/tmp nor the repository is on a disk")


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="iovec_rs-") as name:
        yield Path(name)


def address(buffer: Buffer) -> int:
    return IovIter.ubuf(WRITE, buffer).ranges()[0].address


def dirty(region: Buffer) -> int:
    """The number of bytes in pages of a mapping that have been written to and are not on the disk yet, by the kernel's
    page tables.
    """
    start = f"{address(region):x}-"
    lines = iter(Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines())
    next(line for line in lines if line.startswith(start))
    found = 0
    for line in lines:
        field = re.match(r"(\w+): +(\d+) kB|(VmFlags)", line)
        if field is None or field[3]:
            return found
        if field[1] in ("Shared_Dirty", "Private_Dirty"):
            found += int(field[2]) << 10
    return found


def array(region: Any, dtype: str = "u1", count: int = -1) -> np.ndarray[Any, Any]:
    """A numpy array over a region. Before Python 3.12, numpy's annotations accept only the usual types of buffers."""
    return np.frombuffer(region, dtype, count)


def pages(nbytes: int) -> int:
    """The size of the pages that contain this many bytes from the start of a page on."""
    return -(-nbytes // PAGE_SIZE) * PAGE_SIZE


def can_mount() -> bool:
    return os.geteuid() == 0 and shutil.which("mount") is not None


@contextlib.contextmanager
def mounted(kind: str, source: str, place: Path, options: str = "rw") -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", kind, "-o", options, source, place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True, capture_output=True)


@contextlib.contextmanager
def failing_disk(directory: Path, size: str, room: str) -> Iterator[Path]:
    """A file system on a disk of this size, of which only `room` bytes can be written; any more give an I/O error."""
    with mounted("tmpfs", "none", directory / "below", f"size={room}") as below:
        image = below / "image"
        with image.open("wb") as file:
            os.truncate(file.fileno(), int(size))
        find = ["losetup", "--find", "--show", str(image)]
        device = subprocess.run(find, check=True, capture_output=True, text=True).stdout.strip()
        try:
            # A journal would be written to when its time comes, also where there is no room: the kernel then gives the
            # file system up, and nothing in it can be written any more.
            make = ["mkfs.ext4", "-q", "-O", "^has_journal", "-b", str(PAGE_SIZE), device]
            subprocess.run(make, check=True, capture_output=True)
            with mounted("ext4", device, directory / "above") as above:
                yield above
        finally:
            subprocess.run(["losetup", "-d", device], check=True, capture_output=True)
