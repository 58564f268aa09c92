"""Resident memory that a very long iterator takes for each of its segments, beside the objects it was built from."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iovec_rs import PAGE_SIZE, WRITE, IovIter, UserRange, copy_from_iter
from iovec_rs._bench.harness import MismatchError, Row, Table, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAME = "memory"
SEGMENTS = 1_000_000
QUICK_SEGMENTS = 2_000
LENGTH = 64
LIMIT = 40.0
EXPORT = 80  # a Py_buffer: the interpreter writes one for every buffer that is held exported

# What the exports themselves need, by the kind of object imported. Holding immutable bytes takes a reference only.
VECTORS: dict[str, tuple[str, int]] = {
    "ranges": ("iovec of UserRange", 0),
    "views": ("kvec of memoryviews", EXPORT),
    "bytes": ("kvec of bytes", 0),
}


def resident() -> int:
    """Bytes resident after everything unused went back to the system, so that only what is held counts."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_SIZE


def _builder(vector: str, data: bytes) -> Callable[[], IovIter]:
    """All objects exist before the first measurement: only what the iterator adds is charged to it."""
    places = range(0, len(data), LENGTH)
    if vector == "ranges":
        base = IovIter.kvec(WRITE, [data]).ranges()[0].address
        ranges = [UserRange(base + at, LENGTH) for at in places]
        return lambda: IovIter.iovec(WRITE, ranges)
    if vector == "views":
        view = memoryview(data)
        views = [view[at : at + LENGTH] for at in places]
        return lambda: IovIter.kvec(WRITE, views)
    blobs = [data[at : at + LENGTH] for at in places]
    return lambda: IovIter.kvec(WRITE, blobs)


def weigh(vector: str, segments: int) -> dict[str, Any]:
    """In this process: bytes added per segment, and the digest of what the iterator then delivers."""
    data = random.Random(segments).randbytes(segments * LENGTH)
    build = _builder(vector, data)
    out = bytearray(len(data))
    out[:] = bytes(len(out))  # resident before the first measurement, so never part of the difference
    before = resident()
    iterator = build()
    after = resident()
    copied = copy_from_iter(out, iterator)
    return {"per_segment": (after - before) / segments, "digest": digest(out[:copied]), "expected": digest(data)}


def _weigh_elsewhere(vector: str, segments: int) -> dict[str, Any]:
    """A process of its own: memory that another bench freed must not be mistaken for memory never taken."""
    command = [sys.executable, "-m", "benches.bench_memory", vector, str(segments)]
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True)
    weighed: dict[str, Any] = json.loads(done.stdout)
    return weighed


def run(quick: bool) -> Iterator[Table]:
    segments = QUICK_SEGMENTS if quick else SEGMENTS
    table = Table(NAME, f"resident memory of an iterator over {segments} segments", "bytes/seg", identical=True)
    for vector, (name, exports) in VECTORS.items():
        weighed = _weigh_elsewhere(vector, segments)
        if weighed["digest"] != weighed["expected"]:
            raise MismatchError(f"{name!r} did not deliver the bytes it was built over")
        whole = weighed["per_segment"]
        own = whole - exports
        verdict = "" if quick else "met" if own < LIMIT else "MISSED"
        limit = f"<{LIMIT:.0f}"
        if exports:
            table.rows.append(Row(f"iovec_rs, {name}", whole, whole))
            table.rows.append(Row(f"  beyond {exports} B of export record", own, own, target=limit, verdict=verdict))
        else:
            table.rows.append(Row(f"iovec_rs, {name}", own, own, target=limit, verdict=verdict))
    table.notes.append("The objects of the vector, and the list that holds them, are not counted.")
    yield table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vector", choices=VECTORS)
    parser.add_argument("segments", type=int)
    args = parser.parse_args()
    print(json.dumps(weigh(args.vector, args.segments)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
