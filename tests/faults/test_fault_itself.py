"""Copies of memory onto itself: every byte is source and destination, and the fault names the access that failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
from iovec_rs import READ, IovIter, UserRange, copy_to_iter, copy_to_iter_mcsafe, cpu, fault_handler, memcpy_mcsafe
from support.arena import Arena, Page

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
PAGES = 12
SETS = cpu.available()


def flat(memory: UserRange) -> tuple[int, str, str]:
    result = memcpy_mcsafe(memory, memory)
    assert result.fault is not None
    return result.copied, result.fault.side, result.fault.cause


def through(memory: UserRange) -> tuple[int, str, str]:
    i = IovIter.ubuf(READ, memory)
    copied = copy_to_iter(memory, i)
    assert i.fault is not None
    return copied, i.fault.side, i.fault.cause


def carefully(memory: UserRange) -> tuple[int, str, str]:
    i = IovIter.ubuf(READ, memory)
    copied = copy_to_iter_mcsafe(memory, i)
    assert i.fault is not None
    return copied, i.fault.side, i.fault.cause


@pytest.mark.parametrize("mode", ["auto", "syscall"])
@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("copy", [flat, through, carefully])
@pytest.mark.parametrize("bad", [Page.READ_ONLY, Page.PROTECTED], ids=lambda page: page.name)
def test_the_side_is_that_of_the_access_that_failed(
    copy: Callable[[UserRange], tuple[int, str, str]], isa: str, mode: Literal["auto", "syscall"], bad: Page
) -> None:
    with fault_handler.mode(mode), cpu.use_isa(isa):
        for offset, length in ((0, 9000), (64, 40000), (17, 300), (PAGE - 3, 9)):
            broken = (offset + length - 1) // PAGE
            with Arena([Page.GOOD] * broken + [bad] + [Page.GOOD] * (PAGES - broken - 1)) as arena:
                side = "source" if bad is Page.PROTECTED else "destination"
                expected = (broken * PAGE - offset, side, "protection")
                if expected[0] > 0:
                    assert copy(arena.range(offset, length)) == expected, (offset, length)
