"""Every copy function in one form: between a part of an arena, which may be bad, and good memory of the same length."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

from iovec_rs import (
    READ,
    WRITE,
    Fault,
    FaultError,
    IovIter,
    McResult,
    UserRange,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_page_from_iter,
    copy_page_to_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_mcsafe,
    crc32c_and_copy_from_iter,
    crc32c_and_copy_from_iter_flushcache,
    crc32c_and_copy_to_iter,
    crc32c_and_copy_to_iter_mcsafe,
    crc32c_and_memcpy_flushcache,
    crc32c_and_memcpy_mcsafe,
    csum_and_copy_from_iter,
    csum_and_copy_to_iter,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
)

from support.arena import Arena
from support.sums import crc32c

__all__ = ["FROM_BAD", "NONTEMPORAL_FROM_BAD", "NONTEMPORAL_INTO_BAD", "TO_BAD"]

Outcome = tuple[int, Fault | None]
Primitive = Callable[[Arena, int, int, memoryview], Outcome]
"""Copies between `n` bytes of the arena, from an offset on, and good memory of that length."""


def through(i: IovIter, call: Callable[[IovIter], int]) -> Outcome:
    """Runs a copy, and returns its count and its fault, whether it returned or raised them."""
    count = i.count
    try:
        copied, fault = call(i), i.fault
    except FaultError as error:
        copied, fault = error.copied, error.fault
    assert i.count == count - copied
    return copied, fault


def across(dst: IovIter, src: IovIter) -> Outcome:
    count = dst.count
    copied, fault = through(src, lambda i: copy_iter(dst, i))
    assert dst.count == count - copied
    return copied, fault


def flat(
    dst: memoryview | UserRange,
    src: memoryview | UserRange,
    copy: Callable[[memoryview | UserRange, memoryview | UserRange], McResult] = memcpy_mcsafe,
) -> Outcome:
    copied, remaining, fault = copy(dst, src)
    assert copied + remaining == (len(src) if isinstance(src, memoryview) else src.length)
    return copied, fault


BEFORE = 0x12345678
"""The sum of the bytes before, which the copies continue."""


def summed(good: memoryview, i: IovIter, call: Callable[[IovIter], tuple[int, int]]) -> Outcome:
    """As `through`, for a copy with a sum. Checks that it is the sum of the bytes counted, which are at the start of
    the good side.
    """
    sums: list[int | None] = []

    def copy(i: IovIter) -> int:
        try:
            copied, crc = call(i)
        except FaultError as error:
            sums.append(error.crc32c)
            raise
        sums.append(crc)
        return copied

    copied, fault = through(i, copy)
    assert sums == [crc32c(good[:copied], BEFORE)]
    return copied, fault


def flat_summed(
    good: memoryview,
    dst: memoryview | UserRange,
    src: memoryview | UserRange,
    copy: Callable[[memoryview | UserRange, memoryview | UserRange, int], tuple[McResult, int]],
) -> Outcome:
    result, crc = copy(dst, src, BEFORE)
    assert crc == crc32c(good[: result.copied], BEFORE)
    return flat(dst, src, lambda _dst, _src: result)


def pieces(view: memoryview) -> list[memoryview]:
    """The same bytes in segments that end inside cache lines and at their ends; some are empty."""
    found: list[memoryview] = []
    start = 0
    for length in cycle((1, 0, 63, 64, 5, 300, 0, 131, 2, 600)):
        if start >= len(view):
            return found
        found.append(view[start : start + length])
        start += length
    return found


def run(view: memoryview, length: int) -> list[memoryview]:
    """The same bytes in segments of one length, of which the last may be shorter."""
    return [view[at : at + length] for at in range(0, len(view), length)]


FROM_BAD: dict[str, Primitive] = {
    "copy_to_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, good), lambda i: copy_to_iter(bad.buffer[at : at + n], i)
    ),
    "copy_to_iter range": lambda bad, at, n, good: through(
        IovIter.iovec(READ, [good]), lambda i: copy_to_iter(bad.range(at, n), i)
    ),
    "copy_page_to_iter": lambda bad, at, n, good: through(
        IovIter.kvec(READ, [good]), lambda i: copy_page_to_iter(bad.buffer, at, n, i)
    ),
    "copy_from_iter ubuf": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.buffer[at : at + n]), lambda i: copy_from_iter(good, i)
    ),
    "copy_from_iter iovec range": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, [bad.range(at, n)]), lambda i: copy_from_iter(good, i)
    ),
    "copy_from_iter kvec": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, [bad.buffer[at : at + n]]), lambda i: copy_from_iter(good, i)
    ),
    "copy_from_iter run of 64": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, run(bad.buffer[at : at + n], 64)), lambda i: copy_from_iter(good, i)
    ),
    "copy_from_iter run of 24": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, run(bad.buffer[at : at + n], 24)), lambda i: copy_from_iter(good, i)
    ),
    "copy_to_iter run of 64": lambda bad, at, n, good: through(
        IovIter.iovec(READ, run(good, 64)), lambda i: copy_to_iter(bad.buffer[at : at + n], i)
    ),
    "copy_iter": lambda bad, at, n, good: across(
        IovIter.ubuf(READ, good), IovIter.iovec(WRITE, [bad.buffer[at : at + n]])
    ),
    "copy_iter runs": lambda bad, at, n, good: across(
        IovIter.kvec(READ, run(good, 48)), IovIter.iovec(WRITE, run(bad.buffer[at : at + n], 64))
    ),
    "copy_from_iter_flushcache run of 64": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, run(bad.buffer[at : at + n], 64)), lambda i: copy_from_iter_flushcache(good, i)
    ),
    "copy_to_iter_mcsafe": lambda bad, at, n, good: through(
        IovIter.kvec(READ, [good]), lambda i: copy_to_iter_mcsafe(bad.buffer[at : at + n], i)
    ),
    "memcpy_mcsafe": lambda bad, at, n, good: flat(good, bad.buffer[at : at + n]),
    "memcpy_mcsafe range": lambda bad, at, n, good: flat(good, bad.range(at, n)),
    "csum_and_copy_to_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, good), lambda i: csum_and_copy_to_iter(bad.buffer[at : at + n], i)[0]
    ),
    "csum_and_copy_from_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.range(at, n)), lambda i: csum_and_copy_from_iter(good, i)[0]
    ),
    "copy_from_iter_nocache": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.buffer[at : at + n]), lambda i: copy_from_iter_nocache(good, i)
    ),
    "copy_from_iter_nocache pieces": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, pieces(bad.buffer[at : at + n])), lambda i: copy_from_iter_nocache(good, i)
    ),
    "copy_from_iter_flushcache range": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.range(at, n)), lambda i: copy_from_iter_flushcache(good, i)
    ),
    "copy_from_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, pieces(bad.buffer[at : at + n])), lambda i: copy_from_iter_flushcache(good, i)
    ),
    "copy_to_iter_flushcache": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, good), lambda i: copy_to_iter_flushcache(bad.buffer[at : at + n], i)
    ),
    "copy_to_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.iovec(READ, pieces(good)), lambda i: copy_to_iter_flushcache(bad.range(at, n), i)
    ),
    "memcpy_nocache": lambda bad, at, n, good: flat(good, bad.buffer[at : at + n], memcpy_nocache),
    "memcpy_flushcache": lambda bad, at, n, good: flat(good, bad.range(at, n), memcpy_flushcache),
    "crc32c_and_copy_to_iter": lambda bad, at, n, good: summed(
        good, IovIter.ubuf(READ, good), lambda i: crc32c_and_copy_to_iter(bad.range(at, n), i, None, BEFORE)
    ),
    "crc32c_and_copy_to_iter pieces": lambda bad, at, n, good: summed(
        good,
        IovIter.kvec(READ, pieces(good)),
        lambda i: crc32c_and_copy_to_iter(bad.buffer[at : at + n], i, crc=BEFORE),
    ),
    "crc32c_and_copy_from_iter": lambda bad, at, n, good: summed(
        good, IovIter.ubuf(WRITE, bad.range(at, n)), lambda i: crc32c_and_copy_from_iter(good, i, crc=BEFORE)
    ),
    "crc32c_and_copy_from_iter pieces": lambda bad, at, n, good: summed(
        good,
        IovIter.kvec(WRITE, pieces(bad.buffer[at : at + n])),
        lambda i: crc32c_and_copy_from_iter(good, i, crc=BEFORE),
    ),
    "crc32c_and_copy_from_iter_flushcache pieces": lambda bad, at, n, good: summed(
        good,
        IovIter.iovec(WRITE, pieces(bad.buffer[at : at + n])),
        lambda i: crc32c_and_copy_from_iter_flushcache(good, i, crc=BEFORE),
    ),
    "crc32c_and_copy_to_iter_mcsafe": lambda bad, at, n, good: summed(
        good,
        IovIter.iovec(READ, pieces(good)),
        lambda i: crc32c_and_copy_to_iter_mcsafe(bad.buffer[at : at + n], i, crc=BEFORE),
    ),
    "crc32c_and_memcpy_mcsafe": lambda bad, at, n, good: flat_summed(
        good, good, bad.buffer[at : at + n], crc32c_and_memcpy_mcsafe
    ),
    "crc32c_and_memcpy_flushcache": lambda bad, at, n, good: flat_summed(
        good, good, bad.range(at, n), crc32c_and_memcpy_flushcache
    ),
}

TO_BAD: dict[str, Primitive] = {
    "copy_to_iter ubuf": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, bad.buffer[at : at + n]), lambda i: copy_to_iter(good, i)
    ),
    "copy_to_iter iovec range": lambda bad, at, n, good: through(
        IovIter.iovec(READ, [bad.range(at, n)]), lambda i: copy_to_iter(good, i)
    ),
    "copy_to_iter kvec": lambda bad, at, n, good: through(
        IovIter.kvec(READ, [bad.buffer[at : at + n]]), lambda i: copy_to_iter(good, i)
    ),
    "copy_from_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: copy_from_iter(bad.buffer[at : at + n], i)
    ),
    "copy_from_iter range": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, [good]), lambda i: copy_from_iter(bad.range(at, n), i)
    ),
    "copy_page_from_iter": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, [good]), lambda i: copy_page_from_iter(bad.buffer, at, n, i)
    ),
    "copy_to_iter run of 64": lambda bad, at, n, good: through(
        IovIter.kvec(READ, run(bad.buffer[at : at + n], 64)), lambda i: copy_to_iter(good, i)
    ),
    "copy_to_iter run of 24": lambda bad, at, n, good: through(
        IovIter.iovec(READ, run(bad.buffer[at : at + n], 24)), lambda i: copy_to_iter(good, i)
    ),
    "copy_from_iter run of 64": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, run(good, 64)), lambda i: copy_from_iter(bad.buffer[at : at + n], i)
    ),
    "copy_iter": lambda bad, at, n, good: across(
        IovIter.iovec(READ, [bad.buffer[at : at + n]]), IovIter.ubuf(WRITE, good)
    ),
    "copy_iter runs": lambda bad, at, n, good: across(
        IovIter.kvec(READ, run(bad.buffer[at : at + n], 64)), IovIter.iovec(WRITE, run(good, 48))
    ),
    "zero run of 64": lambda bad, at, n, _: through(
        IovIter.iovec(READ, run(bad.buffer[at : at + n], 64)), lambda i: i.zero()
    ),
    "zero": lambda bad, at, n, _: through(IovIter.ubuf(READ, bad.buffer[at : at + n]), lambda i: i.zero()),
    "zero kvec": lambda bad, at, n, _: through(IovIter.kvec(READ, [bad.buffer[at : at + n]]), lambda i: i.zero()),
    "copy_to_iter_mcsafe": lambda bad, at, n, good: through(
        IovIter.iovec(READ, [bad.buffer[at : at + n]]), lambda i: copy_to_iter_mcsafe(good, i)
    ),
    "memcpy_mcsafe": lambda bad, at, n, good: flat(bad.buffer[at : at + n], good),
    "memcpy_mcsafe range": lambda bad, at, n, good: flat(bad.range(at, n), good),
    "csum_and_copy_to_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, bad.range(at, n)), lambda i: csum_and_copy_to_iter(good, i)[0]
    ),
    "csum_and_copy_from_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: csum_and_copy_from_iter(bad.buffer[at : at + n], i)[0]
    ),
    "copy_from_iter_nocache": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: copy_from_iter_nocache(bad.buffer[at : at + n], i)
    ),
    "copy_from_iter_nocache pieces": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, pieces(good)), lambda i: copy_from_iter_nocache(bad.range(at, n), i)
    ),
    "copy_from_iter_flushcache": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: copy_from_iter_flushcache(bad.range(at, n), i)
    ),
    "copy_from_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, pieces(good)), lambda i: copy_from_iter_flushcache(bad.buffer[at : at + n], i)
    ),
    "copy_to_iter_flushcache range": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, bad.range(at, n)), lambda i: copy_to_iter_flushcache(good, i)
    ),
    "copy_to_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.kvec(READ, pieces(bad.buffer[at : at + n])), lambda i: copy_to_iter_flushcache(good, i)
    ),
    "copy_to_iter_flushcache run of 64": lambda bad, at, n, good: through(
        IovIter.iovec(READ, run(bad.buffer[at : at + n], 64)), lambda i: copy_to_iter_flushcache(good, i)
    ),
    "memcpy_nocache": lambda bad, at, n, good: flat(bad.range(at, n), good, memcpy_nocache),
    "memcpy_flushcache": lambda bad, at, n, good: flat(bad.buffer[at : at + n], good, memcpy_flushcache),
    "crc32c_and_copy_to_iter": lambda bad, at, n, good: summed(
        good, IovIter.ubuf(READ, bad.range(at, n)), lambda i: crc32c_and_copy_to_iter(good, i, crc=BEFORE)
    ),
    "crc32c_and_copy_to_iter pieces": lambda bad, at, n, good: summed(
        good,
        IovIter.kvec(READ, pieces(bad.buffer[at : at + n])),
        lambda i: crc32c_and_copy_to_iter(good, i, crc=BEFORE),
    ),
    "crc32c_and_copy_from_iter pieces": lambda bad, at, n, good: summed(
        good,
        IovIter.kvec(WRITE, pieces(good)),
        lambda i: crc32c_and_copy_from_iter(bad.buffer[at : at + n], i, crc=BEFORE),
    ),
    "crc32c_and_copy_from_iter_flushcache pieces": lambda bad, at, n, good: summed(
        good,
        IovIter.iovec(WRITE, pieces(good)),
        lambda i: crc32c_and_copy_from_iter_flushcache(bad.range(at, n), i, crc=BEFORE),
    ),
    "crc32c_and_copy_to_iter_mcsafe": lambda bad, at, n, good: summed(
        good,
        IovIter.ubuf(READ, bad.buffer[at : at + n]),
        lambda i: crc32c_and_copy_to_iter_mcsafe(good, i, crc=BEFORE),
    ),
    "crc32c_and_memcpy_mcsafe": lambda bad, at, n, good: flat_summed(
        good, bad.range(at, n), good, crc32c_and_memcpy_mcsafe
    ),
    "crc32c_and_memcpy_flushcache": lambda bad, at, n, good: flat_summed(
        good, bad.buffer[at : at + n], good, crc32c_and_memcpy_flushcache
    ),
}

NONTEMPORAL_FROM_BAD = [name for name in FROM_BAD if "cache" in name]
NONTEMPORAL_INTO_BAD = [name for name in TO_BAD if "cache" in name]
