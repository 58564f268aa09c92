"""``python -m guest``, with the repository's tests directory on the path: boot, test, report."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from guest import boot, debian, image

TESTS = Path(__file__).resolve().parent.parent
LOGS = TESTS.parent / "target" / "guest"
CPUS = ("max", "Nehalem")  # everything that TCG emulates; and a CPU with nothing wider than SSE
PROGRAMS = {"qemu-system-x86_64": "qemu-system-x86", "mkfs.ext4": "e2fsprogs"}
HUGEPAGES = 448  # a test that poisons one makes it unusable for good
TAIL = 50


def run(made: image.Image, cpu: str, options: argparse.Namespace) -> boot.Boot:
    # The link is not resolved, because Python finds its virtual environment by the link's place.
    python = str(Path(sys.executable).absolute())
    settings = {
        "PYTHON": python,
        "PYTHONPATH": str(TESTS),
        "CPU_MODEL": cpu,
        "PROGRAM": "guest.inside",
        "ONLY": options.only,
    }
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"console-{cpu}.log"
    with tempfile.NamedTemporaryFile(suffix=".cpio") as archive:
        archive.write(image.initramfs(made, settings))
        archive.flush()
        line = boot.command(made, Path(archive.name), cpu, HUGEPAGES)
        result = boot.boot(line, cpu, options.limit, log, stream=options.stream)
    said = [f"{cpu}: {result.passed} passed, {result.failed} failed in {result.seconds:.0f} s"]
    if result.problem:
        said[0] += f": {result.problem}"
        said += [f"  the last lines of {log}:", *(f"  | {text}" for text in result.console[-TAIL:])]
    print("\n".join(said), flush=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m guest", description="Test copies over really poisoned memory, in a QEMU guest."
    )
    parser.add_argument("--cpu", nargs="+", default=CPUS, help="CPU models to boot (%(default)s)")
    parser.add_argument(
        "--limit", type=float, default=600.0, metavar="SECONDS", help="the longest a boot may take (%(default)s)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="run the tests whose name contains this")
    parser.add_argument("--stream", action="store_true", help="show the whole console as it comes")
    options = parser.parse_args()
    try:
        debian.need(PROGRAMS)
        made = image.get()
    except debian.GuestError as error:
        print(f"test-guest: {error}", file=sys.stderr)
        return 1

    # A boot keeps only one processor busy, so the boots run in parallel.
    with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
        boots = list(pool.map(lambda cpu: run(made, cpu, options), options.cpu))

    passed, failed = sum(one.passed for one in boots), sum(one.failed for one in boots)
    broken = sum(one.problem is not None for one in boots)
    end = f", {broken} of the boots broke" if broken else ""
    print(f"test-guest: {passed} passed, {failed} failed on {' and '.join(options.cpu)} under {made.name}{end}")
    return 1 if failed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
