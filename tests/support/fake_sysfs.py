"""A directory tree like the parts of sysfs that describe non-volatile memory, for devices that do not exist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from iovec_rs import _nvdimm

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

ZERO = os.makedev(1, 5)
"""/dev/zero: mapped shared, it is memory. It stands in for device DAX."""


class Sysfs:
    """The directories and files of sysfs, with the contents that the kernel would write."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root / "sys"
        for directory in ("dev/block", "dev/char", "bus/nd/devices", "bus/dax", "devices"):
            (self.root / directory).mkdir(parents=True)
        monkeypatch.setattr(_nvdimm, "SYSFS", self.root)

    @staticmethod
    def fill(directory: Path, **files: object) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (directory / name).write_text(f"{content}\n" if content != "" else "", encoding="ascii")
        return directory

    def _announce(self, kind: str, device: int, directory: Path) -> None:
        link = self.root / "dev" / kind / f"{os.major(device)}:{os.minor(device)}"
        link.symlink_to(os.path.relpath(directory, link.parent))

    def region(self, number: int = 0, **files: object) -> Path:
        directory = self.fill(self.root / "devices/ndbus0" / f"region{number}", **files)
        link = self.root / "bus/nd/devices" / directory.name
        link.symlink_to(os.path.relpath(directory, link.parent))
        return directory

    def disk(self, device: int, below: Path | None = None, **files: object) -> Path:
        parent = below or self.root / "devices/virtual"
        directory = self.fill(parent / f"block/disk{os.minor(device)}", **files)
        self._announce("block", device, directory)
        return directory

    def partition(self, disk: Path, device: int, start: int, size: int) -> Path:
        directory = self.fill(disk / f"{disk.name}p1", partition=1, start=start, size=size)
        self._announce("block", device, directory)
        return directory

    def stack(self, device: int, *below: Path) -> Path:
        """A device-mapper or RAID device."""
        directory = self.disk(device)
        (directory / "slaves").mkdir()
        for slave in below:
            (directory / "slaves" / slave.name).symlink_to(os.path.relpath(slave, directory / "slaves"))
        return directory

    def region_below_cxl(self, number: int, **files: object) -> Path:
        """A region of an nvdimm bus that a CXL root port carries."""
        directory = self.fill(self.root / "devices/cxl/root0/nvdimm-bridge0/ndbus1" / f"region{number}", **files)
        (self.root / "bus/nd/devices" / directory.name).symlink_to(directory)
        return directory

    def dax(self, region: Path, device: int = ZERO, *, size: int, **files: object) -> Path:
        """A device-DAX device below an nvdimm region, or below a CXL region, to which no nvdimm bus has a link."""
        directory = self.fill(region / "dax0.1/dax0.0", size=size, **files)
        (directory / "subsystem").symlink_to(os.path.relpath(self.root / "bus/dax", directory))
        self._announce("char", device, directory)
        return directory
