"""Memory to copy over, on huge pages where they are to be had, and a broom for the caches."""

from __future__ import annotations

import mmap
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE = 64


def huge(nbytes: int) -> mmap.mmap:
    # Private: a shared mapping, the default, gets huge pages only where it happens to lie on a boundary of them.
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def as_array(memory: mmap.mmap) -> npt.NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8)


def address(memory: mmap.mmap) -> int:
    return int(as_array(memory).ctypes.data)


def fill(memory: npt.NDArray[np.uint8], seed: int) -> None:
    memory.view(np.uint64)[:] = np.random.default_rng(seed).integers(0, 2**64, memory.size // 8, np.uint64)


@contextmanager
def tmpfs_file(nbytes: int) -> Iterator[Path]:
    """A file of that size in memory, on pages of the usual size."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="iovec_rs-") as name:
        path = Path(name) / "file"
        with path.open("wb") as file:
            file.truncate(nbytes)
        yield path
