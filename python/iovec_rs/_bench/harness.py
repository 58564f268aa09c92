"""Interleaved, pinned timing of several ways to do one job, and the proof that they did the same job."""

from __future__ import annotations

import gc
import hashlib
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Produced = bytes | bytearray | memoryview


class MismatchError(Exception):
    """Two contestants of one case did not produce the same bytes, so their times must not be compared."""


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do the job of a case."""

    name: str
    run: Callable[[], object]
    result: Callable[[], Produced]
    prepare: Callable[[], object] = _nothing  # before every sample, never timed


@dataclass(frozen=True, slots=True)
class Case:
    """One job, our way to do it and the rivals'."""

    title: str
    ours: Contestant
    rivals: Sequence[Contestant]
    ops: int  # operations in one run()
    op_bytes: int = 0  # bytes moved by one operation, when GB/s say something
    rounds: int = 101
    unit: str = "ns/op"
    scrub: Callable[[], object] = _nothing  # destroys the output before each proof run
    idle: Callable[[], object] | None = None  # the same loop around nothing: its time is subtracted
    limits: Sequence[Contestant] = ()  # race along over memory of their own: no proof


@dataclass(slots=True)
class Row:
    name: str
    median: float
    minimum: float
    rate: float | None = None  # GB/s
    ratio: float | None = None
    target: str = ""
    verdict: str = ""


@dataclass(slots=True)
class Table:
    bench: str
    title: str
    unit: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    identical: bool = False  # every contestant produced the same bytes

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@contextmanager
def quiet() -> Iterator[None]:
    """One CPU and no garbage collection, so that neither a migration nor a collection lands in a sample."""
    allowed = os.sched_getaffinity(0)
    collecting = gc.isenabled()
    os.sched_setaffinity(0, {max(allowed)})
    gc.disable()
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        if collecting:
            gc.enable()


def digest(data: Produced) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def prove(contestants: Sequence[Contestant], scrub: Callable[[], object]) -> str:
    """Run each contestant once over a destroyed output; the digest they share, or MismatchError."""
    shared = None
    for contestant in contestants:
        scrub()
        contestant.prepare()
        contestant.run()
        produced = digest(contestant.result())
        if shared is None:
            shared = produced
        elif produced != shared:
            raise MismatchError(f"{contestant.name!r} and {contestants[0].name!r} produced different bytes")
    if shared is None:
        raise ValueError("a case without contestants")
    return shared


def race(contestants: Sequence[Contestant], rounds: int, warmup: int = 2) -> list[list[int]]:
    """Nanoseconds of every sample, by contestant. ABC, BCA, CAB, ...: nobody always runs after the same rival."""
    if rounds < 1:
        raise ValueError("a race needs a round")
    samples: list[list[int]] = [[] for _ in contestants]
    for turn in range(warmup + rounds):
        for place in range(len(contestants)):
            which = (turn + place) % len(contestants)
            contestant = contestants[which]
            contestant.prepare()
            run = contestant.run
            start = perf_counter_ns()
            run()
            took = perf_counter_ns() - start
            if turn >= warmup:
                samples[which].append(took)
    return samples


def per_op(samples: Sequence[int], ops: int, idle: float = 0.0) -> tuple[float, float]:
    """Median and minimum of one operation, net of the loop around it."""
    return max(median(samples) - idle, 1.0) / ops, max(min(samples) - idle, 1.0) / ops


def ratio(ours: Sequence[int], theirs: Sequence[int], idle: float = 0.0) -> float:
    """The median of what each round's ratio is: of one that a neighbour slowed down, both sides were."""
    return median(max(his - idle, 1.0) / max(mine - idle, 1.0) for mine, his in zip(ours, theirs, strict=True))


def gigabytes(nbytes: int, nanoseconds: float) -> float | None:
    return nbytes / nanoseconds if nbytes else None


def measure(bench: str, case: Case) -> Table:
    """The table of one case."""
    contestants = [case.ours, *case.rivals]
    table = Table(bench, case.title, case.unit)
    prove(contestants, case.scrub)
    table.identical = True

    contestants += case.limits
    runners = list(contestants)
    if case.idle is not None:
        runners.append(Contestant("(idle loop)", case.idle, bytes))
    samples = race(runners, case.rounds)
    idle = median(samples.pop()) if case.idle is not None else 0.0

    speeds = [per_op(taken, case.ops, idle) for taken in samples]
    for which, contestant in enumerate(contestants):
        middle, least = speeds[which]
        row = Row(contestant.name, middle, least, gigabytes(case.op_bytes, middle))
        if which > 0:
            row.ratio = ratio(samples[0], samples[which], idle)
        table.rows.append(row)
    return table


def fit(case: Case, seconds: float, least: int = 5, most: int = 301) -> Case:
    """The case with as many rounds as take so long, judged by one."""
    start = perf_counter_ns()
    for contestant in (case.ours, *case.rivals):
        contestant.prepare()
        contestant.run()
    took = max(perf_counter_ns() - start, 1)
    return replace(case, rounds=max(least, min(most, int(seconds * 1e9 / took))))
