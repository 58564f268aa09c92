"""Regions in forked children: whatever other threads do, a child writes through its own open file description."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PAGE_SIZE, memcpy_flushcache, pmem
from iovec_rs.pmem import PmemRegion
from support import places
from support.places import dirty
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 120
"""Seconds after which a child that waits for a lock for ever is killed."""


@pytest.fixture
def directory() -> Iterator[Path]:
    with places.on_disk() as directory:
        yield directory


def in_child(work: Callable[[], None]) -> int:
    """Runs the work in a forked child. Returns its exit code: 0 if nothing was raised."""
    child = os.fork()
    if not child:
        signal.alarm(PATIENCE)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def test_children_of_busy_threads_write_and_open_regions(directory: Path) -> None:
    region = PmemRegion.open(directory / "file", size=8 * PAGE_SIZE, create=True)
    stop = threading.Event()

    def write(page: int) -> None:
        while not stop.is_set():
            region.write(page * PAGE_SIZE, b"t" * PAGE_SIZE)

    def reopen() -> None:
        while not stop.is_set():
            PmemRegion.open(directory / "other", size=PAGE_SIZE, create=True).close()

    def child() -> None:
        assert region.write(7 * PAGE_SIZE, b"child") == 5
        with memoryview(region) as view:
            pmem.persist(view[:PAGE_SIZE])
            assert memcpy_flushcache(view[7 * PAGE_SIZE : 8 * PAGE_SIZE], bytes(PAGE_SIZE)).remaining == 0
        with PmemRegion.open(directory / "new", size=PAGE_SIZE, create=True) as new:
            assert new.write(0, b"new") == 3
        # A grandchild inherits the description of this child.
        assert in_child(region.deep_flush) == 0

    threads = [threading.Thread(target=write, args=(page,)) for page in range(2)]
    threads.append(threading.Thread(target=reopen))
    for thread in threads:
        thread.start()
    try:
        assert [in_child(child) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert region.write(0, b"parent") == 6
    region.close()


def test_threads_of_a_child_open_the_file_once(directory: Path) -> None:
    region = PmemRegion.open(directory / "file", size=8 * PAGE_SIZE, create=True)

    def child() -> None:
        before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        threads = [threading.Thread(target=region.write, args=(n * PAGE_SIZE, b"x" * PAGE_SIZE)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bytes(region) == b"x" * 8 * PAGE_SIZE
        assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
        assert dirty(region) == 0

    assert in_child(child) == 0
    assert bytes(region) == b"x" * 8 * PAGE_SIZE
    region.close()


def test_a_child_reopens_deleted_and_read_only_files(directory: Path) -> None:
    path = directory / "file"
    region = PmemRegion.open(path, size=PAGE_SIZE, create=True)
    reader = PmemRegion.open(path, writable=False)
    path.rename(directory / "elsewhere")
    (directory / "elsewhere").unlink()

    def child() -> None:
        assert region.write(0, b"nameless") == 8
        reader.persist()
        reader.deep_flush()
        assert bytes(memoryview(reader)[:8]) == b"nameless"

    assert in_child(child) == 0
    region.close()
    reader.close()


def test_a_child_without_descriptors_is_refused_until_it_has_one(directory: Path) -> None:
    region = PmemRegion.open(directory / "file", size=PAGE_SIZE, create=True)

    def child() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        for _ in range(2):
            with os_error(errno.EMFILE) as caught:
                region.write(0, b"x")
            assert "opened again" in str(caught.value)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert region.write(0, b"x") == 1

    assert in_child(child) == 0
    region.close()
