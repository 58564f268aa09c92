"""One boot: QEMU, its console, and what the console says about the tests."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from guest.image import Image

SUMMARY = re.compile(r"^(\d+) passed, (\d+) failed$")
EXIT = re.compile(r"^guest exit: (\d+)$")
DISASTER = re.compile(r"Kernel panic|Oops: |BUG: |general protection fault")
ESCAPES = re.compile(r"\x1b(?:\[[?0-9;]*[A-Za-z]|c)")

# An oops panics the guest at once, and panic=-1 with -no-reboot ends QEMU. The kernel's other messages stay in its log,
# where the tests read them; on the console they would break lines apart. The memory set aside becomes /dev/pmem0 and
# /dev/pmem1.
COMMAND_LINE = (
    "console=ttyS0 quiet loglevel=3 oops=panic panic=-1 nowatchdog hugepages={hugepages} "
    "memmap=128M!512M memmap=64M!704M"
)


class Boot(NamedTuple):
    """The result of one boot. If there is a problem, the numbers cover only the time before it."""

    cpu: str
    passed: int
    failed: int
    seconds: float
    problem: str | None
    console: list[str]


def command(image: Image, initramfs: Path, cpu: str, hugepages: int) -> list[str]:
    return [
        *("qemu-system-x86_64", "-accel", "tcg", "-cpu", cpu, "-smp", "2", "-m", "3G"),
        *("-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(initramfs)),
        *("-append", COMMAND_LINE.format(hugepages=hugepages)),
        *("-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap"),
    ]


def boot(line: list[str], cpu: str, limit: float, log: Path, *, stream: bool) -> Boot:
    """Runs QEMU for at most `limit` seconds. Failed tests are shown at once, other lines only if `stream` is set."""
    console: list[str] = []
    late = threading.Event()
    begin = time.monotonic()
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C"},
        ) as qemu,
    ):

        def end() -> None:
            late.set()
            qemu.kill()

        timer = threading.Timer(limit, end)
        timer.start()
        try:
            assert qemu.stdout is not None
            for raw in qemu.stdout:
                text = ESCAPES.sub("", raw.decode(errors="replace")).rstrip()
                console.append(text)
                print(text, file=kept, flush=True)
                if stream or text.startswith("FAIL "):
                    print(f"  {cpu}: {text}", flush=True)
            code = qemu.wait()
        finally:
            timer.cancel()
            qemu.kill()
    problem = f"no end after {limit:.0f} s" if late.is_set() else None
    return verdict(cpu, console, time.monotonic() - begin, problem, code)


def verdict(cpu: str, console: list[str], seconds: float, problem: str | None, code: int) -> Boot:
    """The verdict on a console's output: a boot without a summary has failed, and so has one whose output contradicts
    its summary.
    """
    summaries = [found for line in console if (found := SUMMARY.match(line))]
    exits = [int(found[1]) for line in console if (found := EXIT.match(line))]
    passed, failed = (int(summaries[-1][1]), int(summaries[-1][2])) if summaries else (0, 0)
    disasters = [line for line in console if DISASTER.search(line)]
    if problem is None:
        if disasters:
            problem = f"the guest's kernel broke: {disasters[0]}"
        elif code:
            problem = f"QEMU ended with {code}"
        elif len(summaries) != 1:
            problem = f"{len(summaries)} summary lines instead of one"
        elif len(exits) != 1:
            problem = "the guest never said how its tests ended"
        elif (exits[0] == 0) != (failed == 0 and passed > 0):
            problem = f"exit code {exits[0]} and {passed} passed, {failed} failed contradict each other"
    return Boot(cpu, passed, failed, seconds, problem, console)
