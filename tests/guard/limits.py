"""Limits of mappings, descriptors, memory and addresses are reached: python -m guard.limits NAME."""

from __future__ import annotations

import ctypes
import errno
import itertools
import mmap
import os
import random
import resource
import sys
from pathlib import Path

import numpy as np
from iovec_rs import PAGE_SIZE, FaultError, UserRange, guard, testing

from guard.common import Array, MappedFile, extents, faults_met, mappings, mappings_before, places

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
RANGES = 4096


def _limit() -> int:
    return int(Path("/proc/sys/vm/max_map_count").read_text())


def _leave_room_for(count: int) -> mmap.mmap:
    """Fills the process's list of mappings. Unmapping a page of the result makes room for two mappings."""
    npages = _limit() + 1000
    filler = mmap.mmap(-1, npages * PAGE_SIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    start = ctypes.addressof(ctypes.c_char.from_buffer(filler))
    page = 1
    while _libc.mprotect(start + page * PAGE_SIZE, PAGE_SIZE, 0) == 0:
        page += 2
    assert ctypes.get_errno() == 12
    for freed in range(1, count, 2):
        _libc.mprotect(start + freed * PAGE_SIZE, PAGE_SIZE, 3)
    return filler


def _scattered(file: MappedFile, pages: list[int]) -> list[int]:
    return [int(file.array[page * PAGE_SIZE]) for page in pages]


def more_ranges_than_the_table_has() -> None:
    file = MappedFile(2)
    base = 1 << 40
    most = guard(*(UserRange(base + at * 2 * PAGE_SIZE, 1) for at in range(RANGES - 1)))
    with most, guard(file.array, on_fault="record"):
        for watch in (guard(file.array), guard()):
            try:
                watch.__enter__()
            except RuntimeError as error:
                refused = str(error)
            assert str(RANGES) in refused
    file.cut(0)
    with guard(file.array, on_fault="record") as found:
        file.array.sum()
    assert found.lost == 2 * PAGE_SIZE


def a_guard_that_was_refused_holds_no_range() -> None:
    base = 1 << 40
    ranges = [UserRange(base + at * 2 * PAGE_SIZE, 1) for at in range(RANGES + 1)]
    for _ in range(3):
        try:
            guard(*ranges).__enter__()
        except RuntimeError:
            pass
        else:
            raise AssertionError("entered")
    with guard(*ranges[:-1]):
        pass


def few_mappings_left_let_one_extent_take_the_rest() -> None:
    """There is no room for one extent a page. The process survives, and afterwards the mapping is the file again."""
    for room in (20, 30, 50, 101):
        file = MappedFile(400)
        file.cut(0)
        filler = _leave_room_for(room)
        with guard(file.array, on_fault="record") as watch:
            assert _scattered(file, random.Random(room).sample(range(400), 400)) == [0] * 400
        assert watch.lost == 400 * PAGE_SIZE
        assert watch.not_restored == 0
        filler.close()
        file.check_is_the_file_again()


def few_mappings_left_and_poison_here_and_there() -> None:
    try:
        context = testing.poisoned(400, bad=[(page * PAGE_SIZE, 1) for page in range(1, 400, 2)])
        memory = context.__enter__()
    except OSError as error:
        print(f"skip: {error}")
        sys.exit(0)
    array: Array = np.frombuffer(memory.buffer, dtype=np.uint8).reshape(400, PAGE_SIZE)
    good = array[::2].copy()
    filler = _leave_room_for(100)
    with guard(array, on_fault="record") as watch:
        assert array[1::2, 0].sum() == 0
        assert extents() < 40
    assert watch.not_restored == 0
    assert watch.lost > 100 * PAGE_SIZE
    filler.close()
    assert np.array_equal(array[::2], good)


def no_descriptor_is_left() -> None:
    """Zeroes are then mapped without a file, and the pages are put back all the same."""
    file = MappedFile()
    file.cut(2)
    before = len(mappings_before())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    with guard(file.array, on_fault="record") as watch:
        assert file.array[3 * PAGE_SIZE] == 0
        assert file.array[9 * PAGE_SIZE] == 0
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert places(watch.faults, file.address) == [(3, 1), (9, 1)]
    assert watch.not_restored == 0
    assert len(mappings()) == before
    file.check_is_the_file_again()


def _close_what_guards_keep_open() -> None:
    """Closes every descriptor, as a daemon does."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    found = [int(link.name) for link in links if str(link.readlink()).endswith(("/dev/zero", "/maps"))]
    assert found
    for number in found:
        os.close(number)


def descriptors_that_are_used_up_in_the_block_are_not_needed() -> None:
    for all_files in (False, True):
        file = MappedFile()
        file.cut(2)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with guard(*[file.array][all_files:], on_fault="record") as watch:
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
            file.array[3 * PAGE_SIZE :].sum()
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        assert places(watch.faults, file.address) == [(3, 13)]
        assert watch.not_restored == 0
        file.check_is_the_file_again()


def descriptors_that_were_closed_and_used_up_overwrite_nothing() -> None:
    """The guard can no longer tell whether a range is still the mapping that was guarded. It leaves what is there, and
    reports that.
    """
    file = MappedFile(mode="r+")
    file.cut(0)
    with guard(UserRange(file.address, file.array.nbytes), on_fault="record") as watch:
        assert file.array[3 * PAGE_SIZE] == 0
        new = mmap.mmap(-1, 16 * PAGE_SIZE)
        new[:] = b"\x77" * len(new)
        fresh = ctypes.addressof(ctypes.c_char.from_buffer(new))
        _libc.mremap.restype = ctypes.c_void_p
        _libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
        assert _libc.mremap(fresh, len(new), len(new), 3, file.address) == file.address
        _close_what_guards_keep_open()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    assert (file.array == 0x77).all()
    assert watch.not_restored == watch.lost == PAGE_SIZE


def a_guard_that_would_need_descriptors_is_refused_without_any() -> None:
    file = MappedFile()
    file.cut(2)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    for watch in (guard(), guard(UserRange(file.address, 5))):
        try:
            watch.__enter__()
        except OSError as error:
            refused = error
        assert refused.errno == errno.EMFILE
        assert "/dev/zero" in str(refused)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with guard(on_fault="record") as watch:
        assert file.array[5 * PAGE_SIZE] == 0
    assert watch.lost == PAGE_SIZE


def descriptors_that_a_daemon_closes_are_opened_again() -> None:
    file = MappedFile()
    file.cut(2)
    with guard(on_fault="record"):
        pass
    _close_what_guards_keep_open()
    others = [os.memfd_create("other") for _ in range(9)]
    for each in others:
        os.write(each, b"\7" * PAGE_SIZE)
    with guard(on_fault="record") as watch:
        assert file.array[5 * PAGE_SIZE :].sum() == 0
    assert (watch.lost, watch.not_restored) == (11 * PAGE_SIZE, 0)
    for each in others:
        os.close(each)
    file.check_is_the_file_again()


def no_memory_for_a_report_is_an_error_and_no_death() -> None:
    """Each of many scattered bad pages is an extent, and then there is no address space for the list of them."""
    npages = 40_000
    try:
        context = testing.poisoned(npages, bad=[(page * PAGE_SIZE, 1) for page in range(1, npages, 2)])
        memory = context.__enter__()
    except OSError as error:
        print(f"skip: {error}")
        sys.exit(0)
    array: Array = np.frombuffer(memory.buffer, dtype=np.uint8).reshape(npages, PAGE_SIZE)
    good = array[::2, 0].copy()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    caught: list[BaseException] = []
    watch = guard(array)
    watch.__enter__()
    assert not array[1::2, 0].any()
    filler: list[bytearray] = []
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_SIZE
    resource.setrlimit(resource.RLIMIT_AS, (used, hard))
    for size in (1 << 20, 1 << 16, 1 << 12):
        try:
            while True:
                filler.append(bytearray(size))
        except MemoryError:
            pass
    for _ in range(2):
        assert watch.lost == npages // 2 * PAGE_SIZE
        try:
            watch.faults  # noqa: B018
        except MemoryError as error:
            caught.append(error)
    try:
        watch.__exit__(None, None, None)
    except (MemoryError, FaultError) as error:
        caught.append(error)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    filler.clear()
    assert [type(error) for error in caught[:2]] == [MemoryError, MemoryError]
    assert isinstance(caught[2], (MemoryError, FaultError))
    assert watch.lost == npages // 2 * PAGE_SIZE
    assert watch.not_restored == 0
    try:
        watch.faults  # noqa: B018
    except MemoryError as error:
        caught.append(error)
    assert len(caught) == 4
    assert np.array_equal(array[::2, 0], good)


def few_addresses_left_let_the_rest_stay_zeroes() -> None:
    """There is no address space to keep all of a GiB aside (`ulimit -v`). The guard reports what it could not keep."""
    size, steps = 1 << 30, (PAGE_SIZE, -PAGE_SIZE, 300 * PAGE_SIZE)
    for step, room in itertools.product(steps, (64 << 20, 0, PAGE_SIZE, 40 * PAGE_SIZE)):
        fd = os.memfd_create("large")
        os.ftruncate(fd, size)
        array: Array = np.frombuffer(mmap.mmap(fd, size), dtype=np.uint8)
        os.ftruncate(fd, 0)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_SIZE
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + room, hard))
        with guard(array, on_fault="record") as watch:
            assert array[::step].sum() == 0
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        assert size - (128 << 20) <= watch.not_restored <= size, (step, room)
        assert watch.not_restored <= watch.lost <= size
        assert len(watch.faults) < 99
        del array
        os.close(fd)


def more_extents_than_the_table_has() -> None:
    """The pages are touched from the last to the first, so that each is an extent of its own. Few mappings keep all of
    them.
    """
    npages, stride = (1 << 15) + 2000, 500
    try:
        runs = [((page + 1) * PAGE_SIZE, (stride - 1) * PAGE_SIZE) for page in range(0, npages, stride)]
        context = testing.poisoned(npages + stride, bad=runs)
        memory = context.__enter__()
    except OSError as error:
        print(f"skip: {error}")
        sys.exit(0)
    array: Array = np.frombuffer(memory.buffer, dtype=np.uint8).reshape(npages + stride, PAGE_SIZE)
    good = array[:npages:stride].copy()
    before, met = len(mappings_before()), faults_met()
    with guard(array, on_fault="record") as watch:
        for page in range(npages - 1, -1, -1):
            if page % stride:
                assert array[page, 7] == 0
        assert faults_met() - met > 1 << 15
    assert watch.not_restored == 0
    assert watch.lost >= (npages - len(good)) * PAGE_SIZE
    assert np.array_equal(array[:npages:stride], good)
    # The memory that was given up to make room for the last extent is allocated again at the next fault.
    assert len(mappings_before()) == before


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
