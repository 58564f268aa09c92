"""The guest's half of `guest.kills`: checks the log that earlier boots left, and appends until it is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from iovec_rs import PmemLog

from guest import pmem

if TYPE_CHECKING:
    from typing import NoReturn

SIZE = 8 << 20


def record(number: int) -> bytes:
    """A record in which every word is its number. Its length depends on the number."""
    return number.to_bytes(8, "little") * (1 + number * 7919 % 900)


def check(log: PmemLog) -> None:
    numbers = [place.sequence for place in log]
    if numbers != list(range(log.first, log.last + 1)):
        print(f"WRONG records: {numbers[:5]} to {numbers[-5:]} of {log.first} to {log.last}")
    wrong = [number for number in numbers if log.read(number) != record(number)]
    if wrong or log.verify():
        print(f"WRONG contents: {wrong[:20]}, {log.verify()[:3]}")


def main() -> NoReturn:
    device = pmem.DEVICE
    with device.open("rb") as blocks:
        blocks.seek(1024 + 56)
        is_new = blocks.read(2) != b"\x53\xef"  # ext4's magic
    if is_new:
        subprocess.run(["mkfs.ext4", "-q", "-F", "-b", "4096", device], check=True, capture_output=True)
    pmem.mount()
    path = pmem.HOME / "log"
    with PmemLog.open(path, size=SIZE, create=True) as log:
        if log.granularity != "cache_line":
            print(f"WRONG granularity: {log.granularity}")
        if is_new:
            os.sync()
        check(log)
        print(f"found {log.first}..{log.last}, {log.recovered} bytes cut", flush=True)
        while True:
            number = log.last + 1
            while log.free < len(record(number)):
                log.discard_before(log.first + 1)
            print(f"appended {log.append(record(number))}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
