"""A hunter that finds what its seed says, for the test of the hunt itself."""

from __future__ import annotations

import os
import random
import signal
import time

from hunt.finding import Finding, doing

PATIENCE = 5.0
DIES, HANGS, RAISES, FINDS = 3, 5, 7, 9
"""What each seed, modulo ten, makes it do."""


def hunt(rng: random.Random) -> None:
    seed = _seed_of(rng)
    doing(f"round {seed}")
    if seed == DIES:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == HANGS:
        time.sleep(600)
    if seed == RAISES:
        raise ZeroDivisionError("a panic, say")
    if seed == FINDS:
        raise Finding("wrong bytes at 4096\n  the first at 17")


def _seed_of(rng: random.Random) -> int:
    """The seed of a round, found by the first number of its generator."""
    first = rng.random()
    return next(seed for seed in range(1000) if random.Random(seed).random() == first) % 10
