"""Every kind of exporter, as the source and as the destination of what sums, appends and publishes."""

from __future__ import annotations

import array
import ctypes
import mmap
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from iovec_rs import (
    READ,
    WRITE,
    FaultMap,
    FaultRange,
    IovIter,
    McResult,
    PmemLog,
    SafeMap,
    Slot,
    copy_ranges,
    crc32c,
    crc32c_and_copy_from_iter,
    crc32c_and_copy_from_iter_flushcache,
    crc32c_and_copy_to_iter,
    crc32c_and_copy_to_iter_mcsafe,
    crc32c_and_memcpy_flushcache,
    crc32c_and_memcpy_mcsafe,
    pmem,
)
from support import sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = np.random.default_rng(1).bytes(192)
OTHER = bytes(reversed(DATA))


class Structure(ctypes.Structure):
    _fields_ = (("first", ctypes.c_uint64 * 20), ("second", ctypes.c_uint32 * 8))


def mapped() -> mmap.mmap:
    mapping = mmap.mmap(-1, len(DATA))
    mapping[:] = DATA
    return mapping


CONTIGUOUS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(DATA),
    "mmap": mapped,
    "array of doubles": lambda: array.array("d", DATA),
    "memoryview of shorts": lambda: memoryview(bytearray(DATA)).cast("h"),
    "memoryview of three dimensions": lambda: memoryview(bytearray(DATA)).cast("B", (4, 6, 8)),
    "part of a memoryview": lambda: memoryview(bytearray(b"<" + DATA + b">"))[1:-1],
    "big endian": lambda: np.frombuffer(bytearray(DATA), ">u4"),
    "complex": lambda: np.frombuffer(bytearray(DATA), "c16"),
    "records": lambda: np.frombuffer(bytearray(DATA), [("a", "u1"), ("b", "<f8"), ("c", "S7")]),
    "rows of one, any strides": lambda: np.frombuffer(bytearray(DATA), "u1").reshape(192, 1)[:, ::-1],
    "ctypes array": lambda: (ctypes.c_short * 96).from_buffer_copy(DATA),
    "ctypes structure": lambda: Structure.from_buffer_copy(DATA),
    "pickle buffer": lambda: pickle.PickleBuffer(bytearray(DATA)),
}
READ_ONLY: dict[str, Callable[[], Any]] = {
    "bytes": lambda: bytes(DATA),
    "bytes of a subclass": lambda: type("Bytes", (bytes,), {})(DATA),
    "read-only memoryview": lambda: memoryview(bytearray(DATA)).toreadonly(),
    "read-only array": lambda: np.frombuffer(DATA, "u2"),
}
STRIDED: dict[str, Callable[[], Any]] = {
    "every second": lambda: np.arange(10, dtype="u1")[::2],
    "backwards": lambda: memoryview(bytearray(10))[::-1],
    "columns first": lambda: np.asfortranarray(np.arange(12, dtype="u1").reshape(3, 4)),
    "broadcast": lambda: np.broadcast_to(np.arange(3, dtype="u1"), (4, 3)),
}


class Ground:
    """A region, a log and a slot."""

    def __init__(self, folder: Path) -> None:
        self.region = pmem.PmemRegion.open(folder / "region", size=4096, create=True)
        self.log = PmemLog.open(folder / "log", size=1 << 16, create=True)
        self.slot = Slot(bytearray(Slot.size_for(1024)), 0, 1024)

    def read(self, source: Any) -> Iterator[bytes]:
        """Reads all of a source by each function. Yields what was read; checks results and sums."""
        length, crc, whole = len(DATA), sums.crc32c(DATA), McResult(len(DATA), 0, None)
        assert crc32c(source) == crc32c(IovIter.kvec(WRITE, [source])) == crc
        for to_iter in (crc32c_and_copy_to_iter, crc32c_and_copy_to_iter_mcsafe):
            out = bytearray(length)
            assert to_iter(source, IovIter.ubuf(READ, out)) == (length, crc)
            yield bytes(out)
        for memcpy in (crc32c_and_memcpy_mcsafe, crc32c_and_memcpy_flushcache):
            out = bytearray(length)
            assert memcpy(out, source) == (whole, crc)
            yield bytes(out)
        out = bytearray(length)
        assert copy_ranges([out], [source], crc32c=True).crc32c == [crc]
        yield bytes(out)
        assert self.region.write_crc32c(64, source) == (length, crc)
        yield bytes(memoryview(self.region)[64 : 64 + length])
        yield self.log.read(self.log.append(source))
        self.slot.publish(source)
        out = bytearray(length)
        assert self.slot.consume(out)[0] == length
        yield bytes(out)

    def writers(self, target: Any) -> list[Callable[[], object]]:
        """Calls that each write OTHER to all of a target."""
        self.region.write(0, OTHER)
        number = self.log.append(OTHER)
        self.slot.publish(OTHER)
        return [
            lambda: crc32c_and_copy_from_iter(target, IovIter.ubuf(WRITE, OTHER)),
            lambda: crc32c_and_copy_from_iter_flushcache(target, IovIter.ubuf(WRITE, OTHER)),
            lambda: crc32c_and_memcpy_mcsafe(target, OTHER),
            lambda: crc32c_and_memcpy_flushcache(target, OTHER),
            lambda: copy_ranges([target], [OTHER]),
            lambda: self.region.read_into_crc32c(0, target),
            lambda: self.log.read_into(number, target),
            lambda: self.slot.consume(target),
        ]


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    ground.log.close()
    ground.region.close()


@pytest.mark.parametrize("name", CONTIGUOUS | READ_ONLY)
def test_contiguous_memory_is_read_as_its_bytes(name: str, ground: Ground) -> None:
    source = (CONTIGUOUS | READ_ONLY)[name]()
    found = list(ground.read(source))
    assert found == [DATA] * 8
    pmem.flush_range(source)
    bad = FaultMap()
    bad.poison(source, 3, 4)
    assert bad.within(source) == [FaultRange(3, 4, "read")]


@pytest.mark.parametrize("name", CONTIGUOUS)
def test_contiguous_memory_is_written_to(name: str, ground: Ground) -> None:
    for number in range(8):
        target = CONTIGUOUS[name]()
        ground.writers(target)[number]()
        assert memoryview(target).tobytes() == OTHER, number


@pytest.mark.parametrize("name", READ_ONLY)
def test_read_only_memory_is_refused_as_a_destination(name: str, ground: Ground) -> None:
    target = READ_ONLY[name]()
    for call in ground.writers(target):
        with pytest.raises(BufferError, match="read-only memory cannot be a destination"):
            call()
    assert memoryview(target).tobytes() == DATA


@pytest.mark.parametrize("name", STRIDED)
def test_strided_memory_is_refused_by_the_name_of_its_argument(name: str, ground: Ground) -> None:
    strided = STRIDED[name]()
    for call in (
        lambda: crc32c(strided),
        lambda: ground.log.append(strided),
        lambda: ground.log.append([b"fine", strided]),
        lambda: ground.slot.publish(strided),
        lambda: Slot(strided),
        lambda: pmem.flush_range(strided),
        lambda: ground.region.write_crc32c(0, strided),
        lambda: crc32c_and_copy_to_iter(strided, IovIter.ubuf(READ, bytearray(192))),
        lambda: copy_ranges([bytearray(192)], [strided]),
        *ground.writers(strided),
    ):
        with pytest.raises(BufferError, match=r"^(data|data\[1\]|region|buffer|addr|dst|dst\[0\]|src\[0\]): "):
            call()
    assert ground.log.last == 0


def test_regions_and_safe_maps_are_memory_too(ground: Ground, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with SafeMap.open(tmp_path / "file", "r+") as source:
        assert list(ground.read(source)) == [DATA] * 8
        for call in ground.writers(source):
            source.write(0, DATA)
            call()
            assert source.read(0, len(DATA)) == OTHER
    with pmem.PmemRegion.open(tmp_path / "file") as source:
        source.write(0, DATA)
        assert list(ground.read(source)) == [DATA] * 8
        for call in ground.writers(source):
            source.write(0, DATA)
            call()
            assert bytes(source) == OTHER
