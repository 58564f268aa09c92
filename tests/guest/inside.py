"""The guest's half, started by our init: runs every test and ends with the summary that the host waits for."""

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
    """Register a program's tests. One that cannot even be imported is one failed test, and the others still count."""
    try:
        importlib.import_module(f"guest.{name}")
    except Exception as error:
        broken = error

        def fail() -> NoReturn:
            raise broken

        harness.CASES.append(harness.Case(f"{name}: import", fail))


def huge_pages_left() -> str:
    """Each broken one is lost, and the tests after the last one would fail."""
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
