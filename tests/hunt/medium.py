"""A region on a medium of which one half fails: bytes reported as durable are on the medium, and the good half works.

The medium is ext4 on a loop device, whose sparse image is on a tmpfs that is then filled: pages that have blocks can be
written, and others fail at write-back. The kernel reports such an error once per open file, perhaps to another thread's
msync.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE
from iovec_rs.pmem import PmemRegion
from support.places import can_mount, failing_disk

from hunt.finding import doing, expect
from hunt.scene import ended, together

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

PATIENCE = 300.0
SECONDS = 3.0
HALF = 4 << 20
GOOD_PAGES = 100
"""The number of pages of the good half that are written to."""


def unavailable() -> str | None:
    return None if can_mount() else "it takes root, mount and a loop device"


@dataclass
class Writer:
    """Writes one page after the other, and notes which were reported as durable."""

    region: PmemRegion
    start: int
    pages: int
    step: int = 0
    refused: int = 0
    claimed: dict[int, int] = field(default_factory=dict)

    def write(self) -> None:
        self.step += 1
        offset, byte = self.start + self.step % self.pages * PAGE_SIZE, self.step % 251 + 1
        try:
            self.region.write(offset, bytes([byte]) * PAGE_SIZE)
        except OSError:
            self.refused += 1
        else:
            self.claimed[offset] = byte


def _fill(place: Path) -> None:
    """Fills the tmpfs."""
    with place.open("wb", buffering=0) as file:
        for size in (1 << 20, PAGE_SIZE):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


def _lost(path: Path, writer: Writer) -> list[int]:
    """The pages that were reported as durable and are not on the medium."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        Path("/proc/sys/vm/drop_caches").write_text("1", encoding="ascii")
        return [
            offset
            for offset, byte in writer.claimed.items()
            if os.pread(file.fileno(), PAGE_SIZE, offset) != bytes([byte]) * PAGE_SIZE
        ]


def _beside_threads(region: PmemRegion, bad: Writer) -> Writer:
    good = Writer(region, 0, GOOD_PAGES)
    together(SECONDS, bad.write, good.write, good.write)
    return good


def _beside_a_child(region: PmemRegion, bad: Writer) -> Writer:
    """The kernel may report the error to an msync of the child."""
    good = Writer(region, 0, GOOD_PAGES)
    child = os.fork()
    if child == 0:
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                good.write()
        finally:
            os._exit(0)
    together(SECONDS, bad.write)
    _, status = os.waitpid(child, 0)
    expect(status == 0, f"a writing child ends in {ended(status)}")
    good.refused = 0
    return good


def hunt(rng: random.Random) -> None:
    how: Callable[[PmemRegion, Writer], Writer] = rng.choice((_beside_threads, _beside_a_child))
    doing(how.__name__)
    with tempfile.TemporaryDirectory() as name, failing_disk(Path(name), str(64 << 20), "24m") as disk:
        region = PmemRegion.open(disk / "data", size=2 * HALF, create=True)
        try:
            region.write(0, b"G" * HALF)
            os.sync()
            _fill(Path(name, "below", "fill"))
            bad = Writer(region, HALF, HALF // PAGE_SIZE)
            good = how(region, bad)
        finally:
            region.close()
        lost = _lost(disk / "data", bad)
        expect(not lost, "claimed to be durable, and not on the medium", how.__name__, len(lost), len(bad.claimed))
        counts = f"{sum(map(len, [good.claimed]))} pages claimed, {good.refused} writes refused, {good.step} tried"
        expect(good.refused * 2 < max(good.step, 1), "the good half has become unwritable", how.__name__, counts)
