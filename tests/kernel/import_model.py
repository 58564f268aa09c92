"""A model of importing a vector in plain Python: the checks in their order, then the truncation."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iovec_rs import MAX_RW_COUNT, UIO_MAXIOV

if TYPE_CHECKING:
    from collections.abc import Sequence

ELEMENT = 16


@dataclass(frozen=True)
class Accepted:
    """A vector that was accepted, as in the kernel's copy of it: the same bases, and lengths truncated to the transfer
    limit.
    """

    total: int
    segments: tuple[tuple[int, int], ...]

    def remaining(self) -> list[tuple[int, int]]:
        return [segment for segment in self.segments if segment[1]]


def in_user_space(base: int, length: int, limit: int) -> bool:
    """Whether a range is in user space: it does not wrap around, and ends at the limit at the latest. An empty range
    may be at the limit itself.
    """
    return base + length <= limit


def is_negative(length: int) -> bool:
    return length >= 1 << 63


def model_import(elements: Sequence[tuple[int, int]], readable: int, limit: int) -> Accepted | int:
    """The outcome for a vector of (base, length) words, if only the first `readable` bytes of its array can be read."""
    if not elements:
        return Accepted(0, ())
    if len(elements) > UIO_MAXIOV:
        return -errno.EINVAL
    for index, (_, length) in enumerate(elements):
        if (index + 1) * ELEMENT > readable:
            return -errno.EFAULT
        if is_negative(length):
            return -errno.EINVAL
    if len(elements) == 1:
        base, length = elements[0]
        length = min(length, MAX_RW_COUNT)
        return Accepted(length, ((base, length),)) if in_user_space(base, length, limit) else -errno.EFAULT
    total = 0
    segments = []
    for base, length in elements:
        if not in_user_space(base, length, limit):
            return -errno.EFAULT
        segments.append((base, min(length, MAX_RW_COUNT - total)))
        total += segments[-1][1]
    return Accepted(total, tuple(segments))
