"""Non-volatile memory in sysfs: the regions behind a device, and their persistence domains."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Literal

from iovec_rs import _core

SYSFS = Path("/sys")

_REGION = re.compile(r"region\d+")


def directory_of(kind: Literal["block", "char"], device: int) -> Path | None:
    """A device's directory in sysfs; None for a number without one, as of a file system without a block device."""
    link = SYSFS / "dev" / kind / f"{os.major(device)}:{os.minor(device)}"
    try:
        return link.resolve(strict=True)
    except FileNotFoundError:
        return None


def number_in(path: Path) -> int:
    """The number in a file of sysfs. OSError EINVAL if the file holds something else."""
    text = path.read_text(encoding="ascii").strip()
    try:
        return int(text, 0)
    except ValueError:
        raise OSError(errno.EINVAL, f"holds {text!r}: a number is expected", str(path)) from None


def regions_of(directory: Path) -> list[Path]:
    """The nvdimm regions that a device's memory is in, also through layers of device mapper and RAID.

    CXL regions have the same names. The nvdimm bus has a link to each of its own regions, which tells the two apart.
    """
    for place in (directory, *directory.parents):
        if _REGION.fullmatch(place.name) and (SYSFS / "bus/nd/devices" / place.name).resolve() == place:
            return [place]
    found: set[Path] = set()
    below = directory / "slaves"
    for slave in sorted(below.iterdir()) if below.is_dir() else ():
        found.update(regions_of(slave.resolve()))
    return sorted(found)


def caches_persist(kind: Literal["block", "char"], device: int) -> bool:
    """Whether the CPU caches in front of every region behind a device keep their contents through a loss of power."""
    directory = directory_of(kind, device)
    regions = regions_of(directory) if directory else []
    return bool(regions) and all(_persistence_domain(region) == "cpu_cache" for region in regions)


def _persistence_domain(region: Path) -> str:
    try:
        return (region / "persistence_domain").read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return ""


def dax_directory(device: int, name: str) -> Path:
    """The sysfs directory of a device-DAX character device. OSError ENODEV for any other device."""
    directory = directory_of("char", device)
    if directory is None or (directory / "subsystem").resolve().name != "dax":
        number = f"{os.major(device)}:{os.minor(device)}"
        raise OSError(errno.ENODEV, f"the character device {number} is not device DAX", name)
    return directory


def dax_device(device: int, name: str) -> tuple[int, int]:
    """Size and alignment of a device-DAX character device in bytes."""
    directory = dax_directory(device, name)
    size = number_in(directory / "size")
    for place in ("align", "device/align"):
        if (directory / place).is_file():
            align = number_in(directory / place)
            break
    else:
        raise OSError(errno.ENODEV, f"no alignment in {directory}/align or device/align", name)
    if align < _core.PAGE_SIZE or align & (align - 1):
        raise OSError(errno.EINVAL, f"the alignment {align} is no power of two of a page or more", name)
    return size, align


def deep_flush(device: int) -> None:
    """Makes the regions behind a device-DAX device write out their buffers. It needs root. OSError if one refuses."""
    directory = directory_of("char", device)
    for region in regions_of(directory) if directory else ():
        trigger = region / "deep_flush"
        # The file reads 0 if there is no buffer between a flushed cache line and the medium.
        if trigger.is_file() and number_in(trigger):
            trigger.write_text("1", encoding="ascii")
