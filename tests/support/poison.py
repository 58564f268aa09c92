"""Pages of a file in memory that turn bad under one mapping of it, as memory does whose hardware fails.

The file keeps its bytes, and other mappings of it stay good: what a record was can still be looked up.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path

from iovec_rs import PAGE_SIZE, testing

from support import mapping, places

__all__ = ["PLACE", "mappings_of", "poison", "unavailable"]

PLACE = "/dev/shm"
"""Where the files are: only memory without a device below it can be poisoned one mapping at a time."""
_DONTNEED = 4


def mappings_of(path: Path) -> list[int]:
    """The addresses at which this process has mapped the file."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    return [int(line.split("-", 1)[0], 16) for line in lines if line.endswith(f" {path}")]


def poison(address: int, page: int) -> None:
    """Makes a page of a mapping bad, from now on until the mapping ends."""
    start = address + page * PAGE_SIZE
    while True:
        mapping.advise(start, PAGE_SIZE, _DONTNEED)
        try:
            testing._poison(start, PAGE_SIZE, {0})
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            continue  # Another thread accessed the page after it had been taken out of the mapping.
        return


def unavailable() -> str | None:
    """Why memory cannot be poisoned here, if it cannot."""
    if not Path(PLACE).is_dir():
        return f"there is no {PLACE}"
    fd = os.memfd_create("poison")
    try:
        os.ftruncate(fd, PAGE_SIZE)
        with mmap.mmap(fd, PAGE_SIZE) as page:
            page[0] = 1
            poison(places.address(page), 0)
    except OSError as error:
        return str(error)
    finally:
        os.close(fd)
    return None
