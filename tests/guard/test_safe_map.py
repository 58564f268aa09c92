"""`SafeMap`: exact copies from and to a mapped file, arrays under a guard, and stores that are flushed."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, FaultError, IovIter, SafeMap, memcpy_mcsafe

if TYPE_CHECKING:
    from collections.abc import Callable

DATA = bytes(at * 7 % 251 + 1 for at in range(8 * PAGE_SIZE + 100))
MODES = ["r", "r+", "c"]
ODD: Any = "w"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(DATA)
    return file


def cut(path: Path, npages: int) -> None:
    os.truncate(path, npages * PAGE_SIZE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by", ["path", "bytes", "str", "descriptor"])
def test_it_is_opened_by_path_or_descriptor(path: Path, mode: Any, by: str) -> None:
    descriptor = os.open(path, os.O_RDWR)
    named = {"path": path, "bytes": os.fsencode(path), "str": str(path), "descriptor": descriptor}[by]
    with SafeMap.open(named, mode) as opened:  # type: ignore[arg-type]
        os.close(descriptor)
        assert (opened.size, len(opened), opened.mode, opened.closed) == (len(DATA), len(DATA), mode, False)
        assert opened.path == (None if by == "descriptor" else str(path))
        assert bytes(memoryview(opened)) == DATA
        assert memoryview(opened).readonly == (mode == "r")
    assert opened.closed


@pytest.mark.parametrize(("offset", "length"), [(0, 1), (1, None), (PAGE_SIZE, 100), (PAGE_SIZE + 77, PAGE_SIZE)])
def test_any_part_can_be_mapped(path: Path, offset: int, length: int | None) -> None:
    with SafeMap.open(path, offset=offset, length=length) as opened:
        assert opened.read(0, 1 << 40) == DATA[offset:][:length]
        assert opened.size == len(DATA[offset:][:length])


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ({"mode": ODD}, "mode"),
        ({"offset": len(DATA)}, "offset"),
        ({"offset": -1}, "offset"),
        ({"length": 0}, "length"),
        ({"length": len(DATA) + 1}, "length"),
        ({"offset": 5, "length": len(DATA) - 4}, "length"),
        ({"offset": 1 << 64}, "offset"),
    ],
)
def test_a_part_that_the_file_does_not_have_is_refused(path: Path, what: dict[str, Any], named: str) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ValueError, match=named):
        SafeMap.open(path, **what)
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_what_cannot_be_opened_is_the_systems_error(tmp_path: Path, path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SafeMap.open(tmp_path / "none")
    with pytest.raises(OSError, match="mmap"):
        SafeMap.open(os.open(path, os.O_RDONLY), "r+")
    with pytest.raises(OSError, match="descriptor"):
        SafeMap.open(1 << 20)
    with pytest.raises(ValueError, match="descriptor"):
        SafeMap.open(-1)
    with pytest.raises(ValueError, match="length"):
        SafeMap.open(os.open("/dev/null", os.O_RDONLY))


def test_reading_is_short_at_the_end_as_a_file_is(path: Path) -> None:
    with SafeMap.open(path) as opened:
        assert opened.read(0, 10) == DATA[:10]
        assert opened.read(len(DATA) - 3, 10) == DATA[-3:]
        assert opened.read(len(DATA), 10) == b""
        assert opened.read(1 << 70, 10) == b""
        for offset, nbytes in ((-1, 5), (5, -1)):
            with pytest.raises(ValueError, match="expected 0 or more"):
                opened.read(offset, nbytes)


def test_reading_what_was_cut_raises_with_the_count(path: Path) -> None:
    with SafeMap.open(path) as opened:
        cut(path, 3)
        assert opened.read(PAGE_SIZE, PAGE_SIZE) == DATA[PAGE_SIZE : 2 * PAGE_SIZE]
        with pytest.raises(FaultError) as raised:
            opened.read(100, 5 * PAGE_SIZE)
        assert raised.value.copied == 3 * PAGE_SIZE - 100
        assert raised.value.fault.cause == "gone"


def test_reading_into_stops_there_and_says_why(path: Path) -> None:
    with SafeMap.open(path) as opened:
        out = bytearray(b"\xee" * len(DATA))
        assert opened.read_into(100, out) == (len(DATA) - 100, 100, None)
        assert out == DATA[100:] + b"\xee" * 100
        cut(path, 3)
        targets: list[Any] = [bytearray(4 * PAGE_SIZE), np.zeros(PAGE_SIZE, dtype=np.uint32)]
        for target in targets:
            copied, remaining, fault = opened.read_into(PAGE_SIZE, target)
            assert (copied, remaining) == (2 * PAGE_SIZE, 2 * PAGE_SIZE)
            assert fault is not None
            assert (fault.side, fault.offset, fault.cause) == ("source", 2 * PAGE_SIZE, "gone")
            assert bytes(memoryview(target).cast("B")[:copied]) == DATA[PAGE_SIZE:][:copied]
        pieces = [bytearray(1000) for _ in range(20)]
        i = IovIter.iovec(READ, pieces)
        assert opened.read_into(0, i)[:2] == (3 * PAGE_SIZE, 20_000 - 3 * PAGE_SIZE)
        assert i.count == 20_000 - 3 * PAGE_SIZE
        assert opened.read_into(len(DATA), bytearray(5)) == (0, 5, None)
        with pytest.raises(BufferError):
            opened.read_into(0, b"read-only")
        with pytest.raises(ValueError, match="direction"):
            opened.read_into(0, IovIter.ubuf(WRITE, bytearray(5)))


def test_writing_changes_the_file_or_this_map_alone(path: Path) -> None:
    with SafeMap.open(path, "r+") as shared, SafeMap.open(path, "c") as own:
        assert shared.write(PAGE_SIZE - 2, IovIter.iovec(WRITE, [b"ours", b" too"])) == 8
        assert own.write(5, b"mine") == 4
        shared.flush()
        own.flush()
        expected = bytearray(DATA)
        expected[PAGE_SIZE - 2 : PAGE_SIZE + 6] = b"ours too"
        assert path.read_bytes() == expected
        expected[5:9] = b"mine"
        assert own.read(0, len(DATA)) == expected


def test_what_does_not_fit_is_refused_before_anything_is_stored(path: Path) -> None:
    with SafeMap.open(path, "r+") as opened:
        for data in (b"12345", IovIter.ubuf(WRITE, b"12345")):
            with pytest.raises(ValueError, match=f"leave the map of {len(DATA)} bytes"):
                opened.write(len(DATA) - 4, data)
        with pytest.raises(ValueError, match="offset"):
            opened.write(-1, b"1")
        assert opened.write(len(DATA), b"") == 0
    with SafeMap.open(path) as opened, pytest.raises(BufferError, match="read-only"):
        opened.write(0, b"1")
    assert path.read_bytes() == DATA


def test_writing_where_the_file_was_cut_tells_how_much_was_stored(path: Path) -> None:
    with SafeMap.open(path, "r+") as opened:
        cut(path, 2)
        with pytest.raises(FaultError) as raised:
            opened.write(PAGE_SIZE, b"\x55" * 3 * PAGE_SIZE)
        assert raised.value.copied == PAGE_SIZE
        source = IovIter.ubuf(WRITE, b"\x66" * 3 * PAGE_SIZE)
        assert opened.write(PAGE_SIZE, source) == PAGE_SIZE
        assert source.fault is not None
        assert path.read_bytes() == DATA[:PAGE_SIZE] + b"\x66" * PAGE_SIZE


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, lambda data: data),
        ({"dtype": "<u4", "offset": 4, "shape": 10}, lambda data: data[4:44].view("<u4")),
        ({"dtype": np.float32, "shape": (3, 5)}, lambda data: data[:60].view(np.float32).reshape(3, 5)),
        ({"shape": (3, 5), "order": "F"}, lambda data: data[:15].reshape(3, 5, order="F")),
        ({"dtype": "u2", "shape": (-1, 2), "offset": 8}, lambda data: data[8:].view("u2").reshape(-1, 2)),
        ({"shape": ()}, lambda data: data[0]),
    ],
)
def test_an_array_is_the_maps_own_memory(path: Path, arguments: dict[str, Any], expected: Callable[[Any], Any]) -> None:
    with SafeMap.open(path, "r+") as opened:
        array = opened.array(**arguments)
        wanted = expected(np.frombuffer(DATA, dtype=np.uint8))
        assert (array.shape, array.dtype, array.tobytes()) == (wanted.shape, wanted.dtype, wanted.tobytes())
        opened.write(arguments.get("offset", 0), b"\xaa\xbb\xcc\xdd")
        assert array.tobytes()[:1] == b"\xaa"
        del array


def test_an_array_keeps_the_map_open(path: Path) -> None:
    opened = SafeMap.open(path)
    array = opened.array()
    with pytest.raises(BufferError, match="in use"):
        opened.close()
    kept: Any = array[5:]
    del array
    with pytest.raises(BufferError, match="in use"):
        opened.close()
    del opened
    gc.collect()
    assert kept[0] == DATA[5]


def test_arrays_that_do_not_fit_are_refused(path: Path) -> None:
    with SafeMap.open(path) as opened:
        wrongs: list[dict[str, Any]] = [
            {"shape": len(DATA) + 1},
            {"offset": len(DATA), "shape": 1},
            {"offset": -1},
            {"dtype": "O"},
        ]
        for wrong in wrongs:
            with pytest.raises(ValueError, match=r"."):
                opened.array(**wrong)


def test_lengths_may_be_whatever_is_a_whole_number(path: Path) -> None:
    with SafeMap.open(path) as opened:
        for shape in (np.int64(6), (np.uint8(2), 3), [2, np.int64(3)], iter((2, 3))):
            assert opened.array("u1", shape, offset=np.int64(5)).tobytes() == DATA[5:11]  # type: ignore[arg-type]
        assert opened.read(np.int64(3), np.uint16(4)) == DATA[3:7]  # type: ignore[arg-type]
        assert opened.array(shape=()).shape == ()


@pytest.mark.parametrize(
    ("shape", "error"),
    [(-2, ValueError), ((-1, -1), ValueError), ((3, -5), ValueError), (1.5, TypeError), ((2, "3"), TypeError)],
)
def test_a_shape_that_is_none_is_refused_by_name(path: Path, shape: Any, error: type[Exception]) -> None:
    with SafeMap.open(path) as opened, pytest.raises(error, match="shape is"):
        opened.array("u1", shape)


def test_whatever_is_no_whole_number_is_refused_by_name(path: Path) -> None:
    with SafeMap.open(path, "r+") as opened:
        wrongs: list[tuple[str, Callable[[Any], object]]] = [
            ("offset", lambda wrong: opened.read(wrong, 5)),
            ("nbytes", lambda wrong: opened.read(5, wrong)),
            ("offset", lambda wrong: opened.read_into(wrong, bytearray(1))),
            ("offset", lambda wrong: opened.write(wrong, b"1")),
            ("offset", lambda wrong: opened.array(offset=wrong)),
        ]
        for name, call in wrongs:
            for wrong in (0.0, "0", None):
                with pytest.raises(TypeError, match=f"{name} is"):
                    call(wrong)


def test_a_map_of_a_descriptor_has_no_path(path: Path) -> None:
    with path.open("rb") as file, SafeMap(file.fileno(), "r", 0, None) as made:
        assert made.path is None
        assert repr(made) == f"<SafeMap None size={len(DATA)} mode=r>"


def test_what_cannot_be_mapped_is_an_os_error_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        SafeMap.open(tmp_path)
    read, write = os.pipe()
    with pytest.raises(OSError, match=r"mmap: [A-Z][a-z ]+$"):
        SafeMap.open(write, "r", length=PAGE_SIZE)
    os.close(read)
    os.close(write)


def test_the_guard_is_over_the_map(path: Path) -> None:
    with SafeMap.open(path) as opened:
        array = opened.array()
        cut(path, 2)
        with pytest.raises(FaultError) as raised, opened.guard() as watch:
            total = array.sum(dtype=np.uint64)
        assert total == sum(DATA[: 2 * PAGE_SIZE])
        assert raised.value.guard is watch
        assert watch.lost == 7 * PAGE_SIZE
        with opened.guard(on_fault="record") as watch:
            array.sum()
        assert watch.lost == 7 * PAGE_SIZE
        del array


def test_a_guard_keeps_it_open(path: Path) -> None:
    with SafeMap.open(path) as opened:
        with opened.guard(), pytest.raises(BufferError, match="in use"):
            opened.close()
        assert opened.read(0, 1) == DATA[:1]


def test_views_that_are_left_do_not_hide_what_went_wrong(path: Path) -> None:
    kept = []
    with pytest.raises(BufferError, match="in use"), SafeMap.open(path) as opened:
        kept.append(memoryview(opened))
    again = SafeMap.open(path)
    kept.append(memoryview(again))
    with pytest.raises(ZeroDivisionError, match="own") as raised, again:
        raise ZeroDivisionError("the block's own")
    assert any("stays open" in note for note in raised.value.__notes__)
    assert not again.closed
    kept.clear()
    again.close()
    again.close()


def test_a_closed_map_refuses_everything(path: Path) -> None:
    opened = SafeMap.open(path)
    opened.close()
    calls: list[Callable[[], object]] = [
        lambda: opened.read(0, 1),
        lambda: opened.read_into(0, bytearray(1)),
        lambda: opened.write(0, b"1"),
        opened.array,
        opened.flush,
        opened.guard,
        lambda: memoryview(opened),
    ]
    for call in calls:
        with pytest.raises((ValueError, BufferError), match="closed"):
            call()
    assert "closed" in repr(opened)


def test_it_is_a_buffer_for_every_copy(path: Path) -> None:
    with SafeMap.open(path, "r+") as opened:
        out = bytearray(len(DATA))
        assert memcpy_mcsafe(out, opened).copied == len(DATA)
        assert out == DATA
        assert memcpy_mcsafe(opened, bytes(len(DATA))).copied == len(DATA)
        cut(path, 1)
        assert memcpy_mcsafe(out, opened).copied == PAGE_SIZE
