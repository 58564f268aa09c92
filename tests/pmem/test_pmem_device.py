"""What sysfs decides about a device: its size and alignment, the step that makes stores durable, and the deep flush."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PAGE_SIZE, WRITE, FaultError, IovIter, McResult, UserRange, _nvdimm, pmem, testing
from iovec_rs.pmem import PmemRegion
from support.fake_sysfs import ZERO, Sysfs
from support.kinds import CASES, Shape, build, state_of
from support.places import address
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCES = [kind for kind, source in CASES if source]
ALIGN = 2 << 20
SIZE = 3 * ALIGN
START = 0x1_0000_0000
DATA = START + ALIGN
"""The physical addresses of the region and of the device's data."""


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sysfs:
    return Sysfs(tmp_path, monkeypatch)


@pytest.fixture
def nd_region(sysfs: Sysfs) -> Path:
    files = {"persistence_domain": "memory_controller", "resource": hex(START), "badblocks": "", "deep_flush": 1}
    region = sysfs.region(0, **files)
    sysfs.dax(region, size=SIZE, align=ALIGN, resource=hex(DATA))
    return region


@pytest.fixture(params=["memory_controller", "cpu_cache"])
def region(request: pytest.FixtureRequest, nd_region: Path) -> Iterator[PmemRegion]:
    """A region with granularity "cache_line", and one with "byte"."""
    (nd_region / "persistence_domain").write_text(request.param, encoding="ascii")
    region = PmemRegion.open("/dev/zero")
    yield region
    region.close()


@pytest.mark.parametrize(
    ("domain", "granularity"),
    [("cpu_cache", "byte"), ("memory_controller", "cache_line"), ("unknown", "cache_line"), ("", "cache_line")],
)
def test_the_persistence_domain_decides_the_granularity(nd_region: Path, domain: str, granularity: str) -> None:
    (nd_region / "persistence_domain").write_text(domain, encoding="ascii")
    with PmemRegion.open("/dev/zero") as region:
        assert (region.granularity, region.size) == (granularity, SIZE)
    (nd_region / "persistence_domain").unlink()
    with PmemRegion.open("/dev/zero") as region:
        assert region.granularity == "cache_line"


def test_granularity_byte_needs_every_region_to_persist_its_caches(sysfs: Sysfs) -> None:
    disks = []
    for number, domain in enumerate(("cpu_cache", "cpu_cache", "memory_controller")):
        region = sysfs.region(number, persistence_domain=domain)
        disks.append(sysfs.disk(os.makedev(259, number), region / f"namespace{number}.0"))
    cxl = sysfs.fill(sysfs.root / "devices/cxl/region7", persistence_domain="cpu_cache")
    stacks = {
        10: (disks[:2], True),
        11: (disks, False),
        12: (disks[2:], False),
        13: ([], False),
        14: ([sysfs.disk(os.makedev(259, 9), cxl)], False),
    }
    for minor, (below, lasts) in stacks.items():
        stack = sysfs.stack(os.makedev(253, minor), *below)
        assert _nvdimm.caches_persist("block", os.makedev(253, minor)) is lasts
        sysfs.stack(os.makedev(253, 100 + minor), stack)
        assert _nvdimm.caches_persist("block", os.makedev(253, 100 + minor)) is lasts
    partition = sysfs.partition(disks[0], os.makedev(259, 20), 2048, 4096)
    assert partition.is_dir()
    assert _nvdimm.caches_persist("block", os.makedev(259, 20))
    assert not _nvdimm.caches_persist("block", os.makedev(0, 40))


@pytest.fixture
def cxl_beside(sysfs: Sysfs) -> Path:
    """CXL memory as device DAX, and an unrelated nvdimm region of the same name, which is returned."""
    files = {"persistence_domain": "cpu_cache", "badblocks": "0 8", "resource": hex(START), "deep_flush": 1}
    region = sysfs.region(0, **files)
    below = sysfs.root / "devices/cxl/root0/decoder0.0/region0"
    sysfs.dax(below, size=SIZE, align=ALIGN, resource=hex(DATA))
    return region


def test_cxl_memory_is_not_in_the_nvdimm_region_of_the_same_name(cxl_beside: Path) -> None:
    assert not _nvdimm.caches_persist("char", ZERO)
    bad = pmem.badblocks("/dev/zero")
    assert (len(bad), bad.incomplete) == (0, True)
    with PmemRegion.open("/dev/zero") as region:
        assert (region.granularity, len(region.fault_map)) == ("cache_line", 0)
        region.deep_flush()
    assert (cxl_beside / "deep_flush").read_text(encoding="ascii") == "1\n"


def test_an_nvdimm_region_below_a_cxl_one_is_found(sysfs: Sysfs) -> None:
    region = sysfs.region_below_cxl(1, persistence_domain="cpu_cache", badblocks="", deep_flush=1)
    sysfs.dax(region, size=SIZE, align=ALIGN)
    assert _nvdimm.caches_persist("char", ZERO)
    assert not pmem.badblocks("/dev/zero").incomplete
    with PmemRegion.open("/dev/zero") as opened:
        opened.deep_flush()
    assert (region / "deep_flush").read_text(encoding="ascii") == "1"


def test_a_device_that_begins_before_its_region_is_refused(sysfs: Sysfs) -> None:
    region = sysfs.region(0, badblocks="0 8", resource=hex(START))
    sysfs.dax(region, size=SIZE, align=ALIGN, resource=hex(START - ALIGN))
    with os_error(errno.EINVAL) as caught:
        pmem.badblocks("/dev/zero")
    assert "before region0" in str(caught.value)


def test_a_file_without_dax_has_granularity_page(sysfs: Sysfs, tmp_path: Path) -> None:
    region = sysfs.region(0, persistence_domain="cpu_cache")
    sysfs.disk(tmp_path.stat().st_dev, region / "namespace0.0", badblocks="")
    with PmemRegion.open(tmp_path / "file", size=1, create=True) as opened:
        assert opened.granularity == "page"


def test_the_alignment_is_read_from_the_device(nd_region: Path) -> None:
    for offset in (PAGE_SIZE, ALIGN - PAGE_SIZE):
        with pytest.raises(ValueError, match=f"offset is {offset}: expected a multiple of {ALIGN}"):
            PmemRegion.open("/dev/zero", offset=offset)
    with pytest.raises(ValueError, match=f"size is {SIZE + 1}: expected at most {SIZE} of {SIZE} bytes"):
        PmemRegion.open("/dev/zero", size=SIZE + 1, create=True)
    with pytest.raises(ValueError, match=f"offset is {SIZE}"):
        PmemRegion.open("/dev/zero", offset=SIZE)
    with PmemRegion.open("/dev/zero", offset=ALIGN, size=100) as region:
        assert (region.size, region.offset) == (100, ALIGN)
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith(f"{address(region):x}-"))
        start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        assert (end - start, line.split()[2]) == (ALIGN, f"{ALIGN:08x}")
    device = nd_region / "dax0.1/dax0.0"
    (device / "align").rename(device.parent / "align")
    with pytest.raises(OSError, match=r"no alignment in .*align or device/align"):
        PmemRegion.open("/dev/zero")
    (device / "device").symlink_to("..")
    with pytest.raises(ValueError, match=f"expected a multiple of {ALIGN}"):
        PmemRegion.open("/dev/zero", offset=PAGE_SIZE)


@pytest.mark.parametrize("align", ["0", "12288", "512", "two"])
def test_malformed_sysfs_values_are_errors_that_name_the_value(nd_region: Path, align: str) -> None:
    (nd_region / "dax0.1/dax0.0/align").write_text(align, encoding="ascii")
    with os_error(errno.EINVAL) as caught:
        PmemRegion.open("/dev/zero")
    assert align in str(caught.value)


def test_other_character_devices_are_refused(sysfs: Sysfs, nd_region: Path) -> None:
    directory = sysfs.fill(sysfs.root / "devices/mem/full", size=SIZE, align=ALIGN)
    (directory / "subsystem").symlink_to(sysfs.root / "devices/mem")
    (sysfs.root / "dev/char/1:7").symlink_to(directory)
    for path in ("/dev/null", "/dev/full"):
        with os_error(errno.ENODEV) as caught:
            PmemRegion.open(path)
        assert "is not device DAX" in str(caught.value)
        assert caught.value.filename == path
    assert nd_region.is_dir()


@pytest.mark.parametrize("kind", ["buffer", *SOURCES])
def test_every_kind_is_written_at_every_alignment(region: PmemRegion, kind: str) -> None:
    for offset, lengths in ((0, (64,)), (1, (7, 0, 8200)), (63, (130, 1, 64)), (4093, (4096, 4096, 5)), (8, (16,))):
        fill = random.Random(offset).randbytes(8 * PAGE_SIZE)
        view = memoryview(region)
        view[: len(fill)] = fill
        if kind == "buffer":
            data = random.Random(7).randbytes(sum(lengths))
            assert region.write(offset, data) == len(data)
        else:
            subject = build(kind, True, Shape(lengths, lead=offset % 64))
            data = subject.oracle.copy_from(subject.real.count)
            assert region.write(offset, subject.real) == len(data)
            subject.oracle.settle(state_of(subject.real))
            subject.check()
        end = offset + len(data)
        assert view[: len(fill)] == fill[:offset] + data + fill[end:]
        view.release()
        out = bytearray(len(data))
        assert region.read_into(offset, out) == McResult(len(data), 0, None)
        assert out == data


@pytest.mark.usefixtures("way")
def test_a_bad_source_makes_the_copy_short(region: PmemRegion) -> None:
    with testing.truncated(3, keep=1) as memory:
        with pytest.raises(FaultError) as caught:
            region.write(7, memory.buffer)
        assert caught.value.copied == PAGE_SIZE
        i = IovIter.iovec(WRITE, [memory.range(0, 100), memory.range(0), UserRange(0, 5)])
        assert region.write(PAGE_SIZE, i) == 100 + PAGE_SIZE
        assert (i.count, i.fault and i.fault.side) == (2 * PAGE_SIZE + 5, "source")
    pattern = testing.pattern(0, PAGE_SIZE)
    expected = (bytes(7) + pattern)[:PAGE_SIZE] + pattern[:100] + pattern
    assert bytes(memoryview(region)[: len(expected)]) == expected


def test_persisting_flushes_lines_and_checks_its_range(region: PmemRegion) -> None:
    view = memoryview(region)
    view[SIZE - 100 :] = bytes(range(100))
    region.persist(SIZE - 100, 100)
    region.persist()
    pmem.persist(view, SIZE - 100)
    for offset, length in ((SIZE, 1), (0, SIZE + 1)):
        with pytest.raises(ValueError, match=f"offset {offset} and length {length} leave the region of {SIZE} bytes"):
            region.persist(offset, length)
    view.release()


@pytest.mark.parametrize(("before", "after"), [("1", "1"), ("0", "0"), (None, None)])
def test_deep_flush_triggers_the_regions_deep_flush_file(
    nd_region: Path, before: str | None, after: str | None
) -> None:
    trigger = nd_region / "deep_flush"
    trigger.unlink()
    if before is not None:
        trigger.write_text(before + "\n", encoding="ascii")
    with PmemRegion.open("/dev/zero") as region:
        region.deep_flush()
    content = trigger.read_text(encoding="ascii") if trigger.exists() else None
    # The text that was written has no line end.
    assert content == (f"{after}\n" if after == "0" else after)


def test_bad_blocks_of_the_region_are_addresses_of_the_mapping(nd_region: Path) -> None:
    first = (DATA - START) // 512
    listed = f"{first - 4} 5\n{first + 8 + ALIGN // 512} 2\n{first + SIZE // 512 - 1} 8\n"
    (nd_region / "badblocks").write_text(listed, encoding="ascii")
    with PmemRegion.open("/dev/zero") as region:
        base = address(region)
        ranges = [(found.start - base, found.length, found.access) for found in region.fault_map]
        assert ranges == [(0, 512, "read"), (ALIGN + 4096, 1024, "read"), (SIZE - 512, 512, "read")]
        out = bytearray(5000)
        assert region.read_into(ALIGN, out)[:2] == (4096, 904)
        # Stores of whole cache lines do not read their old contents.
        assert region.write(ALIGN + 4096, bytes(1024)) == 1024
        (nd_region / "badblocks").write_text("", encoding="ascii")
        known = region.fault_map
        assert region.refresh_badblocks() is known
        assert len(known) == 0
    with PmemRegion.open("/dev/zero", offset=ALIGN, size=4097) as region:
        assert len(region.fault_map) == 0
    (nd_region / "badblocks").write_text(listed, encoding="ascii")
    with PmemRegion.open("/dev/zero", offset=ALIGN, size=4097) as region:
        base = address(region)
        assert [(found.start - base, found.length) for found in region.fault_map] == [(4096, 1)]
    assert [tuple(found) for found in pmem.badblocks("/dev/zero")] == ranges
    assert os.stat("/dev/zero").st_rdev == ZERO  # noqa: PTH116


def test_the_physical_address_is_read_only_if_there_are_bad_blocks(nd_region: Path) -> None:
    device = nd_region / "dax0.1/dax0.0"
    (device / "resource").unlink()
    assert len(pmem.badblocks("/dev/zero")) == 0
    (nd_region / "badblocks").write_text("0 1\n", encoding="ascii")
    with os_error(errno.ENODEV) as caught:
        pmem.badblocks("/dev/zero")
    assert "resource" in str(caught.value)
    with os_error(errno.ENODEV):
        PmemRegion.open("/dev/zero")
    # Older kernels report it for the namespace.
    (device.parent / "resource").write_text(hex(START), encoding="ascii")
    assert [tuple(found) for found in pmem.badblocks("/dev/zero")] == [(0, 512, "read")]
    (nd_region / "badblocks").unlink()
    assert len(pmem.badblocks("/dev/zero")) == 0
    with os_error(errno.ENODEV):
        pmem.clear_badblocks("/dev/zero")
