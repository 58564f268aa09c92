"""Full disks, and disks that lose written bytes: an exception at the call, and never a later fault."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PAGE_SIZE, WRITE, IovIter
from iovec_rs.pmem import PmemRegion
from support import places
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_mount = pytest.mark.skipif(not places.can_mount(), reason="takes mounting file systems of our own")
MIB = 1 << 20


@pytest.fixture
def narrow() -> Iterator[int]:
    """No file may grow beyond a MiB, which simulates a full disk without privileges."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, before[1]))
    try:
        yield errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def check_a_full_disk(directory: Path, number: int) -> None:
    """A tmpfs with room for less than 2 MiB."""
    new, short, sparse = directory / "new", directory / "short", directory / "sparse"
    with os_error(number) as caught:
        PmemRegion.open(new, size=2 * MIB, create=True)
    assert f"no room for {2 * MIB} bytes from offset 0" in str(caught.value)
    assert caught.value.filename == str(new)
    assert not new.exists()

    short.write_bytes(b"short")
    with os_error(number):
        PmemRegion.open(short, size=2 * MIB, offset=PAGE_SIZE, create=True)
    assert short.read_bytes() == b"short"
    with PmemRegion.open(short, size=3 * PAGE_SIZE, create=True) as region:
        assert region.write(5, b" of room") == 8
    assert short.stat().st_size == 3 * PAGE_SIZE
    short.unlink()

    if number == errno.ENOSPC:
        sparse.touch()
        os.truncate(sparse, 4 * MIB)
        with os_error(number):
            PmemRegion.open(sparse)
        assert sparse.stat().st_size == 4 * MIB
        assert not any(sparse.read_bytes())
        # A size that cannot fit has not used up the free space.
        assert sparse.stat().st_blocks == 0
        with PmemRegion.open(sparse, offset=3 * MIB, size=PAGE_SIZE) as region:
            assert region.write(0, b"room") == 4
        with PmemRegion.open(sparse, writable=False) as region:
            assert bytes(memoryview(region)[3 * MIB :][:4]) == b"room"


def test_a_file_that_may_not_grow(tmp_path: Path, narrow: int) -> None:
    check_a_full_disk(tmp_path, narrow)


@needs_mount
def test_a_full_tmpfs(tmp_path: Path) -> None:
    with places.mounted("tmpfs", "none", tmp_path / "small", "size=1m") as small:
        check_a_full_disk(small, errno.ENOSPC)


@needs_mount
def test_a_full_disk(tmp_path: Path) -> None:
    with places.failing_disk(tmp_path, str(16 * MIB), "32m") as disk:
        filler = disk / "filler"
        free = os.statvfs(disk).f_bavail * PAGE_SIZE
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - MIB)
        check_a_full_disk(disk, errno.ENOSPC)


@needs_mount
def test_a_read_only_file_system_can_be_read(tmp_path: Path) -> None:
    with places.mounted("tmpfs", "none", tmp_path / "place", "size=1m") as place:
        (place / "file").write_bytes(b"content")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        with os_error(errno.EROFS):
            PmemRegion.open(place / "file")
        with os_error(errno.EROFS):
            PmemRegion.open(place / "new", size=5, create=True)
        with PmemRegion.open(place / "file", writable=False) as region:
            assert bytes(region) == b"content"


@needs_mount
@pytest.mark.parametrize("kind", ["buffer", "ubuf", "kvec", "bvec"])
def test_bytes_that_the_disk_does_not_store_are_not_counted(tmp_path: Path, kind: str) -> None:
    """The file's blocks are allocated, but the disk below it, a sparse file, has no room for them."""
    size = 24 * MIB
    data = random.Random(8).randbytes(size)
    with places.failing_disk(tmp_path, str(64 * MIB), "8m") as disk:
        region = PmemRegion.open(disk / "file", size=size, create=True)
        i = {
            "ubuf": lambda: IovIter.ubuf(WRITE, data),
            "kvec": lambda: IovIter.kvec(WRITE, [data[:5], data[5:]]),
            "bvec": lambda: IovIter.bvec(WRITE, [(data, 0, size)]),
        }.get(kind, lambda: None)()
        before = None if i is None else (i.count, i.iov_offset, i.nr_segs)
        with pytest.raises(OSError, match=f"msync of {size} bytes") as caught:
            region.write(0, data if i is None else i)
        assert caught.value.errno in (errno.EIO, errno.ENOSPC)
        assert not hasattr(caught.value, "copied")
        if i is not None:
            assert (i.count, i.iov_offset, i.nr_segs) == before
        region.close()
