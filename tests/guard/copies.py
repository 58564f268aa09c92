"""Copies of this package in a guarded block report their faults exactly: python -m guard.copies NAME."""

from __future__ import annotations

import os
import sys

import numpy as np
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    IovIter,
    UserRange,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_to_iter,
    copy_to_iter_mcsafe,
    csum_and_copy_to_iter,
    fault_handler,
    guard,
    io,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
    testing,
)

from guard.common import Array, MappedFile, places

GOOD = 3 * PAGE_SIZE


def _met(mode: str = "r+") -> MappedFile:
    """A mapped file that was truncated to its first pages."""
    file = MappedFile(mode=mode)
    file.cut(3)
    return file


def copies_are_not_the_guards_business() -> None:
    file = _met()
    with guard(file.array) as watch:
        out = bytearray(file.array.nbytes)
        copied, _, fault = memcpy_mcsafe(out, file.array)
        assert copied == GOOD
        assert fault is not None
        assert (fault.side, fault.offset, fault.cause) == ("source", GOOD, "gone")
        assert out == file.expected[:GOOD].tobytes() + bytes(len(out) - GOOD)
        assert watch.faults == []


def zeroes_that_other_code_has_met_are_not_copied() -> None:
    file = _met()
    out = bytearray(b"\xee" * file.array.nbytes)
    with guard(file.array, on_fault="record") as watch:
        assert file.array[GOOD] == 0
        assert places(watch.faults, file.address) == [(3, 1)]
        for skip in (0, 1, PAGE_SIZE, GOOD - 1, GOOD, GOOD + 100):
            good = max(GOOD - skip, 0)
            for copy in (memcpy_mcsafe, memcpy_nocache, memcpy_flushcache):
                copied, remaining, fault = copy(memoryview(out)[skip:], file.array[skip:])
                assert (copied, remaining) == (good, len(out) - skip - good), (copy, skip)
                assert fault is not None
                assert (fault.side, fault.offset, fault.cause, fault.origin) == ("source", good, "gone", "signal")
                assert (fault.address, fault.length) == (file.page(3), PAGE_SIZE)
                assert (fault.signo, fault.si_code) == (7, 2)
        assert out == file.expected[:GOOD].tobytes() + b"\xee" * (len(out) - GOOD)
    assert places(watch.faults, file.address) == [(3, 1)]
    file.grow_back()
    assert memcpy_mcsafe(out, file.array).fault is None
    assert out == file.expected.tobytes()


def iterators_of_every_kind_stop_there() -> None:
    file = _met()
    with guard(file.array, on_fault="record"):
        file.array[GOOD]
        for source in (
            IovIter.ubuf(WRITE, file.array),
            IovIter.iovec(WRITE, [file.array[at : at + 1000] for at in range(0, file.array.nbytes, 1000)]),
            IovIter.ubuf(WRITE, UserRange(file.address, file.array.nbytes)),
        ):
            total = source.count
            for copy in (copy_from_iter, copy_from_iter_flushcache):
                out = bytearray(total)
                assert copy(out, source) == GOOD
                assert source.count == total - GOOD
                assert source.fault is not None
                assert source.fault.address == file.page(3)
                assert out == file.expected[:GOOD].tobytes() + bytes(total - GOOD)
                source.revert(GOOD)
        trusted = IovIter.kvec(WRITE, [file.array])
        try:
            copy_from_iter(bytearray(file.array.nbytes), trusted)
        except FaultError as error:
            copied, owner = error.copied, error.guard
        assert (copied, owner) == (GOOD, None)
        source = IovIter.ubuf(WRITE, file.array)
        assert source.fault_in_readable(source.count) == source.count - GOOD


def stores_to_zeroes_are_not_counted() -> None:
    file = _met()
    data = b"\x55" * file.array.nbytes
    with guard(file.array, on_fault="record"):
        file.array[GOOD] = 1
        for copy in (copy_to_iter, copy_to_iter_mcsafe):
            target = IovIter.ubuf(READ, file.array)
            assert copy(data, target) == GOOD
            assert target.fault is not None
            assert (target.fault.side, target.fault.address) == ("destination", file.page(3))
        target = IovIter.ubuf(READ, file.array)
        assert csum_and_copy_to_iter(data, target)[0] == 0, "a segment with a bad byte counts for nothing"
        target = IovIter.ubuf(READ, file.array)
        assert target.zero() == GOOD
        assert memcpy_flushcache(file.array, data).copied == GOOD
    assert file.path.read_bytes() == data[:GOOD]


def other_memory_is_copied_as_ever() -> None:
    file = _met()
    source = bytearray(range(256)) * 400
    with guard(file.array, on_fault="record"):
        file.array[GOOD]
        out = bytearray(len(source))
        assert memcpy_mcsafe(out, source).fault is None
        assert out == source
        assert memcpy_flushcache(memoryview(out)[::1], source).fault is None
        assert memcpy_mcsafe(file.array[:GOOD], memoryview(out)[:GOOD]).fault is None
        with fault_handler.mode("syscall"):
            assert memcpy_mcsafe(bytearray(file.array.nbytes), file.array).copied == GOOD
    assert file.path.read_bytes() == source[:GOOD]


def poison_that_other_code_has_met_is_called_poison() -> None:
    try:
        context = testing.poisoned(4, bad=[(2 * PAGE_SIZE, 1)])
        memory = context.__enter__()
    except OSError as error:
        print(f"skip: {error}")
        sys.exit(0)
    array: Array = np.frombuffer(memory.buffer, dtype=np.uint8)
    with guard(array, on_fault="record") as watch:
        assert array[2 * PAGE_SIZE] == 0
        assert [fault.cause for fault in watch.faults] == ["poison"]
        copied, _, fault = memcpy_mcsafe(bytearray(array.nbytes), array)
        assert copied == 2 * PAGE_SIZE
        assert fault is not None
        assert fault.cause == "poison"
    assert [fault.cause for fault in watch.faults] == ["poison"]


def whole_transfers_send_no_zeroes_in_place_of_bad_memory() -> None:
    file = _met()
    out = os.memfd_create("out")
    source = IovIter.ubuf(WRITE, file.array)
    raised = None
    with guard(file.array, on_fault="record"):
        file.array[GOOD]
        try:
            io.writev_all(out, source)
        except FaultError as error:
            raised = error
    assert raised is not None
    assert source.count == file.array.nbytes - GOOD
    assert os.pread(out, 1 << 20, 0) == file.expected[:GOOD].tobytes()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
