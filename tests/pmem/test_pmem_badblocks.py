"""Bad blocks as offsets in disks, partitions, files and mappings; and clearing them."""

from __future__ import annotations

import errno
import os
import random
import struct
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PAGE_SIZE, READ, FaultMap, IovIter, _core, _fiemap, pmem
from iovec_rs._fiemap import Extent
from iovec_rs.pmem import PmemRegion
from support import places
from support.fake_sysfs import Sysfs
from support.places import address
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECTOR = 512
PAGES = 8
FILL = random.Random(6).randbytes(PAGES * PAGE_SIZE - 100)
LAST = (PAGES - 1) * PAGE_SIZE


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    return Sysfs(tmp_path, monkeypatch)


@pytest.fixture
def file() -> Iterator[Path]:
    """A file on a real file system, which reports its real extents."""
    with places.on_disk() as directory:
        path = directory / "file"
        path.write_bytes(FILL)
        yield path


def listed(found: FaultMap) -> list[tuple[int, int]]:
    return [(one.start, one.length) for one in found]


def where(path: Path) -> Callable[[int], int]:
    """The offset on the device of a byte of the file."""
    with path.open("rb") as opened:
        extents = list(_fiemap.extents(opened.fileno(), 0, path.stat().st_size))

    def place(offset: int) -> int:
        (extent,) = [one for one in extents if one.logical <= offset < one.logical + one.length]
        return extent.physical + offset - extent.logical

    return place


def bad_disk(sysfs: Sysfs, path: Path, *offsets: int) -> Path:
    """The file's disk, whose list has the sectors of these bytes of the file."""
    sectors = sorted(where(path)(offset) // SECTOR for offset in offsets)
    text = "".join(f"{sector} 1\n" for sector in sectors)
    return sysfs.disk(path.stat().st_dev, badblocks=text.rstrip("\n")) / "badblocks"


def test_bad_blocks_of_disks_and_partitions_are_offsets_in_them(sysfs: Sysfs, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = sysfs.disk(os.makedev(259, 0), badblocks="8 2\n100 4\n2046 4\n6142 10")
    sysfs.partition(disk, os.makedev(259, 1), 2048, 4096)
    empty = sysfs.disk(os.makedev(259, 5))
    sysfs.partition(empty, os.makedev(259, 6), 8, 8)
    whole = [(8 * SECTOR, 2 * SECTOR), (100 * SECTOR, 4 * SECTOR), (2046 * SECTOR, 4 * SECTOR)]
    assert listed(pmem.badblocks(disk / "badblocks")) == [*whole, (6142 * SECTOR, 10 * SECTOR)]

    real = os.stat

    def stat(name: str | Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if not isinstance(name, str) or not name.isdecimal():
            return real(name, follow_symlinks=follow_symlinks)
        return os.stat_result((0o060600, 0, 0, 1, 0, 0, 0, 0, 0, 0), {"st_rdev": os.makedev(259, int(name))})

    for device, expected in (
        ("0", [*whole, (6142 * SECTOR, 10 * SECTOR)]),
        ("1", [(0, 2 * SECTOR), (4094 * SECTOR, 2 * SECTOR)]),
        ("5", []),
        ("6", []),
        ("7", []),
    ):
        with monkeypatch.context() as patch:
            # These device nodes do not exist, and none is opened.
            patch.setattr("iovec_rs._badblocks.os.stat", stat)
            found = pmem.badblocks(device)
        assert listed(found) == expected


def test_a_file_called_badblocks_elsewhere_is_a_file(sysfs: Sysfs, file: Path) -> None:
    other = file.with_name("badblocks")
    other.write_text("0 1\n", encoding="ascii")
    assert listed(pmem.badblocks(other)) == []
    bad_disk(sysfs, other, 0)
    assert listed(pmem.badblocks(other)) == [(0, 4)]


@pytest.mark.parametrize("offsets", [(0,), (5000, 9000), (LAST + 17,), (0, LAST - 1, LAST)])
def test_a_files_bad_bytes_are_those_of_its_extents(sysfs: Sysfs, file: Path, offsets: tuple[int, ...]) -> None:
    assert listed(pmem.badblocks(file)) == []
    bad_disk(sysfs, file, *offsets)
    starts = [offset // SECTOR * SECTOR for offset in offsets]
    merged = FaultMap([(start, min(SECTOR, len(FILL) - start)) for start in starts])
    assert pmem.badblocks(file) == merged
    assert pmem.badblocks(os.fsencode(file)) == merged


def test_bad_blocks_around_a_file_are_not_listed_for_it(sysfs: Sysfs, file: Path) -> None:
    place = where(file)
    first = place(0) // SECTOR
    sysfs.disk(file.stat().st_dev, badblocks=f"{first - 8} 16\n{place(LAST) // SECTOR + 8} 8")
    assert listed(pmem.badblocks(file)) == [(0, 8 * SECTOR)]


def test_bad_blocks_are_translated_through_holes_and_unordered_extents(
    sysfs: Sysfs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = sysfs.disk(os.makedev(259, 0), badblocks="1 1\n15 2\n80 24\n1000 1\n4000 1")
    start = sysfs.partition(disk, file.stat().st_dev, 8, 1 << 20)
    assert start.is_dir()
    extents = [
        Extent(0, 72 * SECTOR, PAGE_SIZE),  # sectors 80 to 87 of the disk
        Extent(2 * PAGE_SIZE, 0, PAGE_SIZE),  # 8 to 15
        Extent(3 * PAGE_SIZE, 992 * SECTOR, 2 * PAGE_SIZE),  # 1000 to 1015
        Extent(LAST, 3992 * SECTOR, PAGE_SIZE),  # 4000 to 4007
        Extent(LAST + PAGE_SIZE, 88 * SECTOR, PAGE_SIZE),  # beyond the end
    ]
    monkeypatch.setattr(_fiemap, "extents", lambda *_: iter(extents))
    found = [
        (0, PAGE_SIZE),
        (2 * PAGE_SIZE + 7 * SECTOR, 2 * SECTOR),
        (LAST, SECTOR),
    ]
    assert listed(pmem.badblocks(file)) == found
    with PmemRegion.open(file, offset=2 * PAGE_SIZE) as region:
        base = address(region)
        assert [(one.start - base, one.length, one.access) for one in region.fault_map] == [
            (0, 2 * PAGE_SIZE, "both"),
            (LAST - 2 * PAGE_SIZE, PAGE_SIZE - 100, "both"),
        ]


def flagged(*rows: tuple[int, int, int, int]) -> Callable[[int, int, bytearray], int]:
    """An ioctl that answers FIEMAP with rows of logical offset, physical offset, length and flags; the last row is
    marked as last.
    """

    def ioctl(_fd: int, _request: int, buffer: bytearray) -> int:
        struct.pack_into("=QQIIII", buffer, 0, 0, 2**63, 0, len(rows), 256, 0)
        for number, (logical, physical, length, flags) in enumerate(rows):
            last = number == len(rows) - 1
            struct.pack_into("=QQQ16xI12x", buffer, 32 + 56 * number, logical, physical, length, flags | last)
        return 0

    return ioctl


PLACE = 1 << 20
ELSEWHERE = {
    "unknown": 0x2,
    "delayed": 0x4 | 0x2,
    "encoded": 0x8,
    "encrypted": 0x80 | 0x8,
    "not aligned": 0x100,
    "inline": 0x200 | 0x100,
    "packed tail": 0x400 | 0x100,
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_extents_that_cannot_be_looked_up_make_the_map_incomplete(
    sysfs: Sysfs, file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Bytes that cannot be looked up in the disk's list are neither known to be good nor bad."""
    sysfs.disk(file.stat().st_dev, badblocks=f"{PLACE // SECTOR} 1\n{PLACE // SECTOR + 16} 1")
    rows = ((0, PLACE, PAGE_SIZE, 0), (PAGE_SIZE, PLACE + PAGE_SIZE, len(FILL), ELSEWHERE[name]))
    monkeypatch.setattr("iovec_rs._fiemap.fcntl.ioctl", flagged(*rows))
    found = pmem.badblocks(file)
    assert (listed(found), found.incomplete) == ([(0, SECTOR)], True)
    monkeypatch.setattr("iovec_rs._fiemap.fcntl.ioctl", flagged(rows[0]))
    assert not pmem.badblocks(file).incomplete
    with PmemRegion.open(file) as region:
        monkeypatch.setattr("iovec_rs._fiemap.fcntl.ioctl", flagged(*rows))
        assert region.refresh_badblocks().incomplete


@pytest.mark.parametrize("bad", [False, True])
def test_bad_blocks_in_unwritten_extents_make_the_map_incomplete(
    sysfs: Sysfs, file: Path, monkeypatch: pytest.MonkeyPatch, bad: bool
) -> None:
    """Reads do not access the disk until the extent is written."""
    sysfs.disk(file.stat().st_dev, badblocks=f"{PLACE // SECTOR - bad} 1")
    monkeypatch.setattr("iovec_rs._fiemap.fcntl.ioctl", flagged((0, PLACE - PAGE_SIZE, PAGE_SIZE, 0x800)))
    found = pmem.badblocks(file)
    assert (listed(found), found.incomplete) == ([], bad)


def test_extents_of_length_zero_do_not_stop_or_hide_anything(
    sysfs: Sysfs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sysfs.disk(file.stat().st_dev, badblocks=f"{PLACE // SECTOR} 1")
    rows = ((0, 0, 0, 0), (0, PLACE, PAGE_SIZE, 0))
    monkeypatch.setattr("iovec_rs._fiemap.fcntl.ioctl", flagged(*rows))
    found = pmem.badblocks(file)
    assert (listed(found), found.incomplete) == ([(0, SECTOR)], True)

    def endless(fd: int, request: int, buffer: bytearray) -> int:
        flagged(rows[0], rows[1])(fd, request, buffer)
        struct.pack_into("=I", buffer, 20, 1)
        return 0

    monkeypatch.setattr("iovec_rs._fiemap.fcntl.ioctl", endless)
    with os_error(errno.EIO) as caught:
        pmem.badblocks(file)
    assert "beyond offset 0" in str(caught.value)


def test_a_device_without_a_list_has_an_incomplete_map(sysfs: Sysfs, file: Path) -> None:
    """The file of a disk without a list has one empty line; a stacked device has no file."""
    device = file.stat().st_dev
    assert pmem.badblocks(file).incomplete
    directory = sysfs.disk(device)
    assert pmem.badblocks(file).incomplete
    with PmemRegion.open(file) as region:
        assert (len(region.fault_map), region.fault_map.incomplete) == (0, True)
    sysfs.fill(directory, badblocks="\n")
    assert pmem.badblocks(file).incomplete
    sysfs.fill(directory, badblocks="")
    assert not pmem.badblocks(file).incomplete


def test_a_full_list_makes_the_map_incomplete(sysfs: Sysfs, file: Path) -> None:
    text = "\n".join(f"{sector} 1" for sector in range(0, 1024, 2))
    sysfs.disk(file.stat().st_dev, badblocks=text)
    assert pmem.badblocks(file).incomplete
    with PmemRegion.open(file) as region:
        assert region.fault_map.incomplete


def test_a_file_system_without_fiemap_is_an_error_only_if_its_disk_has_bad_blocks(sysfs: Sysfs) -> None:
    with places.in_memory() as directory:
        path = directory / "file"
        path.write_bytes(FILL)
        disk = sysfs.disk(path.stat().st_dev, badblocks="")
        assert listed(pmem.badblocks(path)) == []
        (disk / "badblocks").write_text("0 1\n", encoding="ascii")
        with os_error(errno.EOPNOTSUPP):
            pmem.badblocks(path)
        with os_error(errno.EOPNOTSUPP):
            PmemRegion.open(path)
        with os_error(errno.EOPNOTSUPP):
            PmemRegion.open(directory / "new", size=5, create=True)
        assert [entry.name for entry in directory.iterdir()] == ["file"]


def test_file_types_without_bad_blocks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pmem.badblocks(tmp_path / "nowhere")
    with os_error(errno.ENODEV):
        pmem.badblocks(tmp_path)
    with os_error(errno.ENODEV):
        pmem.badblocks("/dev/null")
    for path in (tmp_path, "/dev/null"):
        with os_error(errno.ENODEV):
            pmem.clear_badblocks(path)
    os.mkfifo(tmp_path / "fifo")
    with os_error(errno.ENODEV):
        pmem.badblocks(tmp_path / "fifo")


def test_a_region_does_not_access_pages_with_bad_blocks(sysfs: Sysfs, file: Path) -> None:
    blocks = bad_disk(sysfs, file, 2 * PAGE_SIZE + 1000)
    with PmemRegion.open(file) as region:
        out = bytearray(4 * PAGE_SIZE)
        copied, remaining, fault = region.read_into(100, out)
        assert (copied, remaining) == (2 * PAGE_SIZE - 100, 2 * PAGE_SIZE + 100)
        assert fault is not None
        assert (fault.address, fault.length) == (address(region) + 2 * PAGE_SIZE, PAGE_SIZE)
        assert (fault.cause, fault.origin) == ("poison", "map")
        i = IovIter.kvec(READ, [out])
        assert region.read_into(100, i).copied == copied == len(out) - i.count
        blocks.write_text("", encoding="ascii")
        region.refresh_badblocks()
        assert region.read_into(100, out).remaining == 0
        assert out == FILL[100 : 100 + len(out)]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, file: Path) -> Callable[[Path], list[tuple[int, int]]]:
    """Removes from a list the pages that write(2) overwrites, as a driver does. Returns the ranges written."""
    write = os.pwrite
    written: list[tuple[int, int]] = []

    def install(blocks: Path) -> list[tuple[int, int]]:
        place = where(file)

        def pwrite(fd: int, data: memoryview, offset: int) -> int:
            done = write(fd, data[: 3 * PAGE_SIZE], offset)
            written.append((offset, done))
            left = []
            for line in blocks.read_text(encoding="ascii").splitlines():
                sector = int(line.split()[0])
                start, end = offset // PAGE_SIZE, (offset + done) // PAGE_SIZE
                if not any(0 <= sector * SECTOR - place(page * PAGE_SIZE) < PAGE_SIZE for page in range(start, end)):
                    left.append(line + "\n")
            blocks.write_text("".join(left), encoding="ascii")
            return done

        monkeypatch.setattr("iovec_rs._badblocks.os.pwrite", pwrite)
        return written

    return install


def test_clearing_zeroes_whole_pages_and_returns_them(
    sysfs: Sysfs, file: Path, driver: Callable[[Path], list[tuple[int, int]]]
) -> None:
    bad = (100, PAGE_SIZE + 5, 3 * PAGE_SIZE, 4 * PAGE_SIZE - 1, 4 * PAGE_SIZE, 5 * PAGE_SIZE, 6 * PAGE_SIZE)
    written = driver(bad_disk(sysfs, file, *bad))
    cleared = pmem.clear_badblocks(file)
    assert listed(cleared) == [(0, 2 * PAGE_SIZE), (3 * PAGE_SIZE, 4 * PAGE_SIZE)]
    assert [(start % PAGE_SIZE, length % PAGE_SIZE) for start, length in written] == [(0, 0)] * 3
    content = bytearray(FILL)
    for start, length in listed(cleared):
        content[start : start + length] = bytes(length)
    assert file.read_bytes() == content
    assert listed(pmem.badblocks(file)) == []


def test_without_bad_blocks_nothing_is_written(
    sysfs: Sysfs, file: Path, driver: Callable[[Path], list[tuple[int, int]]]
) -> None:
    written = driver(sysfs.disk(file.stat().st_dev, badblocks="0 1") / "badblocks")
    assert listed(pmem.clear_badblocks(file)) == []
    assert (written, file.read_bytes()) == ([], FILL)


def test_the_last_page_of_a_file_gets_a_new_block(sysfs: Sysfs, file: Path) -> None:
    """Here no driver removes the old block from the list, so it may still be bad. The file keeps its size."""
    blocks = bad_disk(sysfs, file, LAST + 1000)
    before = where(file)(LAST)
    blocks.write_text(f"{before // SECTOR + 1} 1\n", encoding="ascii")
    try:
        cleared = pmem.clear_badblocks(file)
    except pmem.ClearError as error:
        # The file system has allocated the same block again.
        assert where(file)(LAST) == before
        cleared = error.cleared
    assert listed(cleared) == [(LAST, len(FILL) - LAST)]
    assert file.read_bytes() == FILL[:LAST] + bytes(len(FILL) - LAST)


def test_blocks_that_stay_bad_are_an_error_with_the_ranges_zeroed(sysfs: Sysfs, file: Path) -> None:
    bad_disk(sysfs, file, PAGE_SIZE)
    with pytest.raises(pmem.ClearError, match="512 bytes are still bad") as caught:
        pmem.clear_badblocks(file)
    assert caught.value.errno == errno.EIO
    assert listed(caught.value.cleared) == [(PAGE_SIZE, PAGE_SIZE)]
    assert file.read_bytes() == FILL[:PAGE_SIZE] + bytes(PAGE_SIZE) + FILL[2 * PAGE_SIZE :]


def test_a_write_that_fails_is_an_error_with_the_ranges_zeroed(
    sysfs: Sysfs, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_disk(sysfs, file, 0, 3 * PAGE_SIZE)
    write = os.pwrite

    def pwrite(fd: int, data: memoryview, offset: int) -> int:
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return write(fd, data, offset)

    monkeypatch.setattr("iovec_rs._badblocks.os.pwrite", pwrite)
    with pytest.raises(pmem.ClearError) as caught:
        pmem.clear_badblocks(file)
    assert listed(caught.value.cleared) == [(0, PAGE_SIZE)]
    assert file.read_bytes() == bytes(PAGE_SIZE) + FILL[PAGE_SIZE:]


def test_extents_are_the_written_parts(file: Path) -> None:
    """Holes and unwritten extents are not read from the disk."""
    size = 40 * PAGE_SIZE
    with file.open("wb", buffering=0) as opened:
        fd = opened.fileno()
        os.ftruncate(fd, size)
        for page in (3, 4, 20, 39):
            os.pwrite(fd, bytes([page]) * PAGE_SIZE, page * PAGE_SIZE)
        os.posix_fallocate(fd, 8 * PAGE_SIZE, 4 * PAGE_SIZE)
        found = list(_fiemap.extents(fd, 0, size))
        assert all(extent.placed for extent in found)
        assert [extent.logical for extent in found if not extent.written] == [8 * PAGE_SIZE]
        pages = {
            at // PAGE_SIZE
            for extent in found
            if extent.written
            for at in range(extent.logical, extent.logical + extent.length, PAGE_SIZE)
        }
        assert pages == {3, 4, 20, 39}
        part = list(_fiemap.extents(fd, 20 * PAGE_SIZE, PAGE_SIZE))
        assert [(one.logical, one.length) for one in part] == [(20 * PAGE_SIZE, PAGE_SIZE)]


def test_more_extents_than_one_ioctl_returns(file: Path) -> None:
    count = 600
    with file.open("wb", buffering=0) as opened:
        os.ftruncate(opened.fileno(), 2 * count * PAGE_SIZE)
        for number in range(count):
            os.pwrite(opened.fileno(), b"x" * PAGE_SIZE, 2 * number * PAGE_SIZE)
        found = list(_fiemap.extents(opened.fileno(), 0, 2 * count * PAGE_SIZE))
    assert [extent.logical for extent in found] == [2 * number * PAGE_SIZE for number in range(count)]


@pytest.mark.skipif(not places.can_mount(), reason="takes mounting a disk of our own to look into")
def test_extents_have_the_offsets_of_the_bytes_on_the_disk(tmp_path: Path) -> None:
    with places.failing_disk(tmp_path, str(64 << 20), "64m") as mount:
        path = mount / "file"
        path.write_bytes(FILL)
        place = where(path)
        os.sync()
        image = tmp_path / "below" / "image"
        with image.open("rb") as disk:
            for offset in range(0, len(FILL), PAGE_SIZE):
                disk.seek(place(offset))
                assert disk.read(100) == FILL[offset : offset + 100]


def test_maps_are_translated_piece_by_piece() -> None:
    source = FaultMap([(10, 10), (100, 1)])
    assert listed(_core.fault_map_moved(source, [(15, 0, 100), (0, 1000, 12)])) == [(0, 5), (85, 1), (1010, 2)]
    with pytest.raises(ValueError, match="ends past"):
        _core.fault_map_moved(source, [(10, 2**64 - 5, 10)])
