"""How many pages a guard replaces by zeroes: python -m guard.extents NAME."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import PAGE_SIZE, guard, memcpy_mcsafe, testing
from support.failing_disk import content as disk_content
from support.failing_disk import unreadable_disk

from guard.common import faults_met, lines_of, mappings, mappings_before, places, zeroed_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from guard.common import Array

HUGE = 2 << 20


class Skip(Exception):  # noqa: N818 - no error
    """Raised if this machine does not have the memory that a scenario needs."""


@contextlib.contextmanager
def _poisoned(npages: int, bad: Iterable[int]) -> Iterator[testing.FaultyMemory]:
    with contextlib.ExitStack() as stack:
        try:
            memory = stack.enter_context(testing.poisoned(npages, bad=[(page * PAGE_SIZE, 1) for page in bad]))
        except OSError as error:
            raise Skip(str(error)) from error
        yield memory


def poison_is_one_extent_a_page_and_stays_where_it_was() -> None:
    bad = [3, 4, 5, 9, 30]
    with _poisoned(32, bad) as memory:
        _read_poisoned(memory, bad)


def _read_poisoned(memory: testing.FaultyMemory, bad: list[int]) -> None:
    array: Array = np.frombuffer(memory.buffer, dtype=np.uint8)
    before = mappings_before()
    expected = np.frombuffer(testing.pattern(0, memory.length), dtype=np.uint8).copy()
    for page in bad:
        expected[page * PAGE_SIZE :][:PAGE_SIZE] = 0
    with guard(array, on_fault="record") as watch:
        assert np.array_equal(array, expected)
        array[9 * PAGE_SIZE] = 1
    assert places(watch.faults, memory.address) == [(3, 3), (9, 1), (30, 1)]
    assert watch.lost == 5 * PAGE_SIZE
    assert {fault.cause for fault in watch.faults} == {"poison"}
    assert len(mappings()) == len(before)
    for page in bad:
        copied, _, fault = memcpy_mcsafe(bytearray(PAGE_SIZE), memory.range(page * PAGE_SIZE, PAGE_SIZE))
        assert copied == 0
        assert fault is not None
        assert fault.cause == "poison"


def an_io_error_zeroes_no_good_page() -> None:
    """Runs of neighbouring pages are bad, which look like the end of a file."""
    npages, bad = 256, [3, 4, 5, 6, 7, 8, 9, 100, 255]
    with tempfile.TemporaryDirectory() as where:
        try:
            with unreadable_disk(Path(where), npages, bad) as path:
                _read_unreadable(path, npages, bad)
        except PermissionError as error:
            raise Skip(f"mounting takes root: {error}") from error


def _read_unreadable(path: Path, npages: int, bad: list[int]) -> None:
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
    array: Array = np.frombuffer(mapping, dtype=np.uint8)
    whole = b"".join(bytes(PAGE_SIZE) if page in bad else disk_content(page) for page in range(npages))
    for view in (array, array[::-1]):
        with guard(array, on_fault="record") as watch:
            seen = view.copy()
            assert zeroed_pages() == len(bad)
        assert (seen if view is array else seen[::-1]).tobytes() == whole
        assert watch.lost == len(bad) * PAGE_SIZE
        found = sorted(places(watch.faults, array.ctypes.data))
        assert found == [(3, 7), (100, 1), (255, 1)]
        assert watch.not_restored == 0
    del array, view
    mapping.close()


def _gone(read: Callable[[Array], object], limit: int = 64) -> None:
    """A mapped GiB whose file is truncated to nothing."""
    size = 1 << 30
    fd = os.memfd_create("large")
    os.ftruncate(fd, size)
    array: Array = np.frombuffer(mmap.mmap(fd, size), dtype=np.uint8)
    before = len(mappings_before())
    os.ftruncate(fd, 0)
    met = faults_met()
    with guard(array, on_fault="record") as watch:
        read(array)
        faults = faults_met() - met
    assert 0 < faults < limit, faults
    assert 0 < watch.lost <= size
    assert len(mappings()) == before
    os.ftruncate(fd, size)
    assert array[-1] == 0
    array[-1] = 5
    assert os.pread(fd, 1, size - 1) == b"\5"


def the_end_of_a_file_costs_few_faults_forwards() -> None:
    _gone(lambda array: array[::PAGE_SIZE].sum())


def the_end_of_a_file_costs_few_faults_backwards() -> None:
    _gone(lambda array: array[::-PAGE_SIZE].sum())


def the_end_of_a_file_costs_few_faults_in_strides() -> None:
    _gone(lambda array: array[:: 100 * PAGE_SIZE].sum())


def the_end_of_a_file_costs_few_faults_anywhere() -> None:
    order = np.random.default_rng(7).integers(0, 1 << 30, 20_000)
    _gone(lambda array: array[order].sum())


def the_end_of_a_file_costs_few_faults_when_stored_to() -> None:
    def store(array: Array) -> None:
        array[::PAGE_SIZE] = 1

    _gone(store)


def the_end_of_a_file_is_found_without_privilege() -> None:
    """It is found by the file's path, or by an open descriptor."""
    if os.geteuid() != 0:
        raise Skip("there is no privilege to be given up")
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:  # a directory that any user may enter
        Path(file.name).chmod(0o666)
        os.seteuid(65534)
        size = 64 << 20
        for name in (file.name, None):
            fd = os.open(name, os.O_RDWR) if name else os.memfd_create("nameless")
            os.ftruncate(fd, size)
            array: Array = np.frombuffer(mmap.mmap(fd, size), dtype=np.uint8)
            os.ftruncate(fd, 0)
            met = faults_met()
            with guard(array, on_fault="record") as watch:
                array[::PAGE_SIZE].sum()
                assert faults_met() - met < 32, name
            assert watch.lost == size
            os.ftruncate(fd, size)
            array.sum()
        os.seteuid(0)


def an_offset_into_the_file_is_reckoned_with() -> None:
    fd = os.memfd_create("offset")
    os.ftruncate(fd, 100 * PAGE_SIZE)
    mapping = mmap.mmap(fd, 60 * PAGE_SIZE, offset=40 * PAGE_SIZE)
    mapping[:] = b"\1" * len(mapping)
    array: Array = np.frombuffer(mapping, dtype=np.uint8)
    os.ftruncate(fd, 70 * PAGE_SIZE + 1)
    with guard(array, on_fault="record") as watch:
        assert array.sum() == 30 * PAGE_SIZE + 1
    assert places(watch.faults, array.ctypes.data) == [(31, 29)]


def ten_thousand_scattered_pages() -> None:
    """Each bad page is replaced alone, and no good page is. Every byte is compared, in the block and after it."""
    npages = 20_001
    with _poisoned(npages, range(1, npages, 2)) as memory:
        _read_scattered(memory, npages)


def _read_scattered(memory: testing.FaultyMemory, npages: int) -> None:
    array: Array = np.frombuffer(memory.buffer, dtype=np.uint8).reshape(npages, PAGE_SIZE)
    good: Array = np.frombuffer(testing.pattern(0, memory.length), dtype=np.uint8).reshape(npages, PAGE_SIZE)[::2]
    before = lines_of(array)
    with guard(array, on_fault="record") as watch:
        order = np.random.default_rng(3).permutation(npages)
        assert array[order, 0].astype(bool).sum() == npages // 2 + 1
        assert not array[1::2].any()
        assert np.array_equal(array[::2], good)
    assert watch.lost == npages // 2 * PAGE_SIZE
    assert len(watch.faults) == npages // 2
    assert watch.not_restored == 0
    assert np.array_equal(array[::2], good)
    assert lines_of(array) == before


def huge_pages_go_as_a_whole() -> None:
    pages = Path("/proc/sys/vm/nr_hugepages")
    before = pages.read_text()
    try:
        pages.write_text("8")
        fd = os.memfd_create("huge", os.MFD_HUGETLB | os.MFD_HUGE_2MB)
        os.ftruncate(fd, 4 * HUGE)
        mapping = mmap.mmap(fd, 4 * HUGE)
    except OSError as error:
        raise Skip(f"no huge pages: {error}") from error
    finally:
        pages.write_text(before)
    array: Array = np.frombuffer(mapping, dtype=np.uint8)
    array[:] = 1
    os.ftruncate(fd, 2 * HUGE)
    with guard(array, on_fault="record") as watch:
        assert array[:: HUGE // 4].sum() == 8
        assert array[-1] == 0
    assert (watch.faults[0].address - array.ctypes.data, watch.lost) == (2 * HUGE, 2 * HUGE)
    assert watch.not_restored == 2 * HUGE, "no kernel keeps huge pages aside"
    assert (array[: 2 * HUGE] == 1).all()
    assert array[2 * HUGE] == 0


if __name__ == "__main__":
    try:
        globals()[sys.argv[1]]()
        print("ok")
    except Skip as reason:
        print(f"skip: {reason}")
