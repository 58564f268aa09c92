"""The command line: `python -m hunt --seconds 300`, or `make hunt`. Exit code 1 if anything was found."""

from __future__ import annotations

import argparse
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hunt.pursuit import pursue, replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hunt.pursuit import Outcome

HUNTERS = (
    "refusals",
    "copies",
    "races",
    "lists",
    "leaks",
    "cycles",
    "little_memory",
    "forks",
    "inherited",
    "medium",
    "scribbles",
    "behind",
    "poison",
    "refused_syncs",
    "steps",
    "crafted",
    "headers",
    "sources",
)
SECONDS, WORKERS = 180.0, 2


def summary(outcomes: Sequence[Outcome]) -> str:
    lines = [f"{'hunter':<16}{'rounds':>10}  findings"]
    for outcome in outcomes:
        state = f"left out: {outcome.skipped}" if outcome.skipped else str(len(outcome.found))
        lines.append(f"{outcome.name:<16}{outcome.rounds:>10}  {state}")
        for found in outcome.found.values():
            first = found.text.split("\n", 1)[0]
            lines.append(f"    {first[:160]} ({found.times}x)")
            lines.append(f"        replay: {replay(outcome.name, found.seed)}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m hunt", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for all of them (default: %(default)g)")
    parser.add_argument("--seed", type=int, help="of the first round; the next ones count on (default: a random one)")
    parser.add_argument("--only", action="append", metavar="NAME", help="one of " + ", ".join(HUNTERS))
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds of each, however long they take")
    parser.add_argument("--workers", type=int, default=WORKERS, help="hunters at a time (default: %(default)s)")
    args = parser.parse_args()
    names = args.only or list(HUNTERS)
    seed = random.SystemRandom().randrange(1 << 32) if args.seed is None else args.seed
    workers = min(args.workers, len(names))
    print(f"hunting with seed {seed}: {', '.join(names)}", flush=True)
    share = args.seconds * workers / len(names)
    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(lambda name: pursue(name, seed, share, args.rounds), names))
    print(summary(outcomes))
    return int(any(outcome.found for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
