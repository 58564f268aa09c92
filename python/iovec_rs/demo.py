"""The demo: copies real files into scattered memory and back, and proves that no byte has changed.

Every step runs twice, through an iterator and in plain Python, and prints the time of both. Only the last three do not:
in those memory is bad, which kills plain Python.
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, TextIO

from iovec_rs import READ, UIO_MAXIOV, WRITE, copy_from_iter, copy_to_iter, csum_and_copy_from_iter, import_iovec
from iovec_rs._corpus import Batch, File, collect
from iovec_rs._damaged import LEAST, Experiment, cut, guarded, known_bad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FILES = 400
SAMPLE = 64 << 10  # bytes whose checksum is also computed in plain Python
REPEATS = 5


class DamageError(Exception):
    """A byte has changed; the message says which."""


class Timed(NamedTuple):
    """The time of one job in seconds, through an iterator and in plain Python."""

    ours: float = 0.0
    plain: float = 0.0

    def also(self, more: Timed) -> Timed:
        return Timed(self.ours + more.ours, self.plain + more.plain)


@dataclass(slots=True)
class Work:
    """The data that the steps share."""

    root: Path
    suffix: str
    limit: int
    batches: list[Batch] = field(default_factory=list)

    @property
    def files(self) -> list[File]:
        return [file for batch in self.batches for file in batch.files]

    @property
    def segments(self) -> int:
        return sum(len(batch.segments) for batch in self.batches)

    @property
    def nbytes(self) -> int:
        return sum(batch.nbytes for batch in self.batches)


class Outcome(NamedTuple):
    """The line of figures below a step."""

    files: int
    segments: int
    nbytes: int
    timed: Timed | None = None
    facts: dict[str, str] | None = None


class Step(NamedTuple):
    title: str
    run: Callable[[Work], Outcome]


def _race(ours: Callable[[], object], plain: Callable[[], object]) -> Timed:
    """The shortest of a few runs of each, in alternation, so that both run under the same conditions."""
    best = [float("inf"), float("inf")]
    for _ in range(REPEATS):
        for which, job in enumerate((ours, plain)):
            start = perf_counter()
            job()
            best[which] = min(best[which], perf_counter() - start)
    return Timed(*best)


def read(work: Work) -> Outcome:
    work.batches = collect(work.root, work.suffix, work.limit)
    return Outcome(len(work.files), work.segments, work.nbytes)


def scatter(work: Work) -> Outcome:
    timed = Timed()
    for batch in work.batches:

        def through_iterator(batch: Batch = batch) -> None:
            _, iterator = import_iovec(READ, batch.segments)
            for file in batch.files:
                if copy_to_iter(file.data, iterator) != len(file.data):
                    raise DamageError(f"{file.path} was not copied whole")

        def by_slicing(batch: Batch = batch) -> None:
            for file, blocks in batch.parts(batch.plain):
                source = memoryview(file.data)
                at = 0
                for block in blocks:
                    memoryview(block)[:] = source[at : at + len(block)]
                    at += len(block)

        timed = timed.also(_race(through_iterator, by_slicing))
        for file, blocks in batch.parts(batch.segments):
            _compare(file, b"".join(blocks))
        if batch.segments != batch.plain:
            raise DamageError("slicing and the iterator filled the segments differently")
    return Outcome(len(work.files), work.segments, work.nbytes, timed)


def gather(work: Work) -> Outcome:
    """Copies back into flat memory both ways. The digests cover the bytes from the iterators, file by file."""
    original, returned = hashlib.blake2b(), hashlib.blake2b()
    timed = Timed()
    for batch in work.batches:
        flat, plain = bytearray(batch.nbytes), bytearray(batch.nbytes)

        def through_iterator(batch: Batch = batch, flat: bytearray = flat) -> None:
            _, iterator = import_iovec(WRITE, batch.segments)
            copied = copy_from_iter(flat, iterator)
            if copied != len(flat) or iterator.count:
                raise DamageError(f"the vector gave {copied} of {len(flat)} bytes")

        def by_slicing(batch: Batch = batch, plain: bytearray = plain) -> None:
            view = memoryview(plain)
            at = 0
            for block in batch.segments:
                view[at : at + len(block)] = block
                at += len(block)

        timed = timed.also(_race(through_iterator, by_slicing))
        at = 0
        for file in batch.files:
            _compare(file, flat[at : at + len(file.data)])
            original.update(file.data)
            at += len(file.data)
        returned.update(flat)
        if plain != flat:
            raise DamageError("slicing and the iterator gathered different bytes")
    if original.digest() != returned.digest():
        raise DamageError("the BLAKE2 digests of the files and of the gathered bytes differ")
    return Outcome(len(work.files), work.segments, work.nbytes, timed)


def checksum(work: Work) -> Outcome:
    """The Internet checksum of a sample taken on the way, against the sum of its words as plain Python adds them."""
    batch = max(work.batches, key=lambda each: each.nbytes)
    flat = bytearray(min(SAMPLE, batch.nbytes))
    plain = bytearray(len(flat))
    sums = [0, 0]

    def through_iterator() -> None:
        _, iterator = import_iovec(WRITE, batch.segments)
        _, sums[0] = csum_and_copy_from_iter(flat, iterator)

    def by_hand() -> None:
        view = memoryview(plain)
        at = 0
        for block in batch.segments:
            step = min(len(block), len(view) - at)
            view[at : at + step] = memoryview(block)[:step]
            at += step
        sums[1] = internet_checksum(plain)

    timed = _race(through_iterator, by_hand)
    if flat != plain:
        raise DamageError("the copy that was checksummed differs")
    if sums[0] != sums[1]:
        raise DamageError(f"checksum {sums[0]:#06x}, but by hand {sums[1]:#06x}")
    return Outcome(*batch.reach(len(flat)), len(flat), timed)


def empties(work: Work) -> Outcome:
    """A vector of empty segments only, and a vector in which they surround a file."""
    file = max(work.files, key=lambda each: len(each.data))
    hollow = [bytearray() for _ in range(UIO_MAXIOV)]
    _, iterator = import_iovec(READ, hollow)
    if iterator.count or copy_to_iter(file.data, iterator):
        raise DamageError("an empty vector swallowed bytes")

    blocks = [bytearray(length) for length in file.lengths]
    surrounded = [part for block in blocks for part in (bytearray(), block, bytearray())]
    _, iterator = import_iovec(READ, surrounded)
    copy_to_iter(file.data, iterator)
    if iterator.count:
        raise DamageError(f"{iterator.count} bytes did not reach a vector with empty segments")
    _compare(file, b"".join(blocks))
    return Outcome(1, len(hollow) + len(surrounded), len(file.data))


def _damage(work: Work, experiment: Callable[[bytes, list[int]], Experiment]) -> Outcome:
    """Runs the experiment on the files of the largest batch, split as before. They must fill a few pages."""
    batch = max(work.batches, key=lambda each: each.nbytes)
    data = b"".join(file.data for file in batch.files)
    lengths = [length for file in batch.files for length in file.lengths]
    if len(data) < LEAST:
        lengths.append(LEAST - len(data))
        data = data.ljust(LEAST, b"=")
    told = experiment(data, lengths)
    if told.complaint:
        raise DamageError(told.complaint)
    return Outcome(len(batch.files), len(lengths), len(data), facts=told.facts)


STEPS: list[Step] = [
    Step("read the files, cut them, lay the pieces out in shuffled memory", read),
    Step("scatter: copy_to_iter, one call a file, into a vector of its pieces", scatter),
    Step("gather: copy_from_iter, one call a vector, into flat memory", gather),
    Step("checksum while copying: csum_and_copy_from_iter", checksum),
    Step("empty segments: alone, and all around a file", empties),
    Step("bad memory: a mapped file is cut in half before it is copied", lambda work: _damage(work, cut)),
    Step("bad memory under a guard: code that is not ours goes on", lambda work: _damage(work, guarded)),
    Step("known bad memory: a FaultMap stops the copy before it", lambda work: _damage(work, known_bad)),
]


def internet_checksum(data: bytes | bytearray) -> int:
    """The folded one's-complement sum of the 16-bit words, in the machine's byte order."""
    padded = bytes(data) + bytes(len(data) % 2)
    total = sum(memoryview(padded).cast("H"))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _compare(file: File, returned: bytes | bytearray) -> None:
    if returned != file.data:
        at = next(
            (at for at, (one, other) in enumerate(zip(file.data, returned, strict=False)) if one != other),
            min(len(file.data), len(returned)),
        )
        raise DamageError(f"{file.path} differs from byte {at} on")


def _figures(outcome: Outcome) -> Iterator[str]:
    counts = {"file": outcome.files, "segment": outcome.segments, "byte": outcome.nbytes}
    yield ", ".join(f"{number:,} {what}{'s'[: number != 1]}" for what, number in counts.items())
    if outcome.timed is not None:
        ours, plain = (seconds * 1000 for seconds in outcome.timed)
        yield f"iovec_rs {ours:8.3f} ms   plain Python {plain:8.3f} ms   ratio {plain / ours:6.2f}"
    for what, fact in (outcome.facts or {}).items():
        yield f"  {what:<14}{fact}"


def run(root: Path | None = None, files: int = FILES, out: TextIO | None = None) -> bool:
    """Run every step over at most `files` files below `root` (Python's own sources by default).

    True when every byte came back; False, after saying where, when one did not. OSError when there is nothing to copy.
    """
    out = sys.stdout if out is None else out
    library = Path(sysconfig.get_path("stdlib"))
    work = Work(library, ".py", files) if root is None else Work(root, "", files)
    print(f"iovec_rs demo: files below {work.root}", file=out)
    for number, step in enumerate(STEPS, start=1):
        print(f"\n{number}. {step.title}", file=out, flush=True)
        try:
            outcome = step.run(work)
        except DamageError as damage:
            print(f"\ndemo: FAILED in step {number}: {damage}", file=out)
            return False
        for line in _figures(outcome):
            print(f"   {line}", file=out, flush=True)
    print(
        f"\ndemo: {len(work.files)} files, {work.segments} segments, {work.nbytes} bytes: every byte identical",
        file=out,
    )
    return True
