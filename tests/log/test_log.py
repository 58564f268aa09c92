"""`PmemLog`: what is appended is found again, whole; what is refused has changed nothing."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    READ,
    WRITE,
    BioVec,
    FolioQueue,
    IovIter,
    PmemLog,
    Record,
    UserRange,
    XArray,
    copy_to_iter,
    pmem,
)
from iovec_rs.pmem import PmemRegion
from support.logs import contents, make
from support.sums import bit_by_bit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_new_log_is_empty_and_numbers_its_records_from_zero(path: Path) -> None:
    with make(path) as log:
        assert (log.first, log.last, log.nbytes, log.recovered, list(log)) == (0, -1, 0, 0, [])
        assert [log.append(b"a"), log.append(b""), log.append(b"ccc")] == [0, 1, 2]
        assert (log.first, log.last) == (0, 2)
        assert contents(log) == {0: b"a", 1: b"", 2: b"ccc"}


def test_a_record_says_where_its_data_are_and_what_they_sum_to(path: Path) -> None:
    with make(path) as log:
        log.append(b"x" * 100)
        log.append(b"123456789")
        (_, record) = log
        assert record == Record(1, record.offset, 9, 0xE3069283) == log.record(1)
        assert record.offset % 64 == 0
        assert record.crc32c == bit_by_bit(b"123456789")
    assert path.read_bytes()[record.offset : record.offset + 9] == b"123456789"


def test_everything_is_there_when_it_is_opened_again(path: Path) -> None:
    written = {n: os.urandom(n * 37) for n in range(30)}
    for n, data in written.items():
        with make(path) as log:
            assert log.append(data) == n
            assert log.recovered == 0
    with PmemLog.open(path) as log:
        assert contents(log) == written


@pytest.mark.parametrize("length", [0, 1, 447, 448, 449, 8191, 8192, 8193, 100_000])
def test_data_of_every_shape_are_one_record(path: Path, length: int) -> None:
    data = os.urandom(length)
    half = length // 2
    pages = [bytearray(data[at : at + 4096].ljust(4096, b"\0")) for at in range(0, length, 4096)] or [bytearray(4096)]
    shapes: dict[str, Any] = {
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "list": [data[:half], bytearray(data[half:])],
        "tuple": (data[:half], b"", data[half:]),
        "ubuf": IovIter.ubuf(WRITE, data),
        "iovec": IovIter.iovec(WRITE, [data[:half], data[half:]]),
        "kvec": IovIter.kvec(WRITE, [data[:half], data[half:]]),
        "bvec": IovIter.bvec(WRITE, [BioVec(bytearray(b"12" + data), 2, length)]),
        "xarray": IovIter.xarray(WRITE, XArray(dict(enumerate(pages))), 0, length),
        "folioq": IovIter.folioq(WRITE, FolioQueue(pages), 0, 0, length),
    }
    with make(path, 4 << 20) as log:
        for n, (name, shape) in enumerate(shapes.items()):
            assert log.append(shape) == n, name
            assert log.read(n) == data, name
            if isinstance(shape, IovIter):
                assert shape.count == 0


def test_a_full_log_refuses_before_a_byte_and_goes_on_when_old_records_are_discarded(path: Path) -> None:
    with make(path) as log:
        while log.free:
            log.append(b"x" * min(log.free, 3000))
        before = path.read_bytes()
        with pytest.raises(OSError, match="room for 0") as refused:
            log.append(b"y")
        assert refused.value.errno == errno.ENOSPC
        assert path.read_bytes() == before
        for n in range(log.last + 1, 500):
            while log.free < 3000:
                log.discard_before(log.first + 1)
            assert log.append(n.to_bytes(4, "little") * 700) == n
        newest = contents(log)
    with PmemLog.open(path) as log:
        assert contents(log) == newest
        assert max(newest) == 499
        assert all(data == n.to_bytes(4, "little") * 700 for n, data in newest.items())


def test_the_largest_record_that_is_free_fits_and_one_byte_more_does_not(path: Path) -> None:
    with make(path) as log:
        for _ in range(50):
            free = log.free
            with pytest.raises(OSError, match="room"):
                log.append(bytes(free + 1))
            log.append(bytes(free // 2))
            log.discard_before(max(log.first, log.last - 1))


def test_numbers_that_there_are_not(path: Path) -> None:
    with make(path) as log:
        for n in range(5):
            log.append(bytes([n]))
        log.discard_before(2)
        for missing in (-1, 0, 1, 5, 1 << 63, 1 << 80):
            with pytest.raises(IndexError):
                log.read(missing)
        with pytest.raises(ValueError, match="at most 5"):
            log.discard_before(6)
        with pytest.raises(ValueError, match="sequence"):
            log.discard_before(-1)
        log.discard_before(1)  # Already gone.
        log.discard_before(5)
        assert (log.first, log.last, list(log)) == (5, 4, [])
        assert log.append(b"next") == 5


def test_read_into_fills_buffers_and_iterators(path: Path) -> None:
    with make(path) as log:
        log.append(b"abcdef")
        buffer = bytearray(b"........")
        assert log.read_into(0, buffer) == (6, 0, None)
        assert buffer == b"abcdef.."
        parts = [bytearray(2), bytearray(6)]
        i = IovIter.iovec(READ, parts)
        assert log.read_into(0, i) == (6, 0, None)
        assert (b"".join(parts), i.count) == (b"abcdef\0\0", 2)
        with pytest.raises(ValueError, match="6 or more"):
            log.read_into(0, i)
        assert i.count == 2
        with pytest.raises(BufferError):
            log.read_into(0, b"123456")


def test_a_closed_log_says_so(path: Path) -> None:
    log = make(path)
    log.append(b"x")
    records = iter(log)
    log.close()
    log.close()
    assert log.closed
    calls = (lambda: log.append(b""), lambda: log.read(0), lambda: log.first, lambda: list(log), lambda: next(records))
    for call in (*calls, log.verify, lambda: log.discard_before(0), log.__enter__):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert repr(log) == f"<PmemLog {str(path)!r} closed>"


def test_a_descriptor_will_do_and_stays_the_callers(path: Path) -> None:
    make(path).close()
    with path.open("r+b") as file:
        with PmemLog.open(file.fileno()) as log:
            log.append(b"by number")
            with pytest.raises(BlockingIOError):
                PmemLog.open(path)
        assert file.read(8) == b"IOVECLOG"


@pytest.mark.parametrize("open_", [PmemLog.open, PmemRegion.open])
def test_a_number_that_is_no_descriptor_is_named(open_: Callable[..., object]) -> None:
    for number in (-1, 1 << 31):
        with pytest.raises(ValueError, match=f"path is {number}: expected a path or a descriptor"):
            open_(number)
    unused = os.open(os.devnull, os.O_RDONLY)
    os.close(unused)
    with pytest.raises(OSError, match=f"path is {unused}: Bad file descriptor") as bad:
        open_(unused)
    assert bad.value.errno == errno.EBADF
    for number in (False, True):
        with pytest.raises(TypeError, match=f"path is {number}: expected a path or a descriptor"):
            open_(number)


def test_data_of_the_wrong_type(path: Path) -> None:
    with make(path) as log:
        for wrong, named in (
            (1, "data: a buffer, an iterable of buffers or an IovIter is expected, not int"),
            ("text", "data: a buffer, an iterable of buffers or an IovIter is expected, not str"),
            ("", "data: a buffer, an iterable of buffers or an IovIter is expected, not str"),
            (None, "data: .* is expected, not NoneType"),
            ([1], r"data\[0\]: a buffer is expected, not int"),
            ([b"x", "y"], r"data\[1\]: a buffer is expected, not str"),
            ([b"x", UserRange(0, 1)], r"data\[1\]: a UserRange is not trusted memory"),
            (UserRange(0, 1), "data: a buffer, an iterable of buffers or an IovIter is expected, not UserRange"),
        ):
            with pytest.raises(TypeError, match=named):
                log.append(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="direction"):
            log.append(IovIter.ubuf(READ, bytearray(4)))
        assert log.last == -1


def test_an_iterator_in_use_is_not_appended(path: Path) -> None:
    with make(path) as log:
        i = IovIter.kvec(READ, [bytearray(4)])
        log.append(b"abcd")

        def step(_view: memoryview, _progress: int) -> None:
            with pytest.raises(RuntimeError):
                log.read_into(0, i)

        i.iterate_and_advance(4, step)
        i.revert(4)
        assert copy_to_iter(b"1234", i) == 4


def test_flush_range_is_called_as_marus() -> None:
    buffer = bytearray(200)
    pmem.flush_range(buffer)
    pmem.flush_range(buffer, 10, -1)
    pmem.flush_range(buffer, 10, 190)
    pmem.flush_range(memoryview(buffer), offset=200, length=0)
    for offset, length in ((10, 191), (201, -1), (0, -2)):
        with pytest.raises(ValueError, match=r"\d"):
            pmem.flush_range(buffer, offset, length)
