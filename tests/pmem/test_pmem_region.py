"""The life of a region: the bytes it maps, its views, opening, creating and closing."""

from __future__ import annotations

import gc
import mmap
import multiprocessing
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, copy_from_iter, copy_to_iter, pmem
from iovec_rs._core import RegionFile
from iovec_rs.pmem import PmemRegion
from support import places
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = random.Random(1).randbytes(3 * PAGE_SIZE + 77)


@pytest.fixture(params=[places.on_disk, places.in_memory])
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on a disk, and one on tmpfs."""
    with request.param() as path:
        yield path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    return path


def test_written_bytes_are_there_after_closing_and_reopening(directory: Path) -> None:
    path = directory / "new"
    with PmemRegion.open(path, size=len(DATA), create=True) as region:
        assert len(region) == len(DATA)
        assert bytes(region) == bytes(len(DATA))
        assert region.write(0, DATA) == len(DATA)
        assert region.write(10, b"again") == 5
    assert region.closed
    expected = DATA[:10] + b"again" + DATA[15:]
    assert path.read_bytes() == expected
    with PmemRegion.open(path) as region:
        assert bytes(region) == expected


def test_it_is_made_by_open_alone(file: Path) -> None:
    for arguments in ((), (file,), (str(file), 1 << 16)):
        with pytest.raises(TypeError, match=r"PmemRegion cannot be called: PmemRegion\.open\(path\) opens a file"):
            PmemRegion(*arguments)


def test_its_properties(file: Path) -> None:
    region = PmemRegion.open(file, size=100, offset=PAGE_SIZE)
    assert (region.path, region.size, region.offset) == (str(file), 100, PAGE_SIZE)
    assert (region.granularity, region.is_map_sync, region.writable, region.closed) == ("page", False, True, False)
    assert repr(region) == f"<PmemRegion '{file}' size=100 offset=4096 granularity=page>"
    assert len(region.fault_map) == 0
    region.close()
    assert repr(region) == f"<PmemRegion '{file}' closed>"
    assert (region.path, region.size, region.offset, region.granularity) == (str(file), 100, PAGE_SIZE, "page")
    assert "read-only" in repr(PmemRegion.open(file, writable=False))


@pytest.mark.parametrize("spell", [str, os.fsencode, Path])
def test_a_path_may_be_a_string_bytes_or_a_path_object(file: Path, spell: Callable[[Path], Any]) -> None:
    assert PmemRegion.open(spell(file)).path == str(file)


def test_a_path_may_be_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/\xff\xfe"
    with PmemRegion.open(name, size=5, create=True) as region:
        assert os.fsencode(region.path) == name
        region.write(0, b"bytes")
    with open(name, "rb") as file:  # noqa: PTH123
        assert file.read() == b"bytes"


def test_a_part_of_a_file_maps_exactly_that_part(file: Path) -> None:
    with PmemRegion.open(file, size=PAGE_SIZE + 5, offset=PAGE_SIZE) as region:
        assert bytes(region) == DATA[PAGE_SIZE : 2 * PAGE_SIZE + 5]
        region.write(0, bytes(PAGE_SIZE + 5))
    assert file.read_bytes() == DATA[:PAGE_SIZE] + bytes(PAGE_SIZE + 5) + DATA[2 * PAGE_SIZE + 5 :]
    with PmemRegion.open(file, offset=3 * PAGE_SIZE) as region:
        assert bytes(region) == DATA[3 * PAGE_SIZE :]


def test_an_anonymous_file_is_opened_through_its_descriptor() -> None:
    fd = os.memfd_create("region")
    try:
        os.ftruncate(fd, 2 * PAGE_SIZE)
        for name in (f"/proc/self/fd/{fd}", fd):
            os.pwrite(fd, bytes(2 * PAGE_SIZE), 0)
            with PmemRegion.open(name) as region:
                assert region.write(PAGE_SIZE - 2, b"over") == 4
            assert os.pread(fd, 6, PAGE_SIZE - 3) == b"\0over\0"
    finally:
        os.close(fd)


def test_a_region_outlives_the_descriptor_that_it_was_opened_by(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    region = PmemRegion.open(fd)
    os.close(fd)
    with region:
        child = os.fork()
        if child == 0:
            os._exit(int(region.write(0, b"child") != 5))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        region.write(5, b"parent")
    assert file.read_bytes()[:11] == b"childparent"


def test_every_consumer_of_buffers_reads_the_file(file: Path) -> None:
    region = PmemRegion.open(file)
    view = memoryview(region)
    assert (view.nbytes, view.itemsize, view.format, view.readonly, view.obj) == (len(DATA), 1, "B", False, region)
    view[3] = 255
    numbers = places.array(region, "<u4", PAGE_SIZE // 4)
    numbers[1] = 0x01020304
    out = bytearray(16)
    assert copy_from_iter(out, IovIter.ubuf(WRITE, region, 16)) == 16
    assert out == DATA[:3] + b"\xff\x04\x03\x02\x01" + DATA[8:16]
    assert copy_to_iter(b"kernel", IovIter.bvec(READ, [(region, 100, 6)])) == 6
    assert file.read_bytes()[100:106] == b"kernel"


def test_a_read_only_region_can_only_be_read(file: Path) -> None:
    region = PmemRegion.open(file, writable=False)
    view = memoryview(region)
    assert view.readonly
    with pytest.raises(TypeError, match="read-only"):
        view[0] = 1
    with pytest.raises(BufferError, match="read-only"):
        IovIter.ubuf(READ, region)
    with pytest.raises(BufferError, match="read-only"):
        region.write(0, b"x")
    region.persist()
    assert file.read_bytes() == DATA


def test_closing_is_refused_while_it_is_in_use(file: Path) -> None:
    region = PmemRegion.open(file)
    held: list[Any] = [memoryview(region), places.array(region), IovIter.ubuf(READ, region)]
    held.append(held[2].dup())
    while held:
        with pytest.raises(BufferError, match=r"in use: views, iterators and slots over it: [1-3], running calls: 0"):
            region.close()
        assert not region.closed
        held.pop(0)
    region.close()
    region.close()
    assert region.closed


def test_a_with_block_that_leaves_a_view_behind_raises(file: Path) -> None:
    region = PmemRegion.open(file)
    with pytest.raises(BufferError, match="in use"), region:
        view = memoryview(region)
    assert view[:4] == DATA[:4]


def test_a_with_block_that_cannot_close_keeps_the_exception_of_the_block(file: Path) -> None:
    region = PmemRegion.open(file)
    view = memoryview(region)
    with pytest.raises(ZeroDivisionError) as raised, region:
        1 / 0  # noqa: B018
    (note,) = raised.value.__notes__
    assert str(file) in note
    assert "stays open: the region is in use" in note
    assert view[:4] == DATA[:4]
    view.release()
    region.close()


def test_views_keep_an_unreferenced_region_mapped(file: Path) -> None:
    view = memoryview(PmemRegion.open(file))
    gc.collect()
    assert view == DATA
    mapped = f"{places.address(view):x}-"
    assert mapped in Path("/proc/self/maps").read_text(encoding="utf-8")
    view.release()
    gc.collect()
    assert mapped not in Path("/proc/self/maps").read_text(encoding="utf-8")


CALLS: dict[str, Callable[[PmemRegion], object]] = {
    "len": len,
    "memoryview": memoryview,
    "bytes": lambda region: IovIter.ubuf(WRITE, region),
    "fault_map": lambda region: region.fault_map,
    "refresh_badblocks": lambda region: region.refresh_badblocks(),
    "write": lambda region: region.write(0, b""),
    "read_into": lambda region: region.read_into(0, bytearray()),
    "persist": lambda region: region.persist(),
    "deep_flush": lambda region: region.deep_flush(),
    "with": lambda region: region.__enter__(),
    "pmem.flush": pmem.flush,
    "pmem.invalidate": pmem.invalidate,
    "pmem.persist": pmem.persist,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_closed_region_is_refused(file: Path, call: Callable[[PmemRegion], object]) -> None:
    region = PmemRegion.open(file)
    call(region)
    gc.collect()
    region.close()
    with pytest.raises(ValueError, match="closed"):
        call(region)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size is 0: expected 1 or more"),
        ({"size": -1}, "size is -1"),
        ({"offset": -PAGE_SIZE}, "offset is -4096"),
        ({"offset": 1}, "offset is 1: expected a multiple of 4096"),
        ({"size": len(DATA) + 1}, f"size is {len(DATA) + 1}: expected at most {len(DATA)} of {len(DATA)} bytes"),
        ({"size": 2 * PAGE_SIZE, "offset": 2 * PAGE_SIZE}, r"size is 8192: expected at most 4173 of 12365 bytes"),
        ({"offset": 4 * PAGE_SIZE}, "offset is 16384: expected less than the 12365 bytes"),
        ({"size": 2**63, "create": True}, "less than 2\\*\\*63"),
        ({"size": 2**64 - 1, "create": True, "offset": PAGE_SIZE}, "less than 2\\*\\*63"),
        ({"size": 1, "create": True, "offset": 2**64 - PAGE_SIZE}, "less than 2\\*\\*63"),
        ({"size": 2**64}, r"size is .*: expected 0 or more, less than 2\*\*64"),
        ({"create": True, "writable": False}, "create is True: expected False"),
    ],
)
def test_sizes_and_offsets_outside_the_file_are_refused(file: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PmemRegion.open(file, **arguments)
    assert file.read_bytes() == DATA


def test_an_empty_file_needs_a_size(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    with pytest.raises(ValueError, match="size is None: expected a number of bytes: the file is empty"):
        PmemRegion.open(path)
    with PmemRegion.open(path, size=1, create=True) as region:
        assert len(region) == 1


@pytest.mark.parametrize("arguments", [{}, {"size": 0}, {"size": 10, "offset": 1}, {"size": 2**63}])
def test_a_refused_opening_creates_no_file(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"size|offset"):
        PmemRegion.open(tmp_path / "new", create=True, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_other_file_types_are_refused_by_name(tmp_path: Path) -> None:
    fifo, listening = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(listening))
        for path, error, message in (
            (tmp_path, IsADirectoryError, "directory"),
            (fifo, OSError, "FIFO"),
            (listening, OSError, "socket"),
            (Path("/dev/null"), OSError, "1:3 is not device DAX"),
            (tmp_path / "nowhere", FileNotFoundError, "No such file"),
            (tmp_path / "nowhere" / "file", FileNotFoundError, "No such file"),
        ):
            for writable in (False, True):
                with pytest.raises(error, match=message) as caught:
                    PmemRegion.open(path, writable=writable)
                assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError):
        PmemRegion.open(tmp_path / "nowhere" / "file", size=1, create=True)
    with pytest.raises(ValueError, match="null byte"):
        PmemRegion.open(str(tmp_path) + "\0")
    with pytest.raises(TypeError):
        PmemRegion.open(1.5)  # type: ignore[arg-type]


def test_a_file_that_cannot_be_written_can_be_opened_for_reading(tmp_path: Path) -> None:
    """The file of a running program cannot be written, not even by root."""
    program = tmp_path / "program"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    child = os.posix_spawn(program, ["sleep", "60"], {})
    try:
        with os_error(26):
            PmemRegion.open(program)
        with PmemRegion.open(program, writable=False) as region:
            assert bytes(region) == program.read_bytes()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_opening_extends_a_file_and_never_shortens_it(file: Path) -> None:
    with PmemRegion.open(file, size=100, create=True) as region:
        assert bytes(region) == DATA[:100]
    assert file.read_bytes() == DATA
    with PmemRegion.open(file, size=PAGE_SIZE, offset=4 * PAGE_SIZE, create=True) as region:
        region.write(0, b"end")
    assert file.stat().st_size == 5 * PAGE_SIZE
    assert file.read_bytes() == (DATA + bytes(4 * PAGE_SIZE - len(DATA)) + b"end").ljust(5 * PAGE_SIZE, b"\0")


def test_holes_are_allocated_only_in_the_writable_part(directory: Path) -> None:
    path = directory / "sparse"
    path.touch()
    os.truncate(path, 64 * PAGE_SIZE)
    before = path.stat().st_blocks
    PmemRegion.open(path, writable=False).close()
    assert path.stat().st_blocks == before
    PmemRegion.open(path, offset=16 * PAGE_SIZE, size=8 * PAGE_SIZE).close()
    blocks = (path.stat().st_blocks - before) * 512
    assert 8 * PAGE_SIZE <= blocks < 16 * PAGE_SIZE
    assert path.stat().st_size == 64 * PAGE_SIZE


def test_two_regions_of_one_file_share_their_bytes(file: Path) -> None:
    with PmemRegion.open(file) as one, PmemRegion.open(file, writable=False) as other:
        one.write(5, b"shared")
        assert bytes(other)[5:11] == b"shared"
        with file.open("rb") as plain, mmap.mmap(plain.fileno(), 0, prot=mmap.PROT_READ) as third:
            assert third[5:11] == b"shared"


def test_closing_during_a_write_is_refused_or_comes_after_it(tmp_path: Path) -> None:
    """While another thread writes, closing is refused or happens after the write."""
    data = random.Random(2).randbytes(1 << 20) * 16
    for _ in range(3):
        path = tmp_path / "file"
        region = PmemRegion.open(path, size=len(data), create=True)
        written: list[int] = []
        refused: list[bool] = []

        def write(region: PmemRegion = region, written: list[int] = written, refused: list[bool] = refused) -> None:
            try:
                written.append(region.write(0, data))
            except ValueError:
                refused.append(True)

        writer = threading.Thread(target=write)
        writer.start()
        while not region.closed:
            try:
                region.close()
            except BufferError as error:
                assert "running calls: 1" in str(error)  # noqa: PT017
        writer.join()
        assert (written, refused) in (([len(data)], []), ([], [True]))
        if written:
            assert path.read_bytes() == data
        path.unlink()


def test_threads_that_create_a_file_at_once_get_the_same_file(tmp_path: Path) -> None:
    workers, rounds = 4, 50
    barrier = threading.Barrier(workers)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        for turn in range(rounds):
            barrier.wait()
            try:
                with PmemRegion.open(tmp_path / str(turn), size=workers * PAGE_SIZE, create=True) as region:
                    region.write(number * PAGE_SIZE, bytes([number + 1]) * PAGE_SIZE)
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    expected = b"".join(bytes([number + 1]) * PAGE_SIZE for number in range(workers))
    assert all((tmp_path / str(turn)).read_bytes() == expected for turn in range(rounds))


@pytest.mark.parametrize("size", [1 << 60, 3 * PAGE_SIZE], ids=["no room", "not mapped"])
@pytest.mark.parametrize("stays_open", [True, False])
def test_a_refused_opening_keeps_bytes_that_another_process_has_written(
    tmp_path: Path, size: int, stays_open: bool
) -> None:
    path = tmp_path / "file"
    with RegionFile(str(path), size=size, create=True) as refused:
        if size == 3 * PAGE_SIZE:
            refused.reserve(None)
        time.sleep(0.02)  # Changes are told apart by a clock that ticks every few milliseconds.
        other = PmemRegion.open(path, size=3 * PAGE_SIZE, create=True)
        other.write(PAGE_SIZE, b"durable")
        if not stays_open:
            other.close()
        if size != 3 * PAGE_SIZE:
            with pytest.raises(OSError, match="no room"):
                refused.reserve(None)
    assert path.read_bytes()[PAGE_SIZE:][:7] == b"durable"
    other.close()
    PmemRegion.open(path).close()


def test_a_refused_opening_undoes_its_own_work_once_others_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"as it was")
    with RegionFile(str(path), size=PAGE_SIZE, create=True) as refused:
        refused.reserve(None)
        assert path.stat().st_size == PAGE_SIZE
    assert path.read_bytes() == b"as it was"


def make_and_give_up(path: Path, until: float) -> None:
    while time.monotonic() < until:
        with RegionFile(str(path), size=PAGE_SIZE, create=True) as file:
            file.reserve(None)


def test_a_created_file_stays_at_its_path_when_another_opening_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    until = time.monotonic() + 1
    others = [multiprocessing.get_context("spawn").Process(target=make_and_give_up, args=(path, until + 1))]
    for other in others:
        other.start()
    while time.monotonic() < until:
        with PmemRegion.open(path, size=2 * PAGE_SIZE, create=True) as region:
            region.write(PAGE_SIZE, b"durable")
            assert path.read_bytes()[PAGE_SIZE:][:7] == b"durable"
        path.unlink()
    for other in others:
        other.join()
        assert other.exitcode == 0


def test_a_dangling_symbolic_link_is_refused(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "target"
    link.symlink_to(target)
    with pytest.raises(FileNotFoundError, match="symbolic link") as caught:
        PmemRegion.open(link, size=PAGE_SIZE, create=True)
    assert caught.value.filename == str(link)
    assert not target.exists()
    target.touch()
    with PmemRegion.open(link, size=PAGE_SIZE, create=True) as region:
        assert region.write(0, b"through") == 7
    assert target.read_bytes()[:7] == b"through"
