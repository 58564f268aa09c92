"""`PmemLog`: records are found again whole, damage is reported, and refused calls change nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import threading
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    READ,
    WRITE,
    BioVec,
    CorruptError,
    FaultError,
    FaultMap,
    FolioQueue,
    IovIter,
    PmemLog,
    Record,
    UserRange,
    XArray,
    _badblocks,
    copy_to_iter,
    pmem,
)
from iovec_rs.testing import truncated
from support.forks import codes_of_children_beside

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 16


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def make(path: Path, size: int = SIZE) -> PmemLog:
    return PmemLog.open(path, size=size, create=True)


def contents(log: PmemLog) -> dict[int, bytes]:
    return {record.sequence: log.read(record.sequence) for record in log}


def bitwise_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


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
        assert record.crc32c == bitwise_crc32c(b"123456789")
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


def test_damage_is_told_of_the_damaged_record_alone(path: Path) -> None:
    data = {n: os.urandom(500) for n in range(6)}
    with make(path) as log:
        for record in data.values():
            log.append(record)
        places = list(log)
    with path.open("r+b") as file:
        file.seek(places[2].offset + 99)
        file.write(b"!!")
        file.seek(places[4].offset - 64)  # The header.
        file.write(b"?" * 64)
    with PmemLog.open(path) as log:
        assert log.recovered == 0
        for n in (2, 4):
            with pytest.raises(CorruptError) as corrupt:
                log.read(n)
            assert (corrupt.value.sequence, corrupt.value.errno) == (n, errno.EBADMSG)
            copy = pickle.loads(pickle.dumps(corrupt.value))
            assert (copy.sequence, copy.args) == (n, corrupt.value.args)
            i = IovIter.ubuf(READ, bytearray(600))
            with pytest.raises(CorruptError):
                log.read_into(n, i)
            assert i.count == 600
        assert {n: log.read(n) for n in (0, 1, 3, 5)} == {n: data[n] for n in (0, 1, 3, 5)}
        assert [fault.offset for fault in log.verify()] == [places[2].offset, places[4].offset - 64]
        assert [record.sequence for record in log] == [0, 1, 2, 3, 5]


def test_bad_memory_under_a_header_is_a_fault(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make(path) as log:
        for n in range(6):
            log.append(bytes([n]) * 4000)
        places = list(log)
    for bad in (2, 5):
        page = (places[bad].offset - 64) // 4096 * 4096
        # The device lists these sectors as bad.
        monkeypatch.setattr(_badblocks, "of_descriptor", lambda _fd, page=page: FaultMap([(page, 4096)]))
        with PmemLog.open(path, writable=False) as log:
            with pytest.raises(FaultError) as fault:
                log.read(bad)
            assert fault.value.copied == 0
            with pytest.raises(FaultError):
                log.read_into(bad, bytearray(4000))
            assert [found.offset for found in log.verify()] == [page]
            others = set(range(6)) - {bad}
            assert {n: log.read(n) for n in others} == {n: bytes([n]) * 4000 for n in others}


@pytest.mark.parametrize("laps", [0, 3])
@pytest.mark.parametrize("damage", ["a bit of the data", "a bit of the header", "32 bits", "header", "everything"])
def test_the_last_record_of_a_closed_log_is_damaged_not_gone(path: Path, laps: int, damage: str) -> None:
    with make(path) as log:
        for n in range(laps * 40):
            log.append(b"%d" % n * 1000)
            log.discard_before(n)
        good, last = log.append(b"good" * 100), log.append(b"last" * 100)
        place = log.record(last)
    header = place.offset - 64
    # The offset and length of the damage, and the bits that are flipped; None for random bytes. The 32 bits are half of
    # the generation's and half of the sequence's.
    start, length, flip = {
        "a bit of the data": (place.offset + 7, 1, 4),
        "a bit of the header": (header + 17, 1, 4),
        "32 bits": (header + 14, 4, 0xFF),
        "header": (header, 64, None),
        "everything": (header, 64 + 448, None),
    }[damage]
    image = bytearray(path.read_bytes())
    image[start : start + length] = bytes(0 if flip is None else byte ^ flip for byte in image[start : start + length])
    path.write_bytes(image)
    for writable in (False, True, True):
        with PmemLog.open(path, writable=writable) as log:
            assert (log.last, log.recovered, len(log.verify())) == (last, 0, 1)
            assert log.read(good) == b"good" * 100
            with pytest.raises(CorruptError) as corrupt:
                log.read(last)
            assert corrupt.value.sequence == last
            if writable:
                crashed = path.read_bytes()
    path.write_bytes(crashed)
    with PmemLog.open(path) as log, PmemLog.open(path, writable=False) as reader:
        assert log.append(b"next") == last + 1
        assert log.read(last + 1) == reader.read(last + 1) == b"next"
        assert len(log.verify()) == len(reader.verify()) == 1
        log.discard_before(last + 1)
        assert log.verify() == reader.verify() == []


def test_a_torn_tail_is_cut_and_told(path: Path) -> None:
    with make(path) as log:
        log.append(b"good" * 100)
        log.append(b"torn" * 100)
        place = log.record(1)
        image = path.read_bytes()  # The log is not closed, as after a crash.
    for cut in range(place.offset - 64 + 1, place.offset + 400, 7):
        path.write_bytes(image[:cut] + bytes(SIZE - cut))
        with PmemLog.open(path) as log:
            assert (log.last, log.recovered > 0) == (0, True), cut
            assert log.append(b"again") == 1
        with PmemLog.open(path) as log:
            assert contents(log) == {0: b"good" * 100, 1: b"again"}
            assert log.recovered == 0


def test_bad_data_leave_nothing_behind_and_the_log_goes_on(path: Path) -> None:
    with make(path, 1 << 20) as log, truncated(8, 4) as memory:
        log.append(b"before")
        i = IovIter.iovec(WRITE, [b"good", memory])
        sources: list[Any] = [memory, [b"good", memory], i, IovIter.ubuf(WRITE, UserRange(64, 100))]
        for bad in sources:
            before = path.read_bytes()
            with pytest.raises(FaultError) as fault:
                log.append(bad)
            assert fault.value.copied == 0
            assert path.read_bytes() == before
        assert i.count == 4 + 8 * 4096
        hole = IovIter.xarray(WRITE, XArray({0: bytearray(4096)}), 0, 8192)
        with pytest.raises(ValueError, match="hole"):
            log.append(hole)
        assert log.append(b"after") == 1
    with PmemLog.open(path) as log:
        assert contents(log) == {0: b"before", 1: b"after"}
        assert log.recovered == 0


def test_a_log_whose_file_was_cut_does_not_kill(path: Path) -> None:
    with make(path) as log:
        log.append(b"here")
        log.append(bytes(20_000))
        os.truncate(path, 16384)
        assert log.read(0) == b"here"
        with pytest.raises(FaultError) as fault:
            log.read(1)
        assert 0 < fault.value.copied < 20_000
        assert log.read_into(1, bytearray(20_000)).fault is not None
        with pytest.raises(FaultError):
            log.append(b"lost")
        assert len(log.verify()) == 1
    with pytest.raises(OSError, match="16384") as refused:
        PmemLog.open(path)
    assert refused.value.errno == errno.EBADMSG


def test_a_log_that_was_cut_is_never_made_anew(path: Path) -> None:
    with make(path) as log:
        log.append(b"kept")
        unclosed = path.read_bytes()
    for image in (unclosed, path.read_bytes()):
        for length in (1, 7, 8, 63, 64, 100, 4091, 4092, 4095, 4096, 8192, 12287):
            path.write_bytes(image[:length])
            for size in (None, SIZE):
                with pytest.raises((OSError, ValueError)):
                    PmemLog.open(path, size=size, create=True)
                assert path.read_bytes() == image[:length]
    # After it has grown again it looks like a log whose creation was interrupted, but it has been written to twice.
    path.write_bytes(image[:100].ljust(SIZE, b"\0"))
    with pytest.raises(OSError, match="damaged") as refused:
        make(path)
    assert refused.value.errno == errno.EBADMSG


def test_what_is_no_log_is_refused_and_left_as_it_was(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PmemLog.open(path)
    for size in (0, 1, 12287, None):
        with pytest.raises(ValueError, match="size"):
            PmemLog.open(path, size=size, create=True)
        assert not path.exists()
    for content in (b"something else", b"\0" * 20_000 + b"x", b"IOVECLOG" + b"\xff" * 5000):
        path.write_bytes(content)
        for create in (False, True):
            with pytest.raises((ValueError, OSError)):
                PmemLog.open(path, size=SIZE if create else None, create=create)
            assert path.read_bytes() == content
    path.write_bytes(bytes(SIZE))
    with pytest.raises(ValueError, match="without a log"):
        PmemLog.open(path)
    with PmemLog.open(path, create=True) as log:
        log.append(b"zeroes are a new file")
    for size in (SIZE - 1, SIZE + 4096):
        with pytest.raises(ValueError, match=f"{SIZE}, which the log"):
            PmemLog.open(path, size=size, create=True)
    with PmemLog.open(path, size=SIZE, create=True) as log:
        assert log.last == 0


def test_one_writer_and_readers_that_follow(path: Path) -> None:
    with make(path) as log, PmemLog.open(path, writable=False) as reader:
        for opening in (PmemLog.open, lambda path: PmemLog.open(path, size=SIZE, create=True)):
            with pytest.raises(BlockingIOError):
                opening(path)
        for n in range(400):
            log.append(b"%d" % n * 100)
            assert reader.read(n) == log.read(n)
            if log.free < 1000:
                log.discard_before(n)
        assert (reader.first, reader.last, list(reader)) == (log.first, log.last, list(log))
        with pytest.raises(IndexError):
            reader.read(0)
        for change in (lambda: reader.append(b"x"), lambda: reader.discard_before(399)):
            with pytest.raises(BufferError):
                change()
    with PmemLog.open(path):
        pass


def test_a_forked_child_is_no_writer_and_keeps_nobody_out(path: Path) -> None:
    log = make(path)
    log.append(b"parent")
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        verdict = b"?"
        try:
            refused = 0
            for attempt in (lambda: log.append(b"child"), lambda: log.discard_before(1), lambda: PmemLog.open(path)):
                try:
                    attempt()
                except BlockingIOError:
                    refused += 1
            verdict = b"%d" % refused if log.read(0) == b"parent" else b"!"
        finally:
            os.write(ready[1], verdict)
            os.read(done[0], 1)  # The child lives on while the parent closes its log.
            os._exit(0)
    assert os.read(ready[0], 1) == b"3"
    log.close()
    with PmemLog.open(path) as again:
        assert again.append(b"a new writer") == 1
    os.write(done[1], b".")
    os.waitpid(child, 0)


def test_a_child_forked_in_the_middle_of_an_append_neither_waits_nor_takes_what_it_reads_for_damage(path: Path) -> None:
    log = make(path, 8 << 20)
    text = b"a record of a thread of the parent's " * 5000

    def append() -> None:
        log.append(text)
        log.discard_before(log.last)

    def child() -> int:
        # In the child the log's lock may be held by a thread that exists in the parent only, and its record may be
        # gone.
        with contextlib.suppress(BlockingIOError, IndexError):
            assert log.read(log.last) == text
        with pytest.raises(BlockingIOError):
            log.append(b"child")
        log.close()
        return 0 if log.closed else 1

    codes = codes_of_children_beside(append, child)
    log.close()
    assert codes == [0] * 30


def test_threads_append_whole_records_each_with_a_number_of_its_own(path: Path) -> None:
    with make(path, 8 << 20) as log:
        numbers: dict[int, bytes] = {}

        def work(seed: int) -> None:
            for n in range(40):
                data = bytes([seed]) * (n * 317)
                numbers[log.append(data)] = data

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(numbers) == list(range(160))
        assert contents(log) == numbers


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


def test_data_of_the_wrong_type(path: Path) -> None:
    with make(path) as log:
        for wrong in (1, "text", None, [1], [b"x", "y"]):
            with pytest.raises(TypeError):
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
