"""What is measured, over which sizes. Each operation is a job that several contestants do in their own ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from . import files, flat, lasting, scattered
from .scattered import Scattered

if TYPE_CHECKING:
    from collections.abc import Callable

    from .harness import Case

TOTAL = 16 << 20
"""Bytes that one call moves between scattered segments and flat memory."""
QUICK_TOTAL = 64 << 10
PAST_CACHES = 128 << 20
"""More than any cache holds. What leaves the caches has to go to memory, however little it is."""

FLAT = (64, 512, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20)
SEGMENTS = (64, 256, 512, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 1 << 20)
PUBLICATIONS = (32, 256, 4 << 10, 64 << 10, 1 << 20, 16 << 20)


class Operation(NamedTuple):
    """`build(size, quick)` makes the contestants ready; quick ones do too little to be measured."""

    name: str
    summary: str
    sizes: tuple[int, ...]
    quick_sizes: tuple[int, ...]
    unit: str
    build: Callable[[int, bool], Case]
    moves: Callable[[int], int]
    """Bytes of memory over which the limit of that size is measured: they decide in which cache it is, or in none."""


def total(quick: bool) -> int:
    return QUICK_TOTAL if quick else TOTAL


def _among_segments(name: str, summary: str, build: Callable[[int, bool], Case]) -> Operation:
    return Operation(name, summary, SEGMENTS, (64, 4096), "B a segment", build, lambda _: TOTAL)


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("copy", "one range to another", FLAT, (64, 4096), "B", flat.copy, lambda size: size),
        _among_segments(
            "gather",
            f"{TOTAL >> 20} MiB from shuffled segments",
            lambda size, quick: scattered.gather(Scattered(size, total(quick))),
        ),
        _among_segments(
            "scatter",
            f"{TOTAL >> 20} MiB to shuffled segments",
            lambda size, quick: scattered.scatter(Scattered(size, total(quick))),
        ),
        _among_segments(
            "write",
            f"{TOTAL >> 20} MiB from shuffled segments to a file in memory",
            lambda size, quick: files.write(size, total(quick)),
        ),
        _among_segments(
            "read",
            f"{TOTAL >> 20} MiB from a file in memory to shuffled segments",
            lambda size, quick: files.read(size, total(quick)),
        ),
        Operation(
            "durable",
            "one range to a mapped file, out of the caches",
            FLAT,
            (64, 4096),
            "B",
            lasting.durable,
            lambda _: PAST_CACHES,
        ),
        Operation(
            "publish",
            "shared memory that another host may read",
            PUBLICATIONS,
            (32, 4096),
            "B",
            lasting.publish,
            lambda _: PAST_CACHES,
        ),
        Operation(
            "consume",
            "shared memory that another host wrote",
            PUBLICATIONS,
            (32, 4096),
            "B",
            lasting.consume,
            lambda _: PAST_CACHES,
        ),
    )
}
