"""The data of the demo: real files, split into segments whose order in memory differs from that in their vector."""

from __future__ import annotations

import errno
import os
import random
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import UIO_MAXIOV

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LARGEST_FILE = 4 << 20
LARGEST_TOTAL = 256 << 20
MOST_PIECES = 12  # segments cut from one file
SEED = 1024


@dataclass(slots=True)
class File:
    """One file's contents, and the lengths of the segments that it is split into."""

    path: Path
    data: bytes
    lengths: list[int]


@dataclass(slots=True)
class Batch:
    """As many files as fit in one vector, and memory for them."""

    files: list[File] = field(default_factory=list)
    segments: list[bytearray] = field(default_factory=list)
    plain: list[bytearray] = field(default_factory=list)  # segments of the same lengths, filled without an iterator

    @property
    def nbytes(self) -> int:
        return sum(len(file.data) for file in self.files)

    @property
    def lengths(self) -> list[int]:
        return [length for file in self.files for length in file.lengths]

    def allocate(self, rng: random.Random) -> None:
        self.segments, self.plain = _blocks(self.lengths, rng), _blocks(self.lengths, rng)

    def parts(self, segments: Sequence[bytearray]) -> Iterator[tuple[File, Sequence[bytearray]]]:
        """Each file with its segments."""
        at = 0
        for file in self.files:
            yield file, segments[at : at + len(file.lengths)]
            at += len(file.lengths)

    def reach(self, nbytes: int) -> tuple[int, int]:
        """How many files and segments the first `nbytes` bytes of the vector touch."""
        segments = bisect_left(list(accumulate(self.lengths)), nbytes) + 1
        files = bisect_left(list(accumulate(len(file.data) for file in self.files)), nbytes) + 1
        return files, segments


def collect(root: Path, suffix: str, limit: int) -> list[Batch]:
    """Reads up to `limit` files below a directory into vectors of at most UIO_MAXIOV segments. OSError if all are
    empty.
    """
    if not root.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(root))
    rng = random.Random(SEED)
    batches: list[Batch] = []
    room = taken = nbytes = 0
    for path in _paths(root, suffix):
        if taken == limit or nbytes > LARGEST_TOTAL:
            break
        data = _slurp(path)
        if data is None:
            continue
        file = File(path, data, _cut(len(data), rng))
        if room < len(file.lengths):
            batches.append(Batch())
            room = UIO_MAXIOV
        batches[-1].files.append(file)
        room -= len(file.lengths)
        taken += 1
        nbytes += len(data)
    if not nbytes:
        raise FileNotFoundError(errno.ENOENT, "no file with anything in it below", str(root))
    for batch in batches:
        batch.allocate(rng)
    return batches


def _paths(root: Path, suffix: str) -> Iterator[Path]:
    """Regular files in a fixed order, without third-party packages, which differ between Python installations."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if name not in {"__pycache__", "site-packages", "dist-packages"})
        for name in sorted(names):
            path = Path(folder, name)
            if name.endswith(suffix) and path.is_file():
                yield path


def _slurp(path: Path) -> bytes | None:
    """The contents of a file; None if it cannot be read or is too large to share a vector with others."""
    try:
        return None if path.stat().st_size > LARGEST_FILE else path.read_bytes()
    except OSError:
        return None


def _cut(total: int, rng: random.Random) -> list[int]:
    """Splits a length into parts of varying size. An empty file gets one empty segment."""
    pieces = min(rng.randint(1, MOST_PIECES), max(total, 1))
    marks = sorted(rng.sample(range(1, total), pieces - 1)) if pieces > 1 else []
    return [end - start for start, end in zip([0, *marks], [*marks, total], strict=True)]


def _blocks(lengths: Sequence[int], rng: random.Random) -> list[bytearray]:
    """Separate blocks, allocated in random order, so that neighbours in the vector are not neighbours in memory."""
    blocks = [bytearray()] * len(lengths)
    for index in rng.sample(range(len(lengths)), len(lengths)):
        blocks[index] = bytearray(lengths[index])
    return blocks
