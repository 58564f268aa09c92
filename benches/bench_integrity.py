"""Sums in the pass that copies against sums of their own, and many ranges in one call against a loop."""

from __future__ import annotations

import ctypes
import zlib
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from iovec_rs import READ, IovIter, copy_ranges, copy_to_iter, crc32c, crc32c_and_copy_to_iter
from iovec_rs._bench.harness import Case, Contestant, Table, measure
from iovec_rs._bench.memory import Broom
from iovec_rs._core import least_sum

from benches.arena import as_array, fill, huge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "integrity"
SIZES = (64, 4 << 10, 64 << 10, 1 << 20, 64 << 20)
QUICK_SIZES = (64, 4 << 10)
COLD_SIZES = (64 << 10, 1 << 20, 4 << 20)
QUICK_COLD_SIZES = (64 << 10,)
RANGES = ((64, 100_000), (4 << 10, 10_000), (64 << 10, 1_000))
QUICK_RANGES = ((64, 100), (64 << 10, 4))
BYTES, ROUNDS = 32 << 20, 31
COLD_BYTES = 64 << 20
LIMIT = "limit: one load, two stores, sum"


def noise(nbytes: int) -> bytes:
    return np.random.default_rng(1).bytes(nbytes)


def limits(size: int, places: int, times: int, prepare: Callable[[], object]) -> list[Contestant]:
    """The least that the job takes, if this CPU has the routine for it, over as much memory of its own."""
    least = least_sum(size, places)
    if least is None:
        return []

    def run() -> None:
        for _ in range(times):
            least.run()

    return [Contestant(LIMIT, run, bytes, prepare)]


def summed(size: int, quick: bool) -> Case:
    """The same bytes copied to an iterator, with a sum and in two passes. The idle loop is not taken off."""
    source, target = noise(size), bytearray(size)
    times = 1 if quick else max(1, min(1000, BYTES // size))
    i = IovIter.ubuf(READ, target)
    start = i.save_state()

    def repeated(copy: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                i.restore(start)
                copy()

        return run

    def then(crc: Callable[[bytes], int]) -> Callable[[], object]:
        def copy() -> None:
            copy_to_iter(source, i)
            crc(source)

        return copy

    def contestant(name: str, copy: Callable[[], object]) -> Contestant:
        return Contestant(name, repeated(copy), lambda: target)

    return Case(
        f"copy and sum {size} B",
        contestant("crc32c_and_copy_to_iter", lambda: crc32c_and_copy_to_iter(source, i)),
        [
            contestant("copy_to_iter, no sum", lambda: copy_to_iter(source, i)),
            # With the copy, what two passes without a call between them would take.
            Contestant("crc32c, no copy", repeated(lambda: crc32c(source)), lambda: source),
            contestant("copy_to_iter, google_crc32c", then(google_crc32c.value)),
            contestant("copy_to_iter, zlib.crc32", then(zlib.crc32)),
        ],
        ops=times,
        op_bytes=size,
        rounds=1 if quick else ROUNDS,
        scrub=lambda: target.__setitem__(slice(None), bytes(size)),
        limits=limits(size, 1, times, lambda: None),
    )


def cold(size: int, quick: bool) -> Case:
    """Copy after copy to places of its own. The caches hold neither what is copied nor where it goes."""
    places = 2 if quick else COLD_BYTES // size
    memory, target = huge(size * places), huge(size * places)
    fill(as_array(memory), size)
    broom = Broom(1 << 20 if quick else 96 << 20)
    slots = range(0, size * places, size)
    sources = [memoryview(memory)[at : at + size] for at in slots]
    iterators = [IovIter.ubuf(READ, memoryview(target)[at : at + size]) for at in slots]
    starts = [(i, i.save_state()) for i in iterators]
    # google_crc32c takes nothing that could change.
    kept = [source.tobytes() for source in sources]

    def prepare() -> None:
        for i, start in starts:
            i.restore(start)
        broom.sweep()

    def contestant(name: str, copy: Callable[[Any, IovIter], object], them: Sequence[object] = sources) -> Contestant:
        pairs = list(zip(them, iterators, strict=True))

        def run() -> None:
            for source, i in pairs:
                copy(source, i)

        return Contestant(name, run, lambda: memoryview(target), prepare)

    def then_google(source: bytes, i: IovIter) -> None:
        copy_to_iter(source, i)
        google_crc32c.value(source)

    return Case(
        f"copy and sum {size} B, cold",
        contestant("crc32c_and_copy_to_iter", crc32c_and_copy_to_iter),
        [
            contestant("copy_to_iter, no sum", copy_to_iter),
            contestant("copy_to_iter, google_crc32c", then_google, kept),
        ],
        ops=places,
        op_bytes=size,
        rounds=1 if quick else ROUNDS,
        scrub=lambda: as_array(target).fill(0),
        limits=limits(size, places, places, broom.sweep),
    )


def ranges(size: int, count: int, quick: bool) -> Case:
    """Shuffled ranges gathered into a row."""
    source, target = np.frombuffer(noise(size * count), np.uint8), np.zeros(size * count, np.uint8)
    order = np.random.default_rng(2).permutation(count)
    lengths = np.full(count, size)
    src = np.column_stack([source.ctypes.data + order * size, lengths]).astype(np.uint64)
    dst = np.column_stack([target.ctypes.data + np.arange(count) * size, lengths]).astype(np.uint64)
    pairs = list(zip(dst[:, 0].tolist(), src[:, 0].tolist(), strict=True))
    views = [source.data[at * size : (at + 1) * size] for at in order.tolist()]
    places = [target.data[at * size : (at + 1) * size] for at in range(count)]

    def loop() -> None:
        memmove = ctypes.memmove
        for to, start in pairs:
            memmove(to, start, size)

    def contestant(name: str, run: Callable[[], object]) -> Contestant:
        return Contestant(name, run, lambda: target.data.cast("B"))

    return Case(
        f"{count} ranges of {size} B",
        contestant("copy_ranges, packed", lambda: copy_ranges(dst.data, src.data)),
        [
            contestant("ctypes.memmove loop", loop),
            contestant("copy_ranges, buffers", lambda: copy_ranges(places, views)),
            contestant("copy_ranges, packed, crc32c", lambda: copy_ranges(dst.data, src.data, crc32c=True)),
            contestant("copy_ranges, packed, flush", lambda: copy_ranges(dst.data, src.data, flush=True)),
        ],
        ops=count,
        op_bytes=size,
        rounds=1 if quick else ROUNDS,
        scrub=lambda: target.fill(0),
    )


def run(quick: bool) -> Iterator[Table]:
    for size in QUICK_SIZES if quick else SIZES:
        yield measure(NAME, summed(size, quick))
    for size in QUICK_COLD_SIZES if quick else COLD_SIZES:
        yield measure(NAME, cold(size, quick))
    for size, count in QUICK_RANGES if quick else RANGES:
        yield measure(NAME, ranges(size, count, quick))
