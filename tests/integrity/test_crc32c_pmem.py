"""`PmemRegion` sums what is written to it and read from it, at every granularity."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    IovIter,
    crc32c_and_copy_from_iter_flushcache,
    crc32c_and_memcpy_flushcache,
)
from iovec_rs.pmem import PmemRegion
from support import sums

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 1 << 20
DATA = bytes(i * 31 % 249 for i in range(SIZE))


@pytest.fixture(params=["a disk", "/dev/shm"])
def region(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PmemRegion]:
    path = (tmp_path if request.param == "a disk" else Path(request.param)) / f"crc32c-{os.getpid()}"
    yield PmemRegion.open(path, size=SIZE, create=True)
    path.unlink()


@pytest.mark.parametrize("length", [0, 1, 64, 8192, 300_000, SIZE])
def test_written_and_read_with_one_sum(region: PmemRegion, length: int) -> None:
    data, crc = DATA[:length], sums.crc32c(DATA[:length], 9)
    assert region.write_crc32c(SIZE - length, data, 9) == (length, crc)
    i = IovIter.iovec(WRITE, [data[: length // 3], data[length // 3 :]])
    assert region.write_crc32c(SIZE - length, i, 9) == (length, crc)
    assert i.count == 0
    back = bytearray(length)
    result, found = region.read_into_crc32c(SIZE - length, back, 9)
    assert (result.copied, result.fault, found, bytes(back)) == (length, None, crc, data)
    half = length // 2
    i = IovIter.kvec(READ, [memoryview(back)[:half], memoryview(back)[half:]])
    back[:] = bytes(length)
    result, found = region.read_into_crc32c(SIZE - length, i, 9)
    assert (result.copied, result.fault, found, bytes(back), i.count) == (length, None, crc, data, 0)


def test_what_is_refused_changes_nothing(region: PmemRegion) -> None:
    with pytest.raises(ValueError, match="offset 1 and length"):
        region.write_crc32c(1, DATA)
    with pytest.raises(ValueError, match="crc is 4294967296"):
        region.write_crc32c(0, DATA, 1 << 32)
    assert bytes(memoryview(region)[:SIZE]) == bytes(SIZE)


@pytest.mark.parametrize("end", [3 * PAGE_SIZE, 3 * PAGE_SIZE + 100])
def test_the_sum_is_of_what_a_file_that_was_cut_still_holds(tmp_path: Path, end: int) -> None:
    """In the page in which the file ends, stores behind the end are lost and loads give zeroes, without a fault. The
    sum includes neither.
    """
    path = tmp_path / "region"
    region = PmemRegion.open(path, size=SIZE, create=True)
    region.write(0, DATA)
    os.truncate(path, end)
    back = bytearray(SIZE)
    result, crc = region.read_into_crc32c(0, back)
    assert (result.copied, crc) == (end, sums.crc32c(DATA[:end]))
    assert result.fault is not None
    assert (result.fault.cause, result.fault.offset) == ("gone", end)
    i = IovIter.kvec(READ, [memoryview(back)[:1000], memoryview(back)[1000:]])
    result, crc = region.read_into_crc32c(0, i)
    assert (result.copied, crc, i.count) == (end, sums.crc32c(DATA[:end]), SIZE - end)
    other = bytes(reversed(DATA))
    with pytest.raises(FaultError) as caught:
        region.write_crc32c(0, other, 3)
    assert (caught.value.copied, caught.value.crc32c) == (end, sums.crc32c(other[:end], 3))
    source = IovIter.kvec(WRITE, [other[:5000], other[5000:]])
    with pytest.raises(FaultError) as caught:
        region.write_crc32c(0, source, 3)
    assert (caught.value.copied, caught.value.crc32c) == (end, sums.crc32c(other[:end], 3))
    assert source.count == SIZE - end
    view = memoryview(region)
    copied, crc = crc32c_and_copy_from_iter_flushcache(view, i := IovIter.ubuf(WRITE, other), crc=4)
    assert (copied, crc, i.count) == (end, sums.crc32c(other[:end], 4), SIZE - end)
    assert i.fault is not None
    assert (i.fault.cause, i.fault.offset) == ("gone", end)
    flat, crc = crc32c_and_memcpy_flushcache(view, other, 4)
    assert (flat.copied, crc) == (end, sums.crc32c(other[:end], 4))
