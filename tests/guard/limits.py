"""Where there is no room for more: python -m guard.limits NAME."""

from __future__ import annotations

import atexit
import ctypes
import mmap
import os
import random
import resource
import sys
from pathlib import Path

import numpy as np
from iovec_rs import PAGE_SIZE, UserRange, guard, testing

from guard.common import Array, MappedFile, extents, mappings, places

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
RANGES = 4096


def _limit() -> int:
    return int(Path("/proc/sys/vm/max_map_count").read_text())


def _leave_room_for(count: int) -> mmap.mmap:
    """Fills the process's list of mappings. To unmap a page of the result makes room for two more."""
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
    """There is no room for an extent a page: the process lives, and the mapping is the file again."""
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
    """Zeroes are mapped without a file, and put back all the same."""
    file = MappedFile()
    file.cut(2)
    before = len(mappings())
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


def few_addresses_left_let_the_rest_stay_zeroes() -> None:
    """There is no room to keep all of a GiB aside (`ulimit -v`): what cannot be is told."""
    size, room = 1 << 30, 64 << 20
    for step in (PAGE_SIZE, -PAGE_SIZE, 300 * PAGE_SIZE):
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
        assert size - 2 * room <= watch.not_restored <= size
        assert watch.not_restored <= watch.lost <= size
        assert len(watch.faults) < 99


def more_extents_than_the_table_has() -> None:
    limit, extents_of_the_table = Path("/proc/sys/vm/max_map_count"), 1 << 15
    if _limit() < 3 * extents_of_the_table + 5000:
        if os.environ.get("GUARD_RAISE_LIMIT") != "1":
            print("skip: vm.max_map_count is too low for so many; GUARD_RAISE_LIMIT=1 raises it")
            sys.exit(0)
        before = limit.read_text()
        limit.write_text("200000")
        atexit.register(limit.write_text, before)
    npages = 2 * extents_of_the_table + 2000
    with testing.poisoned(npages, bad=[(page * PAGE_SIZE, 1) for page in range(1, npages, 2)]) as memory:
        array: Array = np.frombuffer(memory.buffer, dtype=np.uint8).reshape(npages, PAGE_SIZE)
        good = array[::2].copy()
        with guard(array, on_fault="record") as watch:
            assert not array[1::2, 0].any()
        assert watch.not_restored == 0
        assert watch.lost >= npages // 2 * PAGE_SIZE
        assert np.array_equal(array[::2], good)
        del array


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
