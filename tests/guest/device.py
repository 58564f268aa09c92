"""Regions over a device-DAX character device, which is made of the second stretch of memory that was set aside."""

from __future__ import annotations

import errno
import uuid
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import iovec_rs.pmem
from iovec_rs import PAGE_SIZE, WRITE, IovIter
from iovec_rs.pmem import PmemRegion

from guest.dax import refused
from guest.harness import equal, test
from guest.memory import good, pattern
from guest.shapes import SHAPES, over

if TYPE_CHECKING:
    from collections.abc import Callable

BUS = Path("/sys/bus/nd")
ALIGN = 2 << 20
LENGTH = 8 * PAGE_SIZE


@cache
def device() -> Path:
    """Makes the namespace one for device DAX, once, as `ndctl create-namespace -m devdax` does."""
    found = sorted(Path("/dev").glob("dax*"))
    if not found:
        region = BUS / "devices" / "region1"
        namespace = next(region.glob("namespace1.*")).name
        _say(BUS / "drivers" / "nd_pmem" / "unbind", namespace)
        seed = (region / "dax_seed").read_text(encoding="ascii").strip()
        for name, value in (("align", ALIGN), ("mode", "ram"), ("uuid", uuid.uuid4()), ("namespace", namespace)):
            _say(BUS / "devices" / seed / name, str(value))
        _say(BUS / "drivers" / "dax_pmem" / "bind", seed)
        found = sorted(Path("/dev").glob("dax*"))
    (path,) = found
    return path


def _say(path: Path, value: str) -> None:
    path.write_text(value, encoding="ascii")


@test()
def it_is_as_big_as_the_device_says_and_durable_by_lines() -> None:
    with PmemRegion.open(device()) as region:
        equal((region.granularity, region.is_map_sync), ("cache_line", True), "what it is")
        equal(region.size % ALIGN, 0, "size in units")
        equal(ALIGN < region.size < 64 << 20, True, f"{region.size} bytes")
        equal((len(region), len(region.fault_map)), (region.size, 0), "length, bad ranges")
        size = region.size
    equal(len(iovec_rs.pmem.badblocks(device())), 0, "bad blocks")
    with PmemRegion.open(device(), offset=size - ALIGN, writable=False) as region:
        equal(region.size, ALIGN, "the last unit")


@test(kind=SHAPES)
def what_was_written_is_there_when_it_is_opened_again(kind: str) -> None:
    source = good(LENGTH, pattern(LENGTH))
    with PmemRegion.open(device(), size=LENGTH, offset=ALIGN) as region:
        region.write(0, bytes(LENGTH))
        equal(region.write(77, over(kind, source, WRITE, 5, 5 * PAGE_SIZE)), 5 * PAGE_SIZE, "written")
        region.deep_flush()
    with PmemRegion.open(device(), writable=False) as region:
        out = bytearray(LENGTH)
        equal(region.read_into(ALIGN, out).copied, LENGTH, "read")
    want = bytes(77) + pattern(LENGTH)[5 : 5 + 5 * PAGE_SIZE]
    equal(out == want.ljust(LENGTH, b"\0"), True, "content")


@test()
def views_and_lines() -> None:
    with PmemRegion.open(device(), size=LENGTH) as region:
        view = memoryview(region)
        view[100:200] = pattern(100)
        region.persist(100, 100)
        iovec_rs.pmem.persist(view, 100, 100)
        iovec_rs.pmem.flush(view)
        iovec_rs.pmem.invalidate(view)
        iovec_rs.pmem.drain()
        view.release()
    with PmemRegion.open(device()) as region:
        out = bytearray(100)
        equal(region.read_into(100, IovIter.ubuf(0, out)).remaining, 0, "left to read")
        equal(out == pattern(100), True, "content")


@test()
def what_it_cannot_map_is_refused_by_the_numbers() -> None:
    size = len(PmemRegion.open(device()))
    calls: dict[str, Callable[[], object]] = {
        f"offset is {PAGE_SIZE}": lambda: PmemRegion.open(device(), offset=PAGE_SIZE),
        f"size is {size + 1}": lambda: PmemRegion.open(device(), size=size + 1, create=True),
        f"offset is {size}": lambda: PmemRegion.open(device(), offset=size),
    }
    for message, call in calls.items():
        try:
            call()
        except ValueError as error:
            equal(message in str(error), True, f"{error} names it")
        else:
            raise AssertionError(f"{message}: not refused")
    refused(lambda: iovec_rs.pmem.clear_badblocks(device()), errno.ENODEV, "clearing")
    refused(lambda: PmemRegion.open("/dev/null"), errno.ENODEV, "/dev/null")
