"""The block itself changes the guarded mapping: python -m guard.remade NAME.

The pages that are still replaced by zeroes are put back. Mappings that the guard did not make are left alone.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from typing import TYPE_CHECKING

import numpy as np
from iovec_rs import PAGE_SIZE, UserRange, guard

from guard.common import Array, MappedFile, extents, mappings, mappings_before

if TYPE_CHECKING:
    from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = _libc.mlock.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mprotect.argtypes = _libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_MAP_FIXED, _MREMAP_MAYMOVE, _MADV_DONTFORK = 0x10, 1, 10
_READ_WRITE, _READ, _NONE = 3, 1, 0


def _check(result: int | None) -> int:
    assert result not in (-1, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
    return int(result or 0)


def _map(address: int | None, npages: int, fd: int, protection: int = _READ_WRITE) -> int:
    flags = (mmap.MAP_SHARED if fd >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) | (_MAP_FIXED if address else 0)
    return _check(_libc.mmap(address, npages * PAGE_SIZE, protection, flags, fd, 0))


def _view(address: int, npages: int) -> Array:
    length = npages * PAGE_SIZE
    return np.frombuffer(memoryview((ctypes.c_uint8 * length).from_address(address)), dtype=np.uint8)


def _split_by(change: Callable[[int], object], *, all_files: bool) -> None:
    file = MappedFile(mode="r+")
    file.cut(1)
    before = len(mappings_before())
    with guard(*[file.array][all_files:], on_fault="record") as watch:
        assert file.array.sum() == file.expected[:PAGE_SIZE].sum()
        for page in (9, 12, 15):
            _check(change(file.page(page)))  # type: ignore[arg-type]
    assert watch.lost == 15 * PAGE_SIZE
    assert watch.not_restored == 0
    assert extents() == 0
    assert len(mappings()) == before
    file.check_is_the_file_again()


def pages_that_are_locked_go_back() -> None:
    for all_files in (False, True):
        _split_by(lambda page: _libc.mlock(page, PAGE_SIZE), all_files=all_files)


def pages_that_are_not_for_children_go_back() -> None:
    for all_files in (False, True):
        _split_by(lambda page: _libc.madvise(page, PAGE_SIZE, _MADV_DONTFORK), all_files=all_files)


def pages_that_are_protected_go_back() -> None:
    for all_files in (False, True):
        _split_by(lambda page: _libc.mprotect(page, PAGE_SIZE, _READ), all_files=all_files)


def what_is_left_of_a_mapping_that_was_unmapped_in_part_goes_back() -> None:
    for gone in ([15], [1], [7, 8], [2, 5, 9], list(range(1, 16))):
        fd = os.memfd_create("file")
        os.ftruncate(fd, 16 * PAGE_SIZE)
        os.pwrite(fd, b"\7" * 16 * PAGE_SIZE, 0)
        start = _map(None, 16, fd)
        memory = _view(start, 16)
        os.ftruncate(fd, PAGE_SIZE)
        with guard(on_fault="record") as watch:
            memory.sum()
            for page in gone:
                _check(_libc.munmap(start + page * PAGE_SIZE, PAGE_SIZE))
        assert (watch.lost, watch.not_restored) == (15 * PAGE_SIZE, 0)
        assert extents() == 0
        os.ftruncate(fd, 16 * PAGE_SIZE)
        os.pwrite(fd, b"\5" * 16 * PAGE_SIZE, 0)
        for page in set(range(16)) - set(gone):
            assert (memory[page * PAGE_SIZE :][:PAGE_SIZE] == 5).all(), (gone, page)
        _check(_libc.munmap(start, 16 * PAGE_SIZE))
        assert not any("memfd:file" in line for line in mappings()), gone


def what_is_mapped_over_a_part_stays_and_the_rest_goes_back() -> None:
    """This holds also if the new mapping is bad itself, and is touched."""
    for is_bad in (False, True):
        file = MappedFile(mode="r+")
        file.cut(1)
        other = os.memfd_create("other")
        os.ftruncate(other, 0 if is_bad else 3 * PAGE_SIZE)
        with guard(on_fault="record") as watch:
            file.array.sum()
            _map(file.page(5), 3, other)
            file.array[5 * PAGE_SIZE : 8 * PAGE_SIZE] = 9
            file.array.sum()
        assert watch.not_restored == 0
        assert extents() == 0
        os.ftruncate(other, 3 * PAGE_SIZE)
        os.pwrite(other, b"\4" * 3 * PAGE_SIZE, 0)
        file.grow_back()
        expected = file.expected.copy()
        expected[5 * PAGE_SIZE : 8 * PAGE_SIZE] = 4
        assert np.array_equal(file.array, expected)


def a_mapping_that_was_made_shorter_goes_back() -> None:
    file = MappedFile(mode="r+")
    del file.array
    file.cut(0)
    with guard(on_fault="record") as watch:
        assert not any(file.mapping[:])
        file.mapping.resize(4 * PAGE_SIZE)
        assert len(file.mapping) == 4 * PAGE_SIZE
    assert watch.not_restored == 0
    assert extents() == 0
    file.grow_back()
    assert file.mapping[:] == file.expected[: 4 * PAGE_SIZE].tobytes()


def _made_longer(*, may_move: bool) -> None:
    fd = os.memfd_create("file")
    os.ftruncate(fd, 64 * PAGE_SIZE)
    os.pwrite(fd, b"\7" * 64 * PAGE_SIZE, 0)
    area = _map(None, 64, -1, _NONE)
    start = _map(area, 8, fd)
    if not may_move:
        _check(_libc.munmap(start + 8 * PAGE_SIZE, 56 * PAGE_SIZE))
    os.ftruncate(fd, 0)
    with guard(on_fault="record") as watch:
        for page in (7, 6, 5, 4, 3, 2, 1, 0):
            assert ctypes.string_at(start + page * PAGE_SIZE, 1) == b"\0"
        moved = _check(_libc.mremap(start, 8 * PAGE_SIZE, 40 * PAGE_SIZE, _MREMAP_MAYMOVE if may_move else 0))
        assert (moved != start) == may_move
        assert not _view(moved, 40).any()
    assert watch.lost == 8 * PAGE_SIZE
    os.ftruncate(fd, 64 * PAGE_SIZE)
    os.pwrite(fd, b"\5" * 64 * PAGE_SIZE, 0)
    assert extents() == may_move
    if may_move:
        assert watch.not_restored >= 8 * PAGE_SIZE
    else:
        assert watch.not_restored == 0
        assert (_view(moved, 40) == 5).all()


def a_mapping_that_was_made_longer_goes_back_and_on() -> None:
    _made_longer(may_move=False)


def a_mapping_that_was_moved_stays_zeroes_and_is_told_of() -> None:
    _made_longer(may_move=True)


def a_raw_range_that_something_else_was_mapped_over_is_left_alone() -> None:
    """The guard of a raw range keeps no buffer exported."""
    for fd in (-1, os.memfd_create("new")):
        file = MappedFile(mode="r+")
        file.cut(1)
        with guard(UserRange(file.address, file.array.nbytes), on_fault="record") as watch:
            assert file.array[3 * PAGE_SIZE] == 0
            if fd >= 0:
                os.ftruncate(fd, 16 * PAGE_SIZE)
            _map(file.address, 16, fd)
            file.array[:] = 0x77
        assert (file.array == 0x77).all()
        assert (watch.lost, watch.not_restored) == (PAGE_SIZE, 0)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
