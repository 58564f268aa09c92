"""Thousands of calls, also refused ones, must leak no references, memory or descriptors."""

from __future__ import annotations

import contextlib
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hunt.arguments import Pool
from hunt.finding import doing, expect
from hunt.refusals import CALLABLES, REFUSALS, prepare

if TYPE_CHECKING:
    import random

    from hunt.refusals import Callee

TIMES = 400
GROWING = ("append", "store", "add", "poison")
ROOM = 2 << 20
"""The bytes by which the process may grow for other reasons."""


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def hunt(rng: random.Random) -> None:
    pool = Pool(rng)
    try:
        _repeat(pool, rng.choice(CALLABLES))
    finally:
        pool.close()


def _repeat(pool: Pool, callee: Callee) -> None:
    """Makes one call with the same arguments many times."""
    prepared = prepare(pool, callee)
    if prepared is None:
        return
    run, watched, call, meddled = prepared
    if meddled or "PipeRing" in call or callee.method in GROWING:
        return  # its effects accumulate
    doing(call)

    def some(times: int) -> None:
        for _ in range(times):
            with contextlib.suppress(*REFUSALS):
                run()

    some(50)
    gc.collect()
    simple = [each for each in watched if type(each) in (bytearray, bytes, memoryview, list, dict)]
    counts = [sys.getrefcount(each) for each in simple]
    descriptors, resident = _descriptors(), _resident()
    some(TIMES)
    gc.collect()
    grown = [
        (type(each).__name__, now - before)
        for each, before, now in zip(simple, counts, map(sys.getrefcount, simple), strict=True)
    ]
    leaked = [entry for entry in grown if entry[1] >= TIMES // 2]
    expect(not leaked, f"{callee.name} leaks references", call, leaked)
    expect(_descriptors() <= descriptors + 5, f"{callee.name} leaks descriptors", call, _descriptors() - descriptors)
    expect(_resident() <= resident + ROOM, f"{callee.name} leaks memory", call, _resident() - resident)
