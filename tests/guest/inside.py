"""The guest's half, which our init starts: it runs every test and prints the summary that the host waits for."""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from pathlib import Path
from typing import NoReturn

import iovec_rs

from guest import harness

PROGRAMS = (
    "facts",
    "plain",
    "broken_user",
    "broken_held",
    "handler",
    "careful",
    "dax",
    "regions",
    "device",
    "guarded",
    "helpers",
)


def load(name: str) -> None:
    """Registers a program's tests. A program that cannot be imported counts as one failed test, and the others still
    run.
    """
    try:
        importlib.import_module(f"guest.{name}")
    except Exception as error:
        broken = error

        def fail() -> NoReturn:
            raise broken

        harness.CASES.append(harness.Case(f"{name}: import", fail))


def huge_pages_left() -> str:
    """The number of huge pages left. Each that was broken is lost, and without any the tests would fail."""
    found = re.search(r"HugePages_Free: +(\d+)", Path("/proc/meminfo").read_text(encoding="ascii"))
    return found[1] if found else "no"


def main() -> int:
    print(f"Linux {platform.release()}, {os.environ.get('CPU_MODEL', '?')}, iovec_rs {iovec_rs.__version__}")
    for name in PROGRAMS:
        load(name)
    passed, failed = harness.run_all(*sys.argv[1:2])
    print(f"{huge_pages_left()} huge pages left")
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
