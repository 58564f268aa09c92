"""A process of the hunt, which runs rounds of one hunter until its time is up or it dies."""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import json
import mmap
import random
import signal
import struct
import sys
import time
import traceback
from pathlib import Path

from hunt.finding import Finding, attach, doing

SHARED_BYTES = mmap.PAGESIZE
HEADER = struct.Struct("<QQ")
"""The layout at the start of the shared page: the seed of the current round, and the number of rounds that have
ended.
"""


def run(  # noqa: PLR0917
    name: str, seed: int, seconds: float, rounds: int, shared: mmap.mmap, report: Path
) -> None:
    hunter = importlib.import_module(f"hunt.{name}")
    end = time.monotonic() + seconds
    done = 0
    while done < rounds if rounds else time.monotonic() < end:
        shared[: HEADER.size] = HEADER.pack(seed + done, done)
        doing(f"round {done}")
        try:
            hunter.hunt(random.Random(seed + done))
        except KeyboardInterrupt:
            return
        except Finding as found:
            _write(report, seed + done, str(found))
        except BaseException as error:
            trace = "".join(traceback.format_exception(error)[-8:])
            _write(report, seed + done, f"{type(error).__name__}: {error}\n{trace}")
        done += 1
    shared[: HEADER.size] = HEADER.pack(seed + done, done)


def _write(report: Path, seed: int, text: str) -> None:
    with report.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"seed": seed, "text": text}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    args = parser.parse_args()
    with args.shared.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), SHARED_BYTES)
    attach(shared)
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    run(args.name, args.seed, args.seconds, args.rounds, shared, args.report)


if __name__ == "__main__":
    main()
