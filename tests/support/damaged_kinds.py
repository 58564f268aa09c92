"""An iterator of every kind over four pages, and its position when one of them is bad."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

import pytest
from iovec_rs import Direction, FaultError, IovIter, IterKind

from support import every_kind
from support.arena import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.damage import Damage

__all__ = ["DATA", "KINDS", "OTHER", "PAGES", "SKIP", "TOTAL", "TRUSTED", "build", "expect_short", "state", "state_at"]

PAGES = 4
SKIP = 3
TOTAL = PAGES * PAGE_SIZE - SKIP
CUTS = (5, 0, PAGE_SIZE - SKIP - 5, 0, 1, 6000, 0, 300, PAGES * PAGE_SIZE)
KINDS = (IterKind.UBUF, IterKind.IOVEC, IterKind.KVEC, IterKind.BVEC, IterKind.XARRAY, IterKind.FOLIOQ)
TRUSTED = (IterKind.KVEC, IterKind.BVEC, IterKind.XARRAY, IterKind.FOLIOQ, IterKind.PIPE)
DATA = random.Random(21).randbytes(PAGES * PAGE_SIZE)
OTHER = random.Random(22).randbytes(TOTAL)
ERRNO = {"poison": errno.EHWPOISON if hasattr(errno, "EHWPOISON") else 133, "gone": errno.EIO}
ERRNO |= {"protection": errno.EACCES, "unmapped": errno.EFAULT, "bad_address": errno.EFAULT}


def build(kind: IterKind, direction: Direction, view: memoryview) -> IovIter:
    """An iterator over four pages without the first three bytes, so that its offsets differ from the memory's.

    Some segments are empty, one ends at the end of its page, and one spans two pages.
    """
    half = 2 * PAGE_SIZE
    if kind is IterKind.BVEC:
        return IovIter.bvec(direction, [(view[:half], SKIP, half - SKIP), (view[half:], 0, 0), (view[half:], 0, half)])
    lengths = (SKIP + CUTS[0], *CUTS[1:])
    return every_kind.build(kind, direction, view, SKIP, lengths=lengths, unit=half, first_page=7)


def state_at(kind: IterKind, done: int) -> tuple[int, int, int]:
    """Count, offset and number of segments of an iterator that stopped before a byte it could not copy."""
    lengths = list(CUTS)
    if kind is IterKind.BVEC:
        lengths = [2 * PAGE_SIZE - SKIP, 0, 2 * PAGE_SIZE]
    elif kind is IterKind.FOLIOQ:
        return TOTAL - done, (SKIP + done) % (2 * PAGE_SIZE), 0
    elif kind not in (IterKind.IOVEC, IterKind.KVEC):
        return TOTAL - done, done, int(kind is IterKind.UBUF)
    offset = done
    while offset >= lengths[0]:
        offset -= lengths.pop(0)
    return TOTAL - done, offset, len(lengths)


def state(i: IovIter) -> tuple[int, int, int]:
    return i.count, i.iov_offset, i.nr_segs


def expect_short(i: IovIter, copy: Callable[[], int], copied: int, how: Damage, *, raises: bool) -> None:
    """Checks that the copy stops at bad memory after `copied` bytes, and reports that rightly: by a FaultError if it
    `raises`, otherwise by `i.fault`.
    """
    if raises:
        with pytest.raises(FaultError) as caught:
            copy()
        assert caught.value.copied == copied
        assert i.fault in (None, caught.value.fault)
        fault = caught.value.fault
        assert caught.value.errno == ERRNO[fault.cause]
    else:
        assert copy() == copied
        assert i.fault is not None
        fault = i.fault
    assert fault.offset == copied
    assert how.explains(fault)
