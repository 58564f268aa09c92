"""One buffer to another, of the interpreter's own memory: in the caches, if they hold that much."""

from __future__ import annotations

import ctypes

import iovec_rs

from .harness import Case, Contestant
from .memory import address, fill, placed, scrub
from .optional import numpy

IN_A_ROW = 512
"""Copies of a sample. The first asks the kernel who owns the signals; those right after it need not."""
SAMPLE = 8 << 20
"""Bytes of a sample, at the most, unless one copy has more."""

ALLOCATED = 16
"""Where what was allocated begins in a cache line: behind the allocator's own word or two."""
APART = 2048
"""How far apart in their pages source and target begin: as far as can be, so that no load waits for a store."""


def copy(size: int, quick: bool) -> Case:
    """Each contestant visits as many objects: an iterator of ours for each copy, a view for each slice assignment."""
    copies = 4 if quick else max(1, min(IN_A_ROW, SAMPLE // size))
    source, target = placed(size, ALLOCATED), placed(size, ALLOCATED + APART)
    fill(source, size)
    iterators = [iovec_rs.IovIter.ubuf(iovec_rs.READ, target) for _ in range(copies)]
    start = iterators[0].save_state()
    views = [target[:] for _ in range(copies)]
    to, origin = address(target), address(source)
    addresses = [to] * copies

    def rewind() -> None:
        for i in iterators:
            i.restore(start)

    def ours() -> None:
        for i in iterators:
            iovec_rs.copy_to_iter(source, i)

    def slicing() -> None:
        for view in views:
            view[:] = source

    def memmove() -> None:
        for d in addresses:
            ctypes.memmove(d, origin, size)

    def result() -> memoryview:
        return target

    rivals = [Contestant("mv[:] = mv", slicing, result), Contestant("ctypes.memmove", memmove, result)]
    if (np := numpy()) is not None:
        array = np.frombuffer(source, np.uint8)
        arrays = [np.frombuffer(target, np.uint8) for _ in range(copies)]

        def copyto() -> None:
            for d in arrays:
                np.copyto(d, array)

        rivals.append(Contestant("np.copyto", copyto, result))
    return Case(
        title=f"copy of {size} B, one range to another",
        ours=Contestant("copy_to_iter", ours, result, rewind),
        rivals=rivals,
        ops=copies,
        op_bytes=size,
        scrub=lambda: scrub(target),
    )
