"""Pages of a file in memory that turn bad under one mapping of it, as memory does whose hardware fails.

The file keeps its bytes, and other mappings of it stay good: what a record was can still be looked up.
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, testing

from support import mapping, places

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["mappings_of", "poison", "unavailable"]


def mappings_of(path: Path) -> list[int]:
    """The addresses at which this process has mapped the file."""
    return [known.start for known in mapping.known() if known.path == str(path)]


def poison(address: int, page: int) -> None:
    """Makes a page of a mapping bad, from now on until the mapping ends."""
    start = address + page * PAGE_SIZE
    while True:
        mapping.advise(start, PAGE_SIZE, mmap.MADV_DONTNEED)
        try:
            testing._poison(start, PAGE_SIZE, {0})
        except OSError as error:
            if error.errno != errno.EEXIST:
                raise
            continue  # Another thread accessed the page after it had been taken out of the mapping.
        return


def unavailable() -> str | None:
    """Why memory cannot be poisoned here, if it cannot."""
    if places.MEMORY is None:
        return "there is no /dev/shm: only memory without a device below it can be poisoned one mapping at a time"
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
