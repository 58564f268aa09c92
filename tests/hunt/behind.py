"""Readers in other processes beside a writer that laps a small ring: whoever was told of an append sees it.

The writer notes each acknowledged number in shared memory. A reader takes a note of that first, and then looks at the
log, which may have gone on, but not be behind.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PmemLog
from support.places import MEMORY

from hunt.finding import doing, expect
from hunt.scene import ended

if TYPE_CHECKING:
    import random

SECONDS = 2.0
SIZE = 8192 + 4096
BEHIND = 7
"""The exit code of a reader that saw less than it was told of."""


def _read(path: Path, told: mmap.mmap, end: float, is_fresh: bool) -> None:
    """Looks until the end; leaves the process."""
    code, reader = 1, PmemLog.open(path, writable=False)
    try:
        while time.monotonic() < end:
            (acknowledged,) = struct.unpack_from("<q", told)
            if is_fresh:
                reader.close()
                reader = PmemLog.open(path, writable=False)
            last = reader.last
            if last < acknowledged:
                doing(f"append {acknowledged} had returned, and then last is {last}, of {reader}")
                code = BEHIND
                return
        code = 0
    finally:
        os._exit(code)


def hunt(rng: random.Random) -> None:
    end = time.monotonic() + SECONDS
    with tempfile.TemporaryDirectory(dir=MEMORY) as name, mmap.mmap(-1, mmap.PAGESIZE) as told:
        path = Path(name, "log")
        with PmemLog.open(path, size=SIZE, create=True) as log:
            log.append(b"the first, so that no reader meets an empty log")
            readers = []
            for is_fresh in (False, False, True):
                child = os.fork()
                if child == 0:
                    _read(path, told, end, is_fresh)
                readers.append(child)
            while time.monotonic() < end:
                try:
                    struct.pack_into("<q", told, 0, log.append(bytes(rng.choice((0, 100, 500)))))
                except OSError:
                    log.discard_before(rng.randrange(log.first + 1, log.last + 2))
        codes = [os.waitpid(reader, 0)[1] for reader in readers]
        behind = [os.WIFEXITED(code) and os.WEXITSTATUS(code) == BEHIND for code in codes]
        expect(not any(behind), "a reader is behind an append that had returned", behind)
        expect(not any(codes), "a reader ends badly", [ended(code) for code in codes])
