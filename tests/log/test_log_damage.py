"""A damaged `PmemLog`: what is damaged is told, and nothing else is; what is no log stays as it is."""

from __future__ import annotations

import errno
import os
import pickle
import struct
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    READ,
    WRITE,
    CorruptError,
    FaultError,
    FaultMap,
    IovIter,
    PmemLog,
    UserRange,
    XArray,
    _badblocks,
)
from iovec_rs.testing import truncated
from support.logs import RING, SIZE, contents, header, make
from support.sums import crc32c, crc64, self_summed

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_read_ends_at_what_is_bad_first_and_counts_from_the_start_of_the_data(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(20_000)
    with make(path) as log:
        log.append(data)
        (place,) = log
    bad = RING + 3 * 4096
    monkeypatch.setattr(_badblocks, "of_descriptor", lambda _fd: FaultMap([(bad, 4096)]))
    with PmemLog.open(path, writable=False) as log, truncated(6, 3) as memory:
        # The data go through a buffer of 8 KiB, and both faults are in the second one.
        room = 9000
        reads: list[tuple[bytearray | IovIter, int, str]] = [
            (bytearray(20_000), bad - place.offset, "source"),
            (IovIter.ubuf(READ, memory.range(3 * 4096 - room)), room, "destination"),
        ]
        for dst, end, side in reads:
            copied, remaining, fault = log.read_into(0, dst)
            assert fault is not None
            assert (copied, remaining, fault.side, fault.offset) == (end, 20_000 - end, side, end)


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


def test_an_interrupted_append_is_not_there_though_older_data_with_the_same_crc32c_are_in_its_place(
    path: Path,
) -> None:
    """The header's line reached the medium, the data's did not: one fence is behind both."""
    with make(path, size=RING + 4096) as log:
        for n in range(32):
            log.append(self_summed(b"entry %054d" % n))
        log.discard_before(1)
        before = path.read_bytes()
        assert log.append(self_summed(b"entry %054d" % 32)) == 32
        after = path.read_bytes()
    path.write_bytes(before[:RING] + after[RING : RING + 64] + before[RING + 64 :])
    with PmemLog.open(path, writable=False) as reader:
        assert reader.last == 31
    with PmemLog.open(path) as log:
        assert log.last == 31
        assert log.recovered == 128
        assert not log.verify()


@pytest.mark.parametrize("length", [0, 1, 64, 1536, 5000, 6144, 6145, 20_000])
def test_a_record_has_both_sums_of_its_data_and_is_read_without_the_second(path: Path, length: int) -> None:
    data = os.urandom(length)
    with make(path) as log:
        log.append(b"before")
        place = log.record(log.append(data))
        log.append(b"after")
    image = path.read_bytes()
    line = image[place.offset - 64 : place.offset]
    (generation,) = struct.unpack_from("<Q", line, 8)

    def with_sums(first: int, second: int) -> bytes:
        where = {"length": length, "position": 128, "previous": 128}
        return header(first, generation, 1, crc64=second, **where)

    def read(line: bytes) -> bytes:
        path.write_bytes(image[: place.offset - 64] + line + image[place.offset :])
        with PmemLog.open(path) as log:
            return log.read(1)

    first, second = crc32c(data), crc64(data) or 1
    assert line == with_sums(first, second)
    assert read(with_sums(first, 0)) == data
    for sums in ((first ^ 1, second), (first, second ^ 2), (first, second ^ 1 << 63), (first ^ 1, 0)):
        with pytest.raises(CorruptError):
            read(with_sums(*sums))


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
