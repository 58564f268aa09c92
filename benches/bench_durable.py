"""Copies that are durable when they return, against copies that are not, and against libpmem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benches.durable import flat, tensors, threads, vectored
from benches.durable.ground import NAME, Ground

if TYPE_CHECKING:
    from collections.abc import Iterator

    from iovec_rs._bench.harness import Table

__all__ = ["NAME", "run"]


def run(quick: bool) -> Iterator[Table]:
    ground = Ground(quick)
    yield from flat.run(ground)
    yield from tensors.run(ground)
    yield from threads.run(ground)
    yield from vectored.run(ground)
