"""`copy_ranges`: many copies in one call, each with the same result as a call of its own."""

from __future__ import annotations

import array
import ctypes
import mmap
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iovec_rs import (
    PAGE_SIZE,
    WRITE,
    FaultMap,
    McResult,
    RangeResults,
    UserRange,
    copy_ranges,
    crc32c,
    fault_handler,
    import_iovec,
    iovec_from_user,
    memcpy_mcsafe,
    testing,
)
from iovec_rs.pmem import PmemRegion
from support import sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from iovec_rs._types import Fault
    from typing_extensions import Buffer

    Side = list[Buffer | UserRange]

KERNEL = 0xFFFF_8000_0000_0000


def address(buffer: bytearray | mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def noise(length: int, seed: int = 7) -> bytes:
    return np.random.default_rng(seed).bytes(length)


def packed(pairs: list[tuple[int, int]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    return np.array(pairs, dtype=np.uint64).reshape(-1, 2)


@pytest.fixture(params=["signal", "syscall"])
def mode(request: pytest.FixtureRequest) -> Iterator[str]:
    with fault_handler.mode(request.param):
        yield request.param


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("crc", [False, True])
def test_every_form_of_ranges_copies_the_same(flush: bool, crc: bool) -> None:
    lengths = [0, 1, 63, 64, 65, 4096, 0, 8192, 20_000, 7]
    starts = [sum(lengths[:k]) + 5 * k for k in range(len(lengths))]
    source = bytearray(noise(starts[-1] + 100))
    expected = [source[at : at + length] for at, length in zip(starts, lengths, strict=True)]
    total = sum(lengths)
    at_source = [(address(source) + at, length) for at, length in zip(starts, lengths, strict=True)]
    for form in ("buffers", "ranges", "packed", "imported"):
        target = bytearray(len(source))
        at_target = [(address(target) + at, length) for at, length in zip(starts, lengths, strict=True)]
        dst: object
        src: object
        match form:
            case "buffers":
                dst = [memoryview(target)[at : at + length] for at, length in zip(starts, lengths, strict=True)]
                src = expected
            case "ranges":
                dst = [UserRange(*pair) for pair in at_target]
                src = tuple(UserRange(*pair) for pair in at_source)
            case "packed":
                dst, src = packed(at_target), packed(at_source).tobytes()
            case _:
                dst, src = iovec_from_user(packed(at_target)), iovec_from_user(packed(at_source))
        results = copy_ranges(dst, src, flush=flush, crc32c=crc)  # type: ignore[arg-type]
        assert (results.copied, results.failed, len(results)) == (total, [], len(lengths))
        assert list(results) == [McResult(length, 0, None) for length in lengths]
        assert results.crc32c == ([sums.crc32c(part) for part in expected] if crc else None)
        between = bytearray(len(source))
        for at, part in zip(starts, expected, strict=True):
            between[at : at + len(part)] = part
        assert target == between, form


def test_no_ranges_are_copied() -> None:
    assert list(copy_ranges([], b"", crc32c=True)) == []
    assert copy_ranges([], [], crc32c=True).crc32c == []


def test_the_results_are_a_sequence() -> None:
    results = copy_ranges([bytearray(2), bytearray(3)], [b"ab", b"cde"])
    assert isinstance(results, Sequence)
    two, three = McResult(2, 0, None), McResult(3, 0, None)
    assert (results[0], results[-1], results[::-1]) == (two, three, [three, two])
    assert (results.index(three), results.count(two), three in results, McResult(4, 0, None) in results) == (
        1,
        1,
        True,
        False,
    )
    for index in (2, -3, 1 << 70):
        with pytest.raises(IndexError, match="out of range of 2 results"):
            results[index]
    with pytest.raises(TypeError, match="index: an int or a slice is expected"):
        results["0"]  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="no range has this result"):
        results.index(7)
    assert [results.index(three, start) for start in (0, 1, -1, -1 << 70)] == [1, 1, 1, 1]
    for start, stop in ((2, None), (0, 1), (0, -1), (1 << 70, 1 << 71)):
        with pytest.raises(ValueError, match="no range has this result"):
            results.index(three, start, stop)
    assert repr(results) == "<RangeResults of 2 ranges, 5 bytes copied, 0 short>"
    assert repr(copy_ranges([bytearray(1)], [b"a"])) == "<RangeResults of 1 range, 1 bytes copied, 0 short>"


REFUSED: list[tuple[object, object, type[Exception], str]] = [
    ([bytearray(3), bytearray(4)], [b"abc"], ValueError, "dst is 2 ranges: expected 1 ranges, as many as src"),
    ([bytearray(3), bytearray(4)], [b"abc", b"d"], ValueError, r"dst\[1\] has 4 bytes: expected 1"),
    ([bytearray(3), b"1"], [b"abc", b"d"], BufferError, r"dst\[1\]: read-only memory cannot be a destination"),
    ([bytearray(3), bytearray(1)], [b"abc", 7], TypeError, r"src\[1\]: a buffer is expected, not int"),
    ([bytearray(3), None], [b"abc", b"d"], TypeError, r"dst\[1\]: a buffer is expected, not NoneType"),
    ([bytearray(3), UserRange(-1, 1)], [b"abc", b"d"], ValueError, r"dst\[1\]: address is -1"),
    ([bytearray(3), UserRange(1, 1 << 63)], [b"abc", b"d"], ValueError, r"dst\[1\]: length is"),
    (bytearray(17), [b"abc"], ValueError, "dst is 17 bytes: expected a multiple of 16"),
    (
        [bytearray(3)],
        packed([(4096, 3), (0, 1 << 63)]),
        ValueError,
        rf"src\[1\]: length is {1 << 63}: expected 0 or more",
    ),
    (packed([(4096, 3), (0, (1 << 64) - 1)]), [b"abc", b"d"], ValueError, r"dst\[1\]: length is"),
    (7, [b"abc"], TypeError, "dst: a sequence of buffers and UserRanges"),
    ([bytearray(3)], [np.zeros(6, "u1")[::2]], BufferError, r"src\[0\]: not C-contiguous"),
]


@pytest.mark.parametrize(("dst", "src", "error", "message"), REFUSED)
def test_what_is_refused_changes_nothing_and_names_the_index(
    dst: object, src: object, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        copy_ranges(dst, src)  # type: ignore[arg-type]
    if isinstance(dst, list):
        assert dst[0] == bytes(3)
        dst[0].append(1)  # The buffer is not exported any more.
        dst[0].pop()


@pytest.mark.parametrize("format_", [">u8", "f8", "u4", "i2", "c16", "bool", "U2"])
def test_an_array_of_other_numbers_is_not_taken_for_addresses(format_: str) -> None:
    numbers: Any = np.zeros((4, 2), format_)
    with pytest.raises(TypeError, match="dst: a packed array has integers of 8 bytes, or bytes, not elements of"):
        copy_ranges(numbers, bytes(16))
    with pytest.raises(TypeError, match="src: a packed array has"):
        copy_ranges([], numbers)
    with pytest.raises(TypeError, match="uvector: a packed array has integers of 8 bytes, or bytes"):
        iovec_from_user(numbers)
    with pytest.raises(TypeError, match="uvector: a packed array has integers of 8 bytes, or bytes"):
        import_iovec(WRITE, numbers)


@pytest.mark.parametrize("shape", [(2, 8), (2, 3), (8, 1), (4, 2, 8), (2, 0)])
def test_an_array_whose_rows_are_no_pairs_is_not_taken_for_ranges(shape: tuple[int, ...]) -> None:
    """As one whose first row has the addresses, and whose second row has the lengths."""
    numbers: Any = np.zeros(shape, np.uint64)
    with pytest.raises(ValueError, match=r"dst is an array with rows of \d+ bytes: expected rows of 16 bytes"):
        copy_ranges(numbers, [])
    with pytest.raises(ValueError, match="src is an array with rows of"):
        copy_ranges([], numbers)
    with pytest.raises(ValueError, match="uvector is an array with rows of"):
        iovec_from_user(numbers)


def test_an_array_of_words_or_of_bytes_is() -> None:
    source, target = np.frombuffer(noise(100), "u1"), bytearray(100)

    class Iovec(ctypes.Structure):
        _fields_ = (("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t))

    words = np.array([(source.ctypes.data + 7, 50)], "u8")
    arrays: list[Any] = [
        words,
        words.astype("i8"),
        words.astype("<u8"),
        words.view("u1"),
        words.view("V16"),
        words.view([("uhI", "u8"), ("f>", "u8")]),
        words.tobytes(),
        bytearray(words),
        array.array("L", words.tobytes()),
        memoryview(words.tobytes()).cast("P"),
        (ctypes.c_uint64 * 2)(*words.ravel().tolist()),
        (Iovec * 1)(Iovec(int(words[0, 0]), 50)),
        Iovec(int(words[0, 0]), 50),
    ]
    for array_ in arrays:
        target[:] = bytes(100)
        assert copy_ranges([memoryview(target)[50:]], array_).copied == 50
        assert target == bytes(50) + source[7:57].tobytes()
    compat: Any = np.array([(0x1000, 3)], "u4")
    assert list(iovec_from_user(compat, compat=True)) == [(0x1000, 3)]


def test_a_bad_range_does_not_end_the_others(mode: str) -> None:
    good = noise(64)
    with testing.truncated(4, keep=2) as memory:
        bad = address_of(memory.buffer)
        held = bytes(memory.buffer[2 * PAGE_SIZE - 40 : 2 * PAGE_SIZE])
        targets = [bytearray(64) for _ in range(6)]
        sources: Side = [
            good,
            UserRange(KERNEL, 64),
            good,
            UserRange(bad + 2 * PAGE_SIZE - 40, 64),
            memory.buffer[3 * PAGE_SIZE :][:64],
            good,
        ]
        fault_map = FaultMap()
        results = copy_ranges(targets, sources, fault_map=fault_map, crc32c=True)
        assert results.failed == [1, 3, 4]
        assert [result.copied for result in results] == [64, 0, 64, 40, 0, 64]
        assert [result.remaining for result in results] == [0, 64, 0, 24, 64, 0]
        faults: list[Fault | None] = [result.fault for result in results]
        found = [(fault.side, fault.offset, fault.cause, fault.origin) for fault in faults if fault]
        origin = "signal" if mode == "signal" else "syscall"
        assert found == [
            ("source", 0, "bad_address", origin),
            ("source", 40, "gone", origin),
            ("source", 0, "gone", origin),
        ]
        assert [bytes(target) for target in targets[::2]] == [good, good, bytes(64)]
        assert targets[3] == held + bytes(24)
        assert results.crc32c == [crc32c(data) for data in (good, b"", good, held, b"", good)]
        assert bad + 2 * PAGE_SIZE in fault_map
        # The range that was added to the map stops the next copy before it accesses that memory.
        again = copy_ranges([targets[3]], [sources[3]], fault_map=fault_map)[0]
        assert again.copied == 40
        assert again.fault is not None
        assert again.fault.origin == "map"


def address_of(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.usefixtures("mode")
def test_bad_destinations_come_short(flush: bool) -> None:
    data = noise(3 * PAGE_SIZE)
    with testing.truncated(4, keep=1) as memory:
        targets: Side = [memory.buffer[100 : 100 + len(data)], bytearray(10), UserRange(KERNEL + 1, 3)]
        results = copy_ranges(targets, [data, b"0123456789", b"abc"], flush=flush, crc32c=True)
        assert [result.copied for result in results] == [PAGE_SIZE - 100, 10, 0]
        assert [result.fault and result.fault.side for result in results] == ["destination", None, "destination"]
        assert results.crc32c == [crc32c(data[: PAGE_SIZE - 100]), crc32c(b"0123456789"), 0]
        assert memory.buffer[100:PAGE_SIZE] == data[: PAGE_SIZE - 100]
        assert (results.copied, results.failed) == (PAGE_SIZE - 90, [0, 2])


RANGES = st.lists(
    st.tuples(st.integers(0, 30_000), st.integers(0, 30_000), st.integers(0, 9000)), min_size=1, max_size=8
)
BAD = st.lists(st.tuples(st.integers(0, 38_000), st.integers(1, 300), st.sampled_from(["read", "write"])), max_size=3)


@settings(max_examples=150, deadline=None)
@given(ranges=RANGES, bad=BAD, flush=st.booleans(), crc=st.booleans())
def test_each_is_the_copy_that_memcpy_mcsafe_makes(
    ranges: list[tuple[int, int, int]], bad: list[tuple[int, int, str]], flush: bool, crc: bool
) -> None:
    """All ranges lie in one buffer, so that they overlap themselves and each other. A map is used as well."""
    together, alone = (mmap.mmap(-1, 10 * PAGE_SIZE) for _ in range(2))
    together[:] = alone[:] = noise(10 * PAGE_SIZE)
    maps = []
    for memory in (together, alone):
        fault_map = FaultMap()
        for at, length, access in bad:
            fault_map.poison(memory, at, length, access)
        maps.append(fault_map)
    expected, expected_sums = [], []
    for dst, src, length in ranges:
        view = memoryview(alone)
        before = bytes(view[src : src + length])
        result = memcpy_mcsafe(view[dst : dst + length], view[src : src + length], fault_map=maps[1])
        expected.append((result.copied, result.fault and (result.fault.side, result.fault.offset)))
        expected_sums.append(sums.crc32c(before[: result.copied]))
    view = memoryview(together)
    results = copy_ranges(
        [view[dst : dst + length] for dst, _, length in ranges],
        [view[src : src + length] for _, src, length in ranges],
        flush=flush,
        fault_map=maps[0],
        crc32c=crc,
    )
    found = [(result.copied, result.fault and (result.fault.side, result.fault.offset)) for result in results]
    assert found == expected
    assert results.crc32c == (expected_sums if crc else None)
    assert together[:] == alone[:]


def test_a_hundred_thousand_ranges() -> None:
    count = 100_000
    source = np.frombuffer(bytearray(noise(count * 64)), np.uint8)
    target = np.zeros_like(source)
    order = np.random.default_rng(1).permutation(count).astype(np.uint64)
    src = np.column_stack([source.ctypes.data + order * np.uint64(64), np.full(count, 64, np.uint64)])
    dst = np.column_stack(
        [target.ctypes.data + np.arange(count, dtype=np.uint64) * np.uint64(64), np.full(count, 64, np.uint64)]
    )
    src[777, 0] = KERNEL
    results = copy_ranges(dst, src, flush=True, crc32c=True)  # type: ignore[arg-type]
    assert (len(results), results.copied, results.failed) == (count, 64 * (count - 1), [777])
    expected = source.reshape(-1, 64)[order]
    expected[777] = 0
    assert np.array_equal(target.reshape(-1, 64), expected)
    assert results.crc32c is not None
    assert results.crc32c[:777] == [crc32c(row) for row in expected[:777]]


def test_a_region_that_needs_an_msync_is_durable_or_says_what_is_lost(tmp_path: Path) -> None:
    path, size = tmp_path / "region", 8 * PAGE_SIZE
    region = PmemRegion.open(path, size=size, create=True)
    view, data = memoryview(region), noise(2 * PAGE_SIZE)
    targets: Side = [
        view[3 * PAGE_SIZE :][: len(data)],
        bytearray(10),
        view[: len(data)],
        view[6 * PAGE_SIZE :][: len(data)],
    ]
    results = copy_ranges(targets, [data, b"0123456789", data, data], flush=True)
    assert results.failed == []
    stored = path.read_bytes()
    assert stored[3 * PAGE_SIZE :][: len(data)] == stored[: len(data)] == stored[6 * PAGE_SIZE :] == data
    end = 4 * PAGE_SIZE + 77
    os.truncate(path, end)
    results = copy_ranges(targets, [data, b"0123456789", data, data], flush=True, crc32c=True)
    assert [result.copied for result in results] == [PAGE_SIZE + 77, 10, len(data), 0]
    assert results.failed == [0, 3]
    assert results.copied == PAGE_SIZE + 77 + 10 + len(data)
    assert results.crc32c == [crc32c(data[: PAGE_SIZE + 77]), crc32c(b"0123456789"), crc32c(data), 0]
    fault = results[0].fault
    assert fault is not None
    assert (fault.side, fault.cause, fault.offset) == ("destination", "gone", PAGE_SIZE + 77)


def test_results_outlive_the_memory() -> None:
    def copied() -> RangeResults:
        return copy_ranges([bytearray(1000)], [bytes(1000)])

    assert copied()[0] == McResult(1000, 0, None)
