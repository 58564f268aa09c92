"""Reference cycles through iterators, their memory, views and exceptions, which the collector breaks in any order."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from iovec_rs import READ, FaultError, FolioQueue, IovIter, PipeRing, UserRange, XArray, copy_from_iter, import_iovec

from hunt.finding import doing

if TYPE_CHECKING:
    import random


class Box:
    """An object that refers to whatever it is given."""


class Memory(bytearray):
    """A buffer that can refer to an object made over it."""


def _objects(rng: random.Random) -> list[Any]:
    memory = Memory(9000)
    view = memoryview(memory)[rng.randrange(9) :]
    page = Memory(4096)
    array, i = import_iovec(READ, [view, memory] * rng.choice((1, 5)))
    found: list[Any] = [memory, view, page, array, i, i.dup(), IovIter.kvec(READ, [view]), IovIter.ubuf(READ, view)]
    found += [IovIter.xarray(READ, XArray({0: page}), 0, 4096), IovIter.folioq(READ, FolioQueue([page]), 0, 0, 9)]
    found += [IovIter.pipe(READ, PipeRing(2), 9), *found[6].views()]
    try:
        copy_from_iter(UserRange(1 << 63, 8), IovIter.kvec(1, [memory]))
    except (FaultError, OSError, ValueError, TypeError) as error:
        found.append(error)  # refers to this frame, and so to everything in it
    return found


def hunt(rng: random.Random) -> None:
    doing("making loops, and having the collector break them")
    gc.disable()
    try:
        for _ in range(20):
            found = _objects(rng)
            boxes = [Box() for _ in range(5)]
            for index, each in enumerate(rng.sample(found, len(found))):
                setattr(rng.choice(boxes), f"n{index}", each)
            boxes[0].boxes = boxes  # type: ignore[attr-defined]
            found[0].boxes = boxes
            del found, boxes, each
            gc.collect()
    finally:
        gc.enable()
