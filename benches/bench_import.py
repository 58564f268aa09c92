"""Importing a vector of 1024 segments, next to merely acquiring and releasing the same buffers in Python."""

from __future__ import annotations

import random
from array import array
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from iovec_rs import WRITE, IovIter, copy_from_iter, import_iovec
from iovec_rs._bench.harness import Case, Contestant, Table, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "import"
SEGMENTS = 1024
LENGTH = 64


def _gathered(importer: Callable[[], tuple[object, IovIter]], total: int) -> bytearray:
    iterator = importer()[1]
    out = bytearray(total)
    copied = copy_from_iter(out, iterator)
    return out[:copied]


def run(quick: bool) -> Iterator[Table]:
    rounds, repeats = (3, 1) if quick else (201, 4)
    rng = random.Random(SEGMENTS)
    blobs = [rng.randbytes(LENGTH) for _ in range(SEGMENTS)]
    acquire: Callable[[bytes], memoryview] = memoryview  # map() cannot infer the type of a generic class
    total = SEGMENTS * LENGTH
    turns = range(repeats)

    ranges = IovIter.kvec(WRITE, blobs).ranges()
    packed = array("Q", [word for segment in ranges for word in (segment.address, segment.length)])
    packed_numpy = np.array(packed, np.uint64)
    packed_address = packed.buffer_info()[0]

    def releasing() -> None:
        for _ in turns:
            for blob in blobs:
                memoryview(blob).release()

    def listing() -> None:
        for _ in turns:
            _views = [memoryview(blob) for blob in blobs]
            del _views

    def mapping() -> None:
        for _ in turns:
            _views = list(map(acquire, blobs))
            del _views

    def draining() -> None:
        for _ in turns:
            deque(map(acquire, blobs), maxlen=0)

    def expected() -> bytes:
        return b"".join(blobs)

    rivals = [
        Contestant("memoryview(b).release() loop", releasing, expected),
        Contestant("[memoryview(b) for b in l]", listing, expected),
        Contestant("list(map(memoryview, l))", mapping, expected),
        Contestant("deque(map(memoryview, l), 0)", draining, expected),
    ]

    def contender(name: str, uvector: Any, nr_segs: int | None = None) -> Contestant:
        def importing() -> None:
            for _ in turns:
                import_iovec(WRITE, uvector, nr_segs)

        return Contestant(name, importing, lambda: _gathered(lambda: import_iovec(WRITE, uvector, nr_segs), total))

    for title, ours in (
        ("list of bytes", contender("iovec_rs, list of bytes", blobs)),
        ("packed array('Q')", contender("iovec_rs, array('Q')", packed)),
        ("packed numpy array", contender("iovec_rs, numpy array", packed_numpy)),
        ("raw address of a packed array", contender("iovec_rs, raw address", packed_address, SEGMENTS)),
    ):
        case = Case(
            title=f"import_iovec of {SEGMENTS} segments: {title}",
            ours=ours,
            rivals=rivals,
            ops=repeats,
            rounds=rounds,
            unit="ns/import",
        )
        yield measure(NAME, case)
