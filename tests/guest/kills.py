"""``python -m guest.kills``: a guest that appends to a log is killed, again and again.

The guest's memory is a file of the host, which outlives QEMU. A part of it is persistent memory with a DAX file system.
Each boot reports what it found in the log, checks every record, and appends until QEMU gets SIGKILL. The next boot must
find every record that was reported on the console by then.

This shows that log and file system recover after a kernel that stopped at any moment. It cannot show a store that was
lost in a CPU cache, because the emulator's stores go to the host's page cache and stay there.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from guest import debian, image
from guest.__main__ import LOGS, PROGRAMS, TESTS
from guest.boot import DISASTER, ESCAPES, EXIT

if TYPE_CHECKING:
    from collections.abc import Iterator

FOUND = re.compile(r"^found (-?\d+)\.\.(-?\d+), (\d+) bytes cut$")
APPENDED = re.compile(r"^appended (\d+)$")
MEMORY = 1 << 30
COMMAND_LINE = "console=ttyS0 quiet loglevel=3 oops=panic panic=-1 nowatchdog nokaslr memmap=64M!512M"
LIMIT = 300.0  # the seconds that a boot may take up to its first record


class KilledError(Exception):
    """Says what was lost, or why that could not be determined."""


class Round(NamedTuple):
    """The reports of one guest before it was killed."""

    first: int
    last: int
    cut: int
    acknowledged: int


def command(made: image.Image, initramfs: Path, memory: Path) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", f"{MEMORY >> 20}M"),
        *("-object", f"memory-backend-file,id=memory,size={MEMORY},mem-path={memory},share=on"),
        *("-machine", "pc,memory-backend=memory"),
        *("-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"),
        *("-kernel", str(made.kernel), "-initrd", str(initramfs), "-append", COMMAND_LINE),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
    ]


def lines_until(qemu: subprocess.Popen[bytes], log: Path, deadline: float) -> Iterator[str]:
    """Yields whole lines of the console as they arrive, until the deadline or the end."""
    assert qemu.stdout is not None
    descriptor, rest = qemu.stdout.fileno(), b""
    with log.open("a", encoding="utf-8") as kept:
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([descriptor], [], [], left)[0]:
                return
            data = os.read(descriptor, 1 << 16)
            if not data:
                return
            *whole, rest = (rest + data).split(b"\n")
            for raw in whole:
                text = ESCAPES.sub("", raw.decode(errors="replace")).rstrip()
                print(text, file=kept)
                yield text


def require_good(text: str) -> None:
    if DISASTER.search(text) or text.startswith("WRONG") or EXIT.match(text):
        raise KilledError(f"the guest ended by itself, or found damage: {text}")


def one(line: list[str], log: Path, last: int, seconds: float) -> Round:
    """Boots, lets the guest append for this long, and kills it. `last` is the last record that it must find."""
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as qemu:
        try:
            found, acknowledged = None, -1
            deadline = time.monotonic() + LIMIT
            for text in lines_until(qemu, log, deadline):
                require_good(text)
                if match := FOUND.match(text):
                    found = [int(number) for number in match.groups()]
                    break
            if found is None:
                raise KilledError(f"the guest found no log, see {log}")
            first, there, cut = found
            if there < last:
                raise KilledError(f"record {last} was acknowledged and {there} is the last that is there")
            for text in lines_until(qemu, log, time.monotonic() + seconds):
                require_good(text)
                if match := APPENDED.match(text):
                    acknowledged = int(match[1])
            qemu.send_signal(signal.SIGKILL)
            # The lines that it printed before it was killed.
            for text in lines_until(qemu, log, time.monotonic() + 60):
                if match := APPENDED.match(text):
                    acknowledged = int(match[1])
        finally:
            qemu.kill()
    return Round(first, there, cut, max(acknowledged, there))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m guest.kills", description="Kill a guest that appends to a log.")
    parser.add_argument("--kills", type=int, default=5, help="how often (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments at which it is killed (%(default)s)")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    try:
        debian.need(PROGRAMS)
        made = image.get()
    except debian.GuestError as error:
        print(f"guest.kills: {error}", file=sys.stderr)
        return 1
    python = str(Path(sys.executable).absolute())
    settings = {
        "PYTHON": python,
        "PYTHONPATH": str(TESTS),
        "CPU_MODEL": "max",
        "PROGRAM": "guest.appending",
        "ONLY": "",
    }
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / "console-kills.log"
    log.unlink(missing_ok=True)
    last, cut = -1, 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        archive, memory = Path(directory, "initramfs.cpio"), Path(directory, "memory")
        archive.write_bytes(image.initramfs(made, settings))
        line = command(made, archive, memory)
        for number in range(1, options.kills + 2):  # the last boot only checks the log
            begin = time.monotonic()
            try:
                seen = one(line, log, last, chance.uniform(0, 3) if number <= options.kills else 0)
            except KilledError as error:
                print(f"guest.kills: after {number - 1} kills: {error}", flush=True)
                return 1
            cut += seen.cut != 0
            took = time.monotonic() - begin
            print(
                f"{number}: found {seen.first} to {seen.last}, {seen.cut} bytes cut; acknowledged up to "
                f"{seen.acknowledged}; {took:.0f} s",
                flush=True,
            )
            last = seen.acknowledged
    print(f"guest.kills: {options.kills} kills, {last + 1} records acknowledged, none lost; {cut} torn tails were cut")
    return 0


if __name__ == "__main__":
    sys.exit(main())
