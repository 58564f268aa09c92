"""Every contestant of `iovec-rs bench` under pytest-benchmark, in a group for each operation and size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs._bench.operations import OPERATIONS

if TYPE_CHECKING:
    from benches.conftest import Compare

CONTESTANTS = {
    "copy": ["copy_to_iter", "mv[:] = mv", "ctypes.memmove", "np.copyto"],
    "gather": [
        "iovec_rs, kvec",
        'b"".join(views)',
        "out[p:q] = view",
        "ctypes.memmove loop",
        "np.take(out=), even grid only",
    ],
    "scatter": ["iovec_rs, kvec", "view[:] = src[p:q]", "ctypes.memmove loop", "grid[index] = src, even grid only"],
    "write": ["copy_from_iter, mmap", "os.pwritev", "mmap[p:q] = view"],
    "read": ["copy_to_iter, mmap", "os.preadv", "view[:] = mmap[p:q]"],
    "durable": ["memcpy_flushcache", "d[:] = s, pmem.persist", "d[:] = s, mmap.flush", "pmem_memcpy_persist, ctypes"],
    "publish": [
        "Slot.publish",
        "d[:] = s, flush_range",
        "d[:] = s, clflush loop",
        "memcpy_nocache, no header, no sum",
    ],
    "consume": ["Slot.consume", "flush_range, d[:] = s", "clflush loop, d[:] = s"],
}


def test_every_operation_is_here() -> None:
    assert set(CONTESTANTS) == set(OPERATIONS)


@pytest.mark.parametrize(
    ("operation", "size", "name"),
    [
        pytest.param(
            operation,
            size,
            name,
            id=f"{operation}-{size}-{name}",
            marks=[pytest.mark.large] if size > max(OPERATIONS[operation].quick_sizes) else [],
        )
        for operation, names in CONTESTANTS.items()
        for size in OPERATIONS[operation].sizes
        for name in names
    ],
)
def test_operation(compare: Compare, quick: bool, operation: str, size: int, name: str) -> None:
    compare(OPERATIONS[operation].build(size, quick), name)
