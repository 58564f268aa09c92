"""Segments to and from a file in memory: a system call for up to `IOV_MAX` of them, or copies to its mapping."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import iovec_rs

from .harness import Case, Contestant
from .memory import fill, scrub
from .scattered import Scattered

if TYPE_CHECKING:
    from collections.abc import Callable

IOV_MAX = os.sysconf("SC_IOV_MAX")


class File:
    """A file without a name, mapped, and the segments that go to it or come from it."""

    def __init__(self, size: int, total: int) -> None:
        self.them = Scattered(size, total)
        fd = os.memfd_create("iovec_rs-bench")
        os.ftruncate(fd, total)
        self.mapping = mmap.mmap(fd, total)
        self.fd = fd
        scrub(self.mapping)
        views = self.them.views
        self.batches = [views[at : at + IOV_MAX] for at in range(0, len(views), IOV_MAX)]

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)

    def each(self, call: Callable[[int, list[memoryview], int], int]) -> None:
        at = 0
        for batch in self.batches:
            moved = call(self.fd, batch, at)
            if moved != len(batch) * self.them.size:
                raise OSError(f"{moved} bytes were moved, not {len(batch) * self.them.size}")
            at += moved


def write(size: int, total: int) -> Case:
    file = File(size, total)
    them = file.them
    fill(them.arena, size)
    kvec, rewind = them.kvec(iovec_rs.WRITE)
    whole = memoryview(file.mapping)

    def result() -> memoryview:
        return whole

    return Case(
        title=f"{total >> 10} KiB to a file in memory, in segments of {size} B",
        ours=Contestant("copy_from_iter, mmap", lambda: iovec_rs.copy_from_iter(whole, kvec), result, rewind),
        rivals=[
            Contestant("os.pwritev", lambda: file.each(os.pwritev), result),
            Contestant("mmap[p:q] = view", lambda: them.gather_by_slices(whole), result),
        ],
        ops=them.count,
        op_bytes=size,
        unit="ns/seg",
        scrub=lambda: scrub(file.mapping),
    )


def read(size: int, total: int) -> Case:
    file = File(size, total)
    them = file.them
    fill(file.mapping, size)
    kvec, rewind = them.kvec(iovec_rs.READ)
    whole = memoryview(file.mapping)

    def result() -> memoryview:
        return them.arena_view

    return Case(
        title=f"{total >> 10} KiB from a file in memory, to segments of {size} B",
        ours=Contestant("copy_to_iter, mmap", lambda: iovec_rs.copy_to_iter(whole, kvec), result, rewind),
        rivals=[
            Contestant("os.preadv", lambda: file.each(os.preadv), result),
            Contestant("view[:] = mmap[p:q]", lambda: them.scatter_by_slices(whole), result),
        ],
        ops=them.count,
        op_bytes=size,
        unit="ns/seg",
        scrub=lambda: scrub(them.arena),
    )
