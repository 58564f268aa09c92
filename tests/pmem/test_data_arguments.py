"""What a region is written with, a log appends and a slot publishes: a buffer, buffers in order, or an iterator."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from iovec_rs import PAGE_SIZE, WRITE, FaultError, IovIter, PmemLog, Slot, UserRange, pmem, testing
from support import sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTS: list[Any] = [b"header", bytearray(b"x" * 5000), memoryview(b"a-b-c")[1:4], b"", np.arange(9, dtype="u2")]
WHOLE = b"".join(bytes(part) for part in PARTS)

FORMS: dict[str, Callable[[], Any]] = {
    "a list": lambda: PARTS,
    "a tuple": lambda: tuple(PARTS),
    "a generator": lambda: (part for part in PARTS),
    "one buffer": lambda: WHOLE,
    "an array of rows": lambda: np.frombuffer(WHOLE[:5024], "u1").reshape(16, 314),
    "an iterator": lambda: IovIter.kvec(WRITE, PARTS),
}


@pytest.fixture
def region(tmp_path: Path) -> Iterator[pmem.PmemRegion]:
    with pmem.PmemRegion.open(tmp_path / "region", size=16 * PAGE_SIZE, create=True) as region:
        yield region


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_written_appended_and_published(form: str, region: pmem.PmemRegion, tmp_path: Path) -> None:
    make = FORMS[form]
    expected = WHOLE[:5024] if form == "an array of rows" else WHOLE
    assert region.write(100, make()) == len(expected)
    assert region.write_crc32c(offset=7 * PAGE_SIZE, data=make(), crc=5) == (len(expected), sums.crc32c(expected, 5))
    for offset in (100, 7 * PAGE_SIZE):
        assert bytes(memoryview(region)[offset : offset + len(expected)]) == expected
    assert (tmp_path / "region").read_bytes()[100 : 100 + len(expected)] == expected
    with PmemLog.open(tmp_path / "log", size=1 << 16, create=True) as log:
        assert log.read(log.append(data=make())) == expected
    slot, into = Slot(bytearray(1 << 16)), bytearray(len(expected))
    assert slot.publish(data=make()) == 1
    assert slot.consume(into) == (len(expected), 1)
    assert into == expected


def test_no_buffers_are_no_bytes(region: pmem.PmemRegion) -> None:
    assert region.write(region.size, []) == 0
    assert region.write_crc32c(0, (), 7) == (0, 7)


def test_parts_of_the_region_itself_are_read_as_they_were_before(region: pmem.PmemRegion) -> None:
    before = np.random.default_rng(1).bytes(3 * PAGE_SIZE)
    region.write(0, before)
    view = memoryview(region)
    parts = [view[50:7000], view[:300], view[2000:5000]]
    expected = before[50:7000] + before[:300] + before[2000:5000]
    assert region.write_crc32c(100, parts) == (len(expected), sums.crc32c(expected))
    assert view[100 : 100 + len(expected)] == expected
    for each in (*parts, view):
        each.release()


def test_a_bad_buffer_in_a_list_ends_the_write_and_the_bytes_before_it_count(region: pmem.PmemRegion) -> None:
    with testing.truncated(2, keep=1) as memory:
        with pytest.raises(FaultError) as caught:
            region.write_crc32c(0, [b"before", memory.buffer, b"behind"])
        good = b"before" + bytes(memory.buffer[:PAGE_SIZE])
        assert caught.value.copied == len(good)
        assert caught.value.crc32c == sums.crc32c(good)
        assert bytes(memoryview(region)[: len(good) + 1]) == good + b"\0"


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "data: a buffer, an iterable of buffers or an IovIter is expected, not NoneType"),
    (7, TypeError, "data: a buffer, an iterable of buffers or an IovIter is expected, not int"),
    ("text", TypeError, "data: a buffer, an iterable of buffers or an IovIter is expected, not str"),
    ("", TypeError, "data: a buffer, an iterable of buffers or an IovIter is expected, not str"),
    ([b"ab", 7], TypeError, r"data\[1\]: a buffer is expected, not int"),
    ([b"ab", [b"cd"]], TypeError, r"data\[1\]: a buffer is expected, not list"),
    (UserRange(4096, 10), TypeError, "data: a buffer, an iterable of buffers or an IovIter is expected, not UserRange"),
    ([b"ab", UserRange(4096, 10)], TypeError, r"data\[1\]: a UserRange is not trusted memory"),
    ([b"ab", np.zeros(8, "u1")[::2]], BufferError, r"data\[1\]: not C-contiguous"),
    (np.zeros(8, "u1")[::2], BufferError, "data: not C-contiguous"),
]


@pytest.mark.parametrize(("data", "error", "message"), REFUSED)
def test_what_is_refused_is_named_and_changes_nothing(
    data: Any, error: type[Exception], message: str, region: pmem.PmemRegion, tmp_path: Path
) -> None:
    with PmemLog.open(tmp_path / "log", size=1 << 16, create=True) as log:
        slot = Slot(bytearray(1 << 16))
        for call in (
            lambda: region.write(0, data),
            lambda: region.write_crc32c(0, data),
            lambda: log.append(data),
            lambda: slot.publish(data),
        ):
            with pytest.raises(error, match=message):
                call()
        assert log.last == -1
    assert bytes(region) == bytes(region.size)


def test_a_list_is_no_destination(region: pmem.PmemRegion, tmp_path: Path) -> None:
    wrong: Any = [bytearray(4)]
    with PmemLog.open(tmp_path / "log", size=1 << 16, create=True) as log:
        log.append(b"1234")
        slot = Slot(bytearray(1 << 16))
        slot.publish(b"1234")
        for call in (
            lambda: region.read_into(0, wrong),
            lambda: region.read_into_crc32c(0, wrong),
            lambda: log.read_into(0, wrong),
            lambda: slot.consume(wrong),
        ):
            with pytest.raises(TypeError, match="dst: a buffer or an IovIter is expected, not list"):
                call()


def test_a_list_that_leaves_the_region_is_refused_whole(region: pmem.PmemRegion) -> None:
    data = bytearray(b"x" * PAGE_SIZE)
    with pytest.raises(ValueError, match=f"offset {15 * PAGE_SIZE} and length {2 * PAGE_SIZE} leave the region"):
        region.write(15 * PAGE_SIZE, [data, data])
    assert bytes(region) == bytes(region.size)
    data.append(0)  # BufferError if it were still exported.


def test_threads_that_share_an_iterator_over_a_log_are_given_each_record_once(tmp_path: Path) -> None:
    with PmemLog.open(tmp_path / "log", size=1 << 20, create=True) as log:
        count = 800
        for number in range(count):
            log.append(b"%d" % number)
        records = iter(log)
        found: list[list[int]] = [[] for _ in range(4)]
        start = threading.Barrier(4)

        def work(into: list[int]) -> None:
            start.wait(60)
            into.extend(record.sequence for record in records)

        threads = [threading.Thread(target=work, args=(into,)) for into in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(number for each in found for number in each) == list(range(count))
        assert all(each == sorted(each) for each in found)
        # At its end it may be asked again: that follows a writer.
        assert next(records, None) is None
        log.append(b"later")
        assert next(records).sequence == count
        assert next(records, None) is None
