"""One small copy through a prepared iterator under pytest-benchmark, in a group for each direction and size, and in one
for each sort of source and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benches import bench_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from iovec_rs._bench.harness import Case

    from benches.conftest import Compare

CONTESTANTS = ["iovec_rs, ubuf", "iovec_rs, kvec", "mv[:] = other", "np.copyto", "ctypes.memmove"]


@pytest.mark.parametrize("name", CONTESTANTS)
@pytest.mark.parametrize("size", bench_call.SIZES)
@pytest.mark.parametrize("build", [bench_call.to_iter, bench_call.from_iter])
def test_call(compare: Compare, quick: bool, build: Callable[[int, int, int], Case], size: int, name: str) -> None:
    compare(build(size, 1 if quick else 16, 101), name)


@pytest.mark.parametrize("name", ["iovec_rs, ubuf", "mv[:] = other"])
@pytest.mark.parametrize(
    ("source", "size"),
    [(source, size) for source in bench_call.HEAP for size in bench_call.SIZES[1:]]
    + [(source, size) for source in bench_call.MAPPED for size in bench_call.MAPPED_SIZES],
)
def test_source(compare: Compare, quick: bool, source: str, size: int, name: str) -> None:
    compare(bench_call.argument(source, size, 1 if quick else 16, 101), name)
