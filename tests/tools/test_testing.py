"""The memory of `iovec_rs.testing` faults where it should and nowhere else, and its strategies draw what they
promise.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import itertools
import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, find, given, settings
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    Direction,
    IovIter,
    IterKind,
    UserRange,
    copy_from_iter,
    copy_to_iter,
    testing,
)
from support import mapping

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


UNSHRUNK = settings(max_examples=1000, phases=[Phase.generate], database=None)


def readable(memory: testing.FaultyMemory) -> list[bool]:
    """Whether each page is readable, as the kernel reports without touching it."""
    pages = range(0, memory.length, PAGE_SIZE)
    return [copy_from_iter(bytearray(1), IovIter.ubuf(WRITE, memory.range(at, 1))) == 1 for at in pages]


def mapped(address: int) -> bool:
    """Whether some mapping of this process covers the address."""
    return any(known.start <= address < known.end for known in mapping.known())


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([], [True] * 5),
        ([(PAGE_SIZE, 1)], [True, False, True, True, True]),
        ([(2 * PAGE_SIZE - 1, 1), (0, 0)], [True, False, True, True, True]),
        ([(2 * PAGE_SIZE - 1, 2)], [True, False, False, True, True]),
        ([(0, 5 * PAGE_SIZE)], [False] * 5),
        ([(4 * PAGE_SIZE, PAGE_SIZE), (1, 5), (17, 2)], [False, True, True, True, False]),
    ],
)
def test_poison_covers_exactly_the_pages_that_the_ranges_touch(
    bad: list[tuple[int, int]], expected: list[bool]
) -> None:
    with testing.poisoned(5, bad) as memory:
        assert readable(memory) == expected
        for page, good in enumerate(expected):
            if good:
                start = page * PAGE_SIZE
                assert bytes(memory.buffer[start : start + PAGE_SIZE]) == testing.pattern(start, PAGE_SIZE)
                memory.buffer[start] = 0


@pytest.mark.parametrize("keep", [0, 1, 3, 4])
def test_a_truncated_mapping_ends_where_its_file_does(keep: int) -> None:
    with testing.truncated(4, keep) as memory:
        assert memory.length == len(memory.buffer) == 4 * PAGE_SIZE
        assert readable(memory) == [True] * keep + [False] * (4 - keep)
        assert bytes(memory.buffer[: keep * PAGE_SIZE]) == testing.pattern(0, keep * PAGE_SIZE)


def test_a_copy_stops_at_the_bad_page_from_either_side() -> None:
    with testing.poisoned(3, bad=[(PAGE_SIZE, PAGE_SIZE)]) as memory:
        source = IovIter.ubuf(WRITE, memory.range(100))
        copied = bytearray(source.count)
        assert copy_from_iter(copied, source) == PAGE_SIZE - 100
        assert copied[: PAGE_SIZE - 100] == testing.pattern(100, PAGE_SIZE - 100)
        assert source.fault is not None
        assert source.fault.address == memory.address + PAGE_SIZE
        assert source.fault.cause in ("poison", "gone")
        target = IovIter.ubuf(READ, memory.range(PAGE_SIZE - 10, 20))
        assert copy_to_iter(b"*" * 20, target) == 10
        assert bytes(memory.buffer[PAGE_SIZE - 10 : PAGE_SIZE]) == b"*" * 10
    with testing.truncated(2, 1) as memory:
        target = IovIter.ubuf(READ, memory.range())
        assert copy_to_iter(bytes(2 * PAGE_SIZE), target) == PAGE_SIZE
        assert target.fault is not None
        assert (target.fault.side, target.fault.cause) == ("destination", "gone")


def test_reading_bad_memory_the_ordinary_way_ends_the_process() -> None:
    program = textwrap.dedent("""
        import sys
        from iovec_rs import testing
        with testing.poisoned(1, [(0, 1)]) if sys.argv[1] == "poisoned" else testing.truncated(1, 0) as memory:
            memory.buffer[0]
    """)
    for how in ("poisoned", "truncated"):
        done = subprocess.run([sys.executable, "-c", program, how], check=False, timeout=120)
        assert done.returncode == -7, how


def test_the_pattern_is_recognisable() -> None:
    whole = testing.pattern(0, 20 * PAGE_SIZE)
    assert 0 not in whole
    assert all(a != b for a, b in itertools.pairwise(whole))
    assert len({whole[at : at + PAGE_SIZE] for at in range(0, len(whole), PAGE_SIZE)}) == 20
    assert all(testing.pattern(at, 300) == whole[at : at + 300] for at in range(0, 9000, 37))


def test_a_range_is_an_address_within_the_mapping() -> None:
    with testing.poisoned(2) as memory:
        assert memory.address % PAGE_SIZE == 0
        assert ctypes.addressof(ctypes.c_char.from_buffer(memory.buffer)) == memory.address
        assert memory.range() == UserRange(memory.address, 2 * PAGE_SIZE)
        assert memory.range(5) == UserRange(memory.address + 5, 2 * PAGE_SIZE - 5)
        assert memory.range(5, 7) == UserRange(memory.address + 5, 7)
        assert memory.range(2 * PAGE_SIZE, 0) == UserRange(memory.address + 2 * PAGE_SIZE, 0)
        for offset, length in [(-1, 1), (2 * PAGE_SIZE + 1, 0), (1, 2 * PAGE_SIZE), (0, -1)]:
            with pytest.raises(ValueError, match=r"outside the 8192 bytes mapped"):
                memory.range(offset, length)


@pytest.mark.parametrize("make", [lambda: testing.poisoned(2, [(0, 1)]), lambda: testing.truncated(2, 1)])
def test_memory_lives_as_long_as_somebody_holds_a_view(
    make: Callable[[], AbstractContextManager[testing.FaultyMemory]],
) -> None:
    with make() as memory:
        address = memory.address
    assert not mapped(address)
    with make() as memory:
        address = memory.address
        good = 0 if readable(memory)[0] else PAGE_SIZE
        expected = bytes(memory.buffer[good : good + 4])
        view = memory.buffer[good : good + 4]
        pointer = ctypes.c_char.from_buffer(memory.buffer, good)
        iterator = IovIter.ubuf(WRITE, memory.buffer[good : good + 4])
    assert (bytes(view), pointer.value) == (expected, expected[:1])
    del view, pointer
    gc.collect()
    copied = bytearray(4)
    assert copy_from_iter(copied, iterator) == 4
    assert copied == expected
    del iterator
    del memory
    gc.collect()
    assert not mapped(address)


def test_a_test_that_fails_over_bad_memory_unmaps_it_too() -> None:
    address = 0

    def fail() -> None:
        nonlocal address
        with testing.poisoned(2, [(0, 1)]) as memory:
            address = memory.address
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert address
    assert not mapped(address)


def test_wrong_arguments_are_refused_by_name_and_number() -> None:
    def enter(manager: object) -> None:
        with manager:  # type: ignore[attr-defined]
            raise AssertionError("it was accepted")

    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for npages in (0, -1):
        with pytest.raises(ValueError, match=f"npages is {npages}"):
            enter(testing.poisoned(npages))
        with pytest.raises(ValueError, match=f"npages is {npages}"):
            enter(testing.truncated(npages, 0))
    for bad in ((-1, 1), (0, -1), (2 * PAGE_SIZE, 1), (1, 2 * PAGE_SIZE)):
        with pytest.raises(ValueError, match=rf"bad\[1\] is \({bad[0]}, {bad[1]}\), outside the 8192 bytes"):
            enter(testing.poisoned(2, [(0, 1), bad]))
    for keep in (-1, 3):
        with pytest.raises(ValueError, match=f"keep is {keep}, not between 0 and the 2 pages"):
            enter(testing.truncated(2, keep))
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


def test_a_kernel_without_poison_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same call with a feature that no kernel has is refused as an old kernel refuses this feature."""
    monkeypatch.setattr(testing, "_FEATURE_POISON", 1 << 62)
    with pytest.raises(OSError, match=r"Linux 6\.6.*sysctl") as caught, testing.poisoned(1, [(0, 1)]):
        pass
    assert caught.value.errno == errno.EINVAL
    with testing.poisoned(1) as memory:
        assert readable(memory) == [True]


def test_only_the_strategies_need_hypothesis() -> None:
    program = textwrap.dedent("""
        import sys
        sys.modules["hypothesis"] = None
        from iovec_rs import testing
        with testing.poisoned(1, [(0, 1)]):
            pass
        for strategy in testing.buffers, testing.segments, testing.iov_iters:
            try:
                strategy()
            except ImportError as error:
                print(error)
    """)
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120)
    assert done.stdout.count("pip install hypothesis") == 3


def exporter_name(buffer: object) -> str:
    name = type(buffer.obj if isinstance(buffer, memoryview) else buffer).__name__
    return name.rstrip("0123456789").rstrip("_")


@pytest.mark.parametrize(
    "name", ["bytes", "bytearray", "array", "mmap", "PickleBuffer", "c_ubyte_Array", "empty", "page"]
)
def test_buffers_come_from_every_exporter_and_in_every_size(name: str) -> None:
    wanted = {"empty": lambda b: memoryview(b).nbytes == 0, "page": lambda b: memoryview(b).nbytes == PAGE_SIZE}
    assert find(testing.buffers(), wanted.get(name, lambda b: exporter_name(b) == name), settings=UNSHRUNK) is not None


@given(testing.buffers(min_size=3, max_size=9, writable=True), testing.segments(max_segments=5, max_size=70))
def test_buffers_keep_to_their_limits(buffer: memoryview, parts: list[memoryview]) -> None:
    assert 3 <= memoryview(buffer).nbytes <= 9
    assert not memoryview(buffer).readonly
    assert len(parts) <= 5
    assert all(memoryview(part).nbytes <= 70 for part in parts)


@pytest.mark.parametrize("direction", [READ, WRITE])
@pytest.mark.parametrize("kind", IterKind)
def test_iterators_of_every_kind_and_direction_are_drawn_and_work(kind: IterKind, direction: Direction) -> None:
    if direction is WRITE and kind in (IterKind.PIPE, IterKind.DISCARD):
        with pytest.raises(ValueError, match="can be a source"):
            testing.iov_iters(kinds=[kind], directions=[direction])
        return

    @settings(max_examples=30)
    @given(testing.iov_iters(kinds=[kind], directions=[direction]))
    def works(i: IovIter) -> None:
        assert (i.kind, i.direction) == (kind, direction)
        before, flat = i.count, bytearray(min(i.count, 3 * PAGE_SIZE))
        copied = copy_to_iter(flat, i) if direction is READ else copy_from_iter(flat, i)
        assert copied == before - i.count
        assert i.fault is None

    works()
    assert find(testing.iov_iters(kinds=[kind], directions=[direction]), lambda i: i.count > 0, settings=UNSHRUNK)


@given(testing.iov_iters(kinds=[kind for kind in IterKind if kind is not IterKind.DISCARD]))
def test_a_drawn_iterator_advances_over_its_ranges_and_comes_back(i: IovIter) -> None:
    ranges = i.ranges()
    there = sum(part.length for part in ranges)
    i.advance(there)
    i.revert(there)
    assert i.ranges() == ranges


@given(testing.iov_iters())
def test_any_iterator_may_be_drawn(i: IovIter) -> None:
    assert i.kind in IterKind
    assert sum(part.length for part in i.ranges()) <= i.count
