"""Memory to copy over, as numpy sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from iovec_rs._bench.memory import LINE, address, huge, tmpfs_file

if TYPE_CHECKING:
    import mmap

__all__ = ["LINE", "address", "as_array", "fill", "huge", "tmpfs_file"]


def as_array(memory: mmap.mmap) -> npt.NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8)


def fill(memory: npt.NDArray[np.uint8], seed: int) -> None:
    memory.view(np.uint64)[:] = np.random.default_rng(seed).integers(0, 2**64, memory.size // 8, np.uint64)
