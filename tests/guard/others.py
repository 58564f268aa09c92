"""Other code handles signals or maps memory beside a guard: python -m guard.others NAME."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import struct
import sys
import threading
import time

import numpy as np
from iovec_rs import PAGE_SIZE, Guard, UserRange, fault_handler, guard, memcpy_mcsafe

from guard.common import Array, MappedFile, caught, extents, mappings, places, sum_under_guard

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FIXED = 0x10
BOTH = (signal.SIGBUS, signal.SIGSEGV)


def _survives() -> None:
    file = MappedFile()
    file.cut(2)
    met = caught(sum_under_guard(file.array)[1]).guard
    assert places(met.faults, file.address) == [(2, 14)]  # type: ignore[union-attr]
    file.check_is_the_file_again()


def faulthandler_comes_and_goes() -> None:
    for step in (faulthandler.enable, faulthandler.disable, faulthandler.enable, faulthandler.enable):
        step()
        _survives()
        _survives()


def handlers_in_python_are_not_called() -> None:
    calls: list[int] = []
    for number in BOTH:
        signal.signal(number, lambda number, _: calls.append(number))
    _survives()
    for number in BOTH:
        signal.signal(number, signal.SIG_IGN)
    _survives()
    assert calls == []


def our_own_handler_comes_and_goes() -> None:
    _survives()
    fault_handler.uninstall()
    _survives()
    fault_handler.install()
    _survives()


def our_own_handler_stays_while_any_guard_is_entered() -> None:
    file = MappedFile()
    file.cut(1)
    for watch in (guard(file.array, on_fault="record"), guard(on_fault="record")):
        with watch:
            refused = ""
            try:
                fault_handler.uninstall()
            except RuntimeError as error:
                refused = str(error)
            assert "guard is entered" in refused
            file.array.sum()
        assert watch.lost == 15 * PAGE_SIZE
    fault_handler.uninstall()
    assert not fault_handler.status().installed


def our_own_handler_comes_and_goes_in_another_thread() -> None:
    """Entering a guard either is refused or keeps the handler installed until the guard is left."""
    file = MappedFile()
    file.cut(1)
    is_over = False
    counts = {"refused to uninstall": 0, "refused to enter": 0, "guarded": 0}

    def toggle() -> None:
        while not is_over:
            try:
                fault_handler.uninstall()
            except RuntimeError:
                counts["refused to uninstall"] += 1

    thread = threading.Thread(target=toggle)
    thread.start()
    end = time.monotonic() + 3
    while time.monotonic() < end or not counts["guarded"]:
        try:
            with guard(file.array, on_fault="record") as watch:
                assert file.array[5 * PAGE_SIZE] == 0
        except RuntimeError:
            counts["refused to enter"] += 1
        else:
            assert watch.lost == PAGE_SIZE
            counts["guarded"] += 1
    is_over = True
    thread.join()


def signals_that_are_blocked_are_refused() -> None:
    file = MappedFile()
    watch = guard(file.array, on_fault="record")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
    _refused_to_enter(watch, "SIGBUS is blocked")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
    file.cut(1)
    with watch:
        file.array.sum()
    assert watch.lost == 15 * PAGE_SIZE


def system_calls_only_is_refused() -> None:
    file = MappedFile()
    with fault_handler.mode("syscall"):
        _refused_to_enter(guard(file.array), "syscall")
        _refused_to_enter(guard(), "syscall")
    _survives()


def _refused_to_enter(watch: Guard, why: str) -> None:
    refused = ""
    try:
        watch.__enter__()
    except RuntimeError as error:
        refused = str(error)
    assert why in refused


def a_thread_that_blocks_nothing_may_guard_while_another_blocks() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
    failures: list[BaseException] = []

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, BOTH)
        try:
            _survives()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def _map(address: int | None, length: int, fd: int) -> int:
    flags = mmap.MAP_SHARED if fd >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    at = _libc.mmap(address, length, 3, flags | (_MAP_FIXED if address else 0), fd, 0)
    assert at not in (None, ctypes.c_void_p(-1).value)
    return int(at or 0)


def what_is_mapped_in_place_of_a_guarded_file_is_not_overwritten() -> None:
    """In the block a library unmaps its file, and other memory is mapped at the same address."""
    length = 8 * PAGE_SIZE
    for new in ("anonymous", "file", "nothing", "same file"):
        fd, other = os.memfd_create("first"), os.memfd_create("second")
        os.ftruncate(other, length)
        with guard(on_fault="record") as watch:
            start = _map(None, length, fd)
            memory: Array = np.frombuffer(memoryview((ctypes.c_uint8 * length).from_address(start)), dtype=np.uint8)
            assert memory.sum() == 0
            _libc.munmap(start, length)
            if new != "nothing":
                os.ftruncate(fd, length)
                _map(start, length, {"anonymous": -1, "file": other, "same file": fd}[new])
                memory[:] = 7
        assert watch.lost == length
        assert extents() == 0
        if new == "nothing":
            assert os.pread(fd, 1, 0) == b""
        else:
            assert (memory == 7).all(), new
        _libc.munmap(start, length)


def nothing_is_left_of_a_mapping_that_was_closed_in_the_block() -> None:
    fd = os.memfd_create("closed")
    os.ftruncate(fd, 4 * PAGE_SIZE)
    mapping = mmap.mmap(fd, 4 * PAGE_SIZE)
    os.ftruncate(fd, 0)
    with guard(on_fault="record") as watch:
        assert mapping[PAGE_SIZE] == 0
        mapping.close()
    assert watch.lost == PAGE_SIZE
    assert not any("memfd:closed" in line for line in mappings())


def what_is_mapped_in_place_of_a_guarded_file_may_be_bad_itself() -> None:
    """A library maps its next file at the address of the last one, and that file is truncated, too."""
    with guard(on_fault="record") as watch:
        start = 0
        for npages in (64, 64, 9, 64):
            fd = os.memfd_create("next")
            os.ftruncate(fd, PAGE_SIZE)
            os.pwrite(fd, b"\7" * PAGE_SIZE, 0)
            start = _map(start or None, npages * PAGE_SIZE, fd)
            memory: Array = np.frombuffer(
                memoryview((ctypes.c_uint8 * (npages * PAGE_SIZE)).from_address(start)), dtype=np.uint8
            )
            assert memory[::-1].sum() == 7 * PAGE_SIZE
            memory[5 * PAGE_SIZE] = 1
            _libc.munmap(start, npages * PAGE_SIZE)
    assert watch.lost == 63 * PAGE_SIZE
    assert watch.not_restored == 0
    assert extents() == 0
    assert not any("memfd:next" in line for line in mappings())


def our_copies_see_what_is_mapped_in_place_of_a_guarded_file() -> None:
    length = 8 * PAGE_SIZE
    first, second = os.memfd_create("first"), os.memfd_create("second")
    os.ftruncate(second, length)
    os.pwrite(second, b"\5" * length, 0)
    with guard(on_fault="record"):
        start = _map(None, length, first)
        memory: Array = np.frombuffer(memoryview((ctypes.c_uint8 * length).from_address(start)), dtype=np.uint8)
        assert memory.sum() == 0
        assert memcpy_mcsafe(bytearray(length), UserRange(start, length)).copied == 0
        _libc.munmap(start, length)
        _map(start, length, second)
        out = bytearray(length)
        assert memcpy_mcsafe(out, UserRange(start, length)) == (length, 0, None)
        assert out == b"\5" * length
        os.ftruncate(second, 3 * PAGE_SIZE)
        assert memory[4 * PAGE_SIZE] == 0
        copied, _, fault = memcpy_mcsafe(out, UserRange(start, length))
        assert copied == 3 * PAGE_SIZE
        assert fault is not None
        assert fault.address == start + 3 * PAGE_SIZE
    _libc.munmap(start, length)


_BPF = "HBBI"
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def a_kernel_that_cannot_put_files_back_says_so() -> None:
    """Before Linux 5.13, mremap(MREMAP_DONTUNMAP) of such a mapping is EINVAL. A seccomp filter makes this kernel do
    the same.
    """
    mremap, dontunmap, einval = 25, 4, 22
    program = b"".join(
        struct.pack(_BPF, *line)
        for line in (
            (_LOAD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 3, mremap),
            (_LOAD, 0, 0, 16 + 3 * 8),
            (_JUMP_IF_ANY, 0, 1, dontunmap),
            (_RETURN, 0, 0, _ERRNO | einval),
            (_RETURN, 0, 0, _ALLOW),
        )
    )
    code = ctypes.create_string_buffer(program)
    filter_ = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    assert _libc.prctl(38, 1, 0, 0, 0) == 0
    assert _libc.prctl(22, 2, ctypes.create_string_buffer(filter_), 0, 0) == 0, ctypes.get_errno()
    file = MappedFile()
    file.cut(3)
    total, error = sum_under_guard(file.array)
    assert total == file.expected[: 3 * PAGE_SIZE].sum()
    error = caught(error)
    assert error.guard is not None
    assert error.guard.not_restored == error.guard.lost == 13 * PAGE_SIZE
    assert f"{13 * PAGE_SIZE} bytes stay zeroes" in str(error)
    assert "5.13" in str(error)
    file.grow_back()
    assert not file.array[3 * PAGE_SIZE :].any()
    assert np.array_equal(file.array[: 3 * PAGE_SIZE], file.expected[: 3 * PAGE_SIZE])


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
