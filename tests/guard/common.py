"""A mapped file that is truncated and grows again, and checks of what must hold afterwards."""

from __future__ import annotations

import gc
import mmap
import os
import resource
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from iovec_rs import PAGE_SIZE, Fault, FaultError, fault_handler, guard

if TYPE_CHECKING:
    from collections.abc import Iterator

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

Array = Any
"""A numpy array. Its type says that it is a buffer only from Python 3.12 on."""
ZEROES = "/dev/zero"


def content(npages: int) -> Array:
    """The content of a page: it has no zero byte, and no two pages are alike."""
    pages = np.arange(npages * PAGE_SIZE, dtype=np.uint64)
    return np.asarray((pages + pages // PAGE_SIZE) % 251 + 1, dtype=np.uint8)


class MappedFile:
    """A file of this many pages, and an array over a mapping of it."""

    def __init__(self, npages: int = 16, *, mode: str = "r", where: str | None = None) -> None:
        self.npages = npages
        self.expected = content(npages)
        self._file = tempfile.NamedTemporaryFile(dir=where)  # noqa: SIM115 - closed with the process
        self.path = Path(self._file.name)
        self.path.write_bytes(self.expected.tobytes())
        access = {"r": mmap.ACCESS_READ, "r+": mmap.ACCESS_WRITE, "c": mmap.ACCESS_COPY}[mode]
        with self.path.open("r+b" if mode == "r+" else "rb") as file:
            self.mapping = mmap.mmap(file.fileno(), 0, access=access)
        self.array: Array = np.frombuffer(self.mapping, dtype=np.uint8)
        self.address: int = self.array.ctypes.data

    def cut(self, keep: int) -> None:
        """Truncates the file to its first pages."""
        os.truncate(self.path, keep * PAGE_SIZE)

    def grow_back(self) -> None:
        self.path.write_bytes(self.expected.tobytes())

    def page(self, index: int) -> int:
        return self.address + index * PAGE_SIZE

    def check_is_the_file_again(self) -> None:
        """Checks that every byte of the mapping is the file's, and that a byte written to the mapping reaches the
        file.
        """
        self.grow_back()
        assert np.array_equal(self.array, self.expected)
        with self.path.open("r+b") as file:
            for page in range(self.npages):
                file.seek(page * PAGE_SIZE)
                file.write(b"\xff")
        assert (self.array[::PAGE_SIZE] == 0xFF).all()
        self.grow_back()


def mappings() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()


def mappings_before() -> list[str]:
    """The mappings that must be left after a block. The first fault of a process makes a few that are kept for later
    faults.
    """
    meet_a_fault()
    gc.collect()  # The error, its traceback and the file refer to each other in a cycle.
    return mappings()


def meet_a_fault() -> None:
    file = MappedFile(2)
    file.cut(0)
    total, error = sum_under_guard(file.array)
    assert (total, error is None) == (0, False)


def lines_of(array: Array) -> int:
    """The number of these mappings that an array lies in."""
    start, end = array.ctypes.data, array.ctypes.data + array.nbytes
    bounds = [[int(at, 16) for at in line.split(" ", 1)[0].split("-")] for line in mappings()]
    return sum(below < end and start < above for below, above in bounds)


def extents() -> int:
    """The number of runs of pages that are replaced by zeroes now."""
    return sum(line.endswith(ZEROES) for line in mappings())


def zeroed_pages() -> int:
    """The number of pages in these runs."""
    bounds = [line.split(" ", 1)[0].split("-") for line in mappings() if line.endswith(ZEROES)]
    return sum(int(end, 16) - int(start, 16) for start, end in bounds) // PAGE_SIZE


def faults_met() -> int:
    """The number of faults that the handler has recovered in this process."""
    return fault_handler.status().recovered


def caught(error: FaultError | None) -> FaultError:
    assert error is not None, "no error was raised"
    assert error.guard is not None
    assert error.fault == error.guard.faults[0]
    assert error.copied == 0
    assert error.guard.lost == sum(fault.length for fault in error.guard.faults)
    return error


def sum_under_guard(array: Array) -> tuple[int, FaultError | None]:
    """Sums the array under a guard. A fault does not keep the sum from being computed."""
    total, error = 0, None
    try:
        with guard(array):
            total = int(array.sum(dtype=np.uint64))
    except FaultError as raised:
        error = raised
    return total, error


def places(faults: list[Fault], base: int) -> list[tuple[int, int]]:
    """The first page and the number of pages of each fault."""
    return [((fault.address - base) // PAGE_SIZE, fault.length // PAGE_SIZE) for fault in faults]


def raising(block: Iterator[None]) -> FaultError:
    """Runs a generator that contains a guard to its end."""
    try:
        list(block)
    except FaultError as error:
        return caught(error)
    raise AssertionError("no error was raised")
