"""What a guarded block gets as its report or exception, and what it leaves behind: python -m guard.blocks NAME."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from iovec_rs import PAGE_SIZE, FaultError, Guard, UserRange, guard

from guard.common import Array, MappedFile, caught, extents, mappings, mappings_before, places, raising, sum_under_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def a_bad_page_reads_as_zeroes_and_is_raised_at_the_end() -> None:
    for mode in ("r", "r+", "c"):
        for where in (None, "/dev/shm"):
            file = MappedFile(mode=mode, where=where)
            before = len(mappings_before())
            file.cut(3)
            total, error = sum_under_guard(file.array)
            assert total == file.expected[: 3 * PAGE_SIZE].sum()
            error = caught(error)
            assert error.errno == errno.EIO
            fault = error.fault
            assert (fault.side, fault.cause, fault.origin, fault.offset) == ("source", "gone", "signal", 0)
            assert (fault.signo, fault.si_code, fault.lsb) == (7, 2, 0)
            assert error.guard is not None
            assert places(error.guard.faults, file.address) == [(3, 13)]
            assert error.guard.not_restored == 0
            assert len(mappings()) == before
            file.check_is_the_file_again()


def nothing_is_raised_over_a_file_that_is_there() -> None:
    file = MappedFile()
    with guard(file.array) as watch:
        total = file.array.sum()
        assert (watch.faults, watch.lost) == ([], 0)
    assert total == file.expected.sum()
    assert (watch.faults, watch.lost, watch.not_restored) == ([], 0, 0)


def stores_to_a_bad_page_are_lost_and_the_side_is_told() -> None:
    for mode in ("r+", "c"):
        file = MappedFile(mode=mode)
        file.cut(4)
        with guard(file.array, on_fault="record") as watch:
            file.array[6 * PAGE_SIZE - 10 : 6 * PAGE_SIZE + 10] = 99
            file.array[PAGE_SIZE] = 77
            assert file.array[6 * PAGE_SIZE] == 99
        assert {fault.side for fault in watch.faults} == {"destination"}
        assert file.array[PAGE_SIZE] == 77
        file.grow_back()
        assert file.array[6 * PAGE_SIZE] == file.expected[6 * PAGE_SIZE]
    assert extents() == 0


def a_recording_guard_raises_nothing_and_tells_during_the_block() -> None:
    file = MappedFile()
    file.cut(0)
    with guard(file.array, on_fault="record") as watch:
        assert watch.lost == 0
        file.array[5 * PAGE_SIZE]
        assert places(watch.faults, file.address) == [(5, 1)]
        file.array[9 * PAGE_SIZE]
        assert watch.lost >= 2 * PAGE_SIZE
        assert places(watch.faults, file.address)[0][0] in (5, 4)
    assert watch.lost == sum(fault.length for fault in watch.faults)
    file.check_is_the_file_again()


def an_exception_of_the_block_is_the_context() -> None:
    file = MappedFile()
    own = ZeroDivisionError("the block's own")

    def block(npages: int, on_fault: Literal["raise", "record"]) -> BaseException | None:
        file.cut(npages)
        try:
            with guard(file.array, on_fault=on_fault):
                file.array.sum()
                raise own
        except (FaultError, ZeroDivisionError) as error:
            return error

    raised = block(1, "raise")
    assert isinstance(raised, FaultError)
    assert caught(raised).__context__ is own
    file.grow_back()
    assert block(file.npages, "raise") is own
    assert block(1, "record") is own
    file.check_is_the_file_again()


def whatever_is_passed_on_leaving_the_report_is_raised() -> None:
    """`__exit__` may be called by other code than the interpreter, with any arguments."""
    own = ValueError("the block's own")
    for passed, context in (((1, 2, 3), None), ((ValueError, None, None), None), ((ValueError, own, None), own)):
        file = MappedFile()
        file.cut(2)
        watch: Any = guard(file.array)
        watch.__enter__()
        file.array.sum()
        raised = None
        try:
            watch.__exit__(*passed)
        except FaultError as error:
            raised = error
        assert caught(raised).__context__ is context


def a_guard_is_for_one_block() -> None:
    file = MappedFile()
    watch = guard(file.array)
    _refused(RuntimeError, lambda: watch.__exit__(None, None, None))
    with watch:
        _refused(RuntimeError, watch.__enter__)
    _refused(RuntimeError, watch.__enter__)
    _refused(RuntimeError, lambda: watch.__exit__(None, None, None))


def arguments_are_refused_by_name() -> None:
    file = MappedFile()
    assert "buffers[1]" in _refused(TypeError, lambda: guard(file.array, 7))  # type: ignore[arg-type]
    assert "on_fault" in _refused(ValueError, lambda: guard(file.array, on_fault="ignore"))  # type: ignore[arg-type]
    assert "length" in _refused(ValueError, lambda: guard(UserRange(0, -1)))


def _refused(kind: type[Exception], call: Callable[[], object]) -> str:
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("not refused")


def closing_inside_is_refused_and_harms_nothing() -> None:
    file = MappedFile()
    file.cut(2)
    mapping = file.mapping
    watch = guard(mapping, on_fault="record")
    del file.array
    with watch:
        assert mapping[5 * PAGE_SIZE] == 0
        _refused(BufferError, mapping.close)
        assert mapping[5 * PAGE_SIZE] == 0
    file.grow_back()
    assert mapping[:] == file.expected.tobytes()
    mapping.close()


def arrays_of_any_strides_are_guarded_whole() -> None:
    file = MappedFile()
    file.cut(0)
    matrix = file.array.reshape(16, PAGE_SIZE)
    for view in (matrix[::-1, ::7], matrix.T, matrix[3:4, 5:6], matrix[:0], matrix[15], matrix[::5].T):
        with guard(view, on_fault="record") as watch:
            assert view.sum() == 0
        assert bool(watch.lost) == bool(view.size)
        for fault in watch.faults:
            assert file.address <= fault.address < file.address + file.array.nbytes
    file.check_is_the_file_again()


def a_raw_range_is_guarded_too() -> None:
    file = MappedFile(mode="r+")
    file.cut(0)
    with guard(UserRange(file.page(3) + 10, 1), UserRange(file.page(9), 0), on_fault="record") as watch:
        assert file.array[3 * PAGE_SIZE] == 0
        file.array[3 * PAGE_SIZE] = 9
    assert places(watch.faults, file.address) == [(3, 1)]
    file.check_is_the_file_again()


def ranges_that_overlap_are_counted_once() -> None:
    file = MappedFile()
    file.cut(2)
    ranges = [file.array, file.array[PAGE_SIZE + 5 : 9 * PAGE_SIZE], file.mapping, UserRange(file.page(3), PAGE_SIZE)]
    with guard(*ranges, on_fault="record") as watch:
        file.array.sum()
    assert places(watch.faults, file.address) == [(2, 14)]
    assert watch.lost == 14 * PAGE_SIZE


def nested_guards_each_report_and_the_last_one_puts_back() -> None:
    file = MappedFile()
    file.cut(2)
    with guard(file.array, on_fault="record") as outer:
        with guard(file.array[: 6 * PAGE_SIZE], on_fault="record") as inner:
            file.array[4 * PAGE_SIZE]
        assert places(inner.faults, file.address) == [(4, 1)]
        file.grow_back()
        assert file.array[4 * PAGE_SIZE] == 0, "the outer guard is over it"
        with guard(file.array[3 * PAGE_SIZE :], on_fault="record") as late:
            assert places(late.faults, file.address) == [(4, 1)], "zeroes that were there before"
    for watch in (outer, inner, late):
        assert places(watch.faults, file.address) == [(4, 1)]
    file.check_is_the_file_again()


def guards_that_cross_each_keep_the_pages_under_zeroes() -> None:
    """The guards are not nested: the one that is entered first is left first."""
    file = MappedFile()
    file.cut(0)
    first, second = guard(file.array[: 9 * PAGE_SIZE], on_fault="record"), guard(file.array, on_fault="record")
    first.__enter__()
    second.__enter__()
    file.array[8 * PAGE_SIZE]
    file.array[12 * PAGE_SIZE]
    first.__exit__(None, None, None)
    assert places(first.faults, file.address)[0] == (8, 1)
    file.grow_back()
    assert file.array[8 * PAGE_SIZE] == 0
    second.__exit__(None, None, None)
    assert sum(length for _, length in places(second.faults, file.address)) >= 2
    assert np.array_equal(file.array, file.expected)


def without_a_buffer_every_mapped_file_is_guarded() -> None:
    files = [MappedFile(mode=mode) for mode in ("r", "r+", "c")]
    for file in files:
        file.cut(1)
    with guard(on_fault="record") as watch:
        for _ in range(2):
            for file in files:
                assert file.array.sum() == file.expected[:PAGE_SIZE].sum()
        files[1].array[5 * PAGE_SIZE] = 1
    assert watch.lost == 3 * 15 * PAGE_SIZE
    assert [fault.address for fault in watch.faults] == [file.page(1) for file in files]
    assert extents() == 0
    for file in files:
        file.check_is_the_file_again()


def both_kinds_of_guard_nest() -> None:
    file = MappedFile()
    file.cut(0)
    with guard(on_fault="record") as outer:
        with guard(file.array, on_fault="record") as inner:
            file.array[PAGE_SIZE]
            with guard(on_fault="record") as innermost:
                file.array[PAGE_SIZE + 1]
        assert file.array[PAGE_SIZE] == 0
    for watch in (outer, inner, innermost):
        assert places(watch.faults, file.address) == [(1, 1)]
    file.check_is_the_file_again()


def a_guard_that_was_entered_here_may_be_left_there() -> None:
    for buffers in ([0], []):
        file = MappedFile()
        file.cut(3)
        watch = guard(*[file.array for _ in buffers])
        watch.__enter__()
        file.array.sum()
        found: list[BaseException] = []

        def leave(watch: Guard = watch, found: list[BaseException] = found) -> None:
            try:
                watch.__exit__(None, None, None)
            except FaultError as error:
                found.append(error)

        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        assert found
        assert places(watch.faults, file.address) == [(3, 13)]
        file.check_is_the_file_again()


def a_generator_suspended_inside_goes_on_where_it_was() -> None:
    file = MappedFile()
    file.cut(2)

    def pages() -> Iterator[None]:
        with guard(file.array):
            for page in range(file.npages):
                file.array[page * PAGE_SIZE]
                yield

    block = pages()
    for _ in range(7):
        next(block)
    gc.collect()
    assert raising(block).guard is not None
    file.check_is_the_file_again()


def a_generator_that_nobody_goes_on_with_puts_its_pages_back() -> None:
    file = MappedFile()
    file.cut(2)

    def page() -> Iterator[None]:
        with guard(file.array):
            file.array[5 * PAGE_SIZE]
            yield

    block = page()
    next(block)
    assert extents() == 1
    unraisable: list[object] = []
    sys.unraisablehook = lambda told: unraisable.append(told.exc_value)
    del block
    assert extents() == 0
    assert isinstance(unraisable[0], FaultError)
    watch = guard(file.array)
    watch.__enter__()
    file.array[5 * PAGE_SIZE]
    del watch
    assert isinstance(unraisable[1], FaultError)
    file.check_is_the_file_again()


def tasks_that_wait_inside_a_block_do_not_mix_up_their_files() -> None:
    files = [MappedFile() for _ in range(4)]

    async def read(index: int) -> list[tuple[int, int]]:
        file = files[index]
        file.cut(index + 1)
        with guard(file.array, on_fault="record") as watch:
            for page in range(file.npages):
                file.array[page * PAGE_SIZE]
                await asyncio.sleep(0)
        return places(watch.faults, file.address)

    async def everybody() -> list[list[tuple[int, int]]]:
        return await asyncio.gather(*map(read, range(len(files))))

    for index, found in enumerate(asyncio.run(everybody())):
        assert found == [(index + 1, 15 - index)]
        files[index].check_is_the_file_again()


def the_kernel_reads_a_bad_page_as_it_always_did() -> None:
    file = MappedFile()
    file.cut(2)
    out = os.memfd_create("out")
    with guard(file.array) as watch:
        assert "Bad address" in _refused(OSError, lambda: os.write(out, file.array[8 * PAGE_SIZE :]))
        assert watch.faults == []


def the_error_travels_to_other_processes_without_the_guard() -> None:
    file = MappedFile()
    file.cut(2)
    error = caught(sum_under_guard(file.array)[1])
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.errno, copy.strerror, copy.fault, copy.copied, copy.guard) == (
        error.errno,
        error.strerror,
        error.fault,
        0,
        None,
    )


def a_file_that_grew_back_in_the_block_is_zeroes_until_its_end() -> None:
    file = MappedFile()
    file.cut(2)
    with guard(file.array, on_fault="record") as watch:
        assert file.array[5 * PAGE_SIZE] == 0
        file.grow_back()
        assert file.array[5 * PAGE_SIZE] == 0
        assert file.array[9 * PAGE_SIZE] == file.expected[9 * PAGE_SIZE]
    assert places(watch.faults, file.address) == [(5, 1)]
    file.check_is_the_file_again()


def memory_that_no_file_is_behind_may_be_guarded() -> None:
    own: Array = np.ones(100_000, dtype=np.uint8)
    with guard(own, b"bytes", bytearray(5000), memoryview(b"view")):
        assert own.sum() == own.size


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
