"""Two that make the same log at once: the second does all of it while the first stands at one of its system calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs import PmemLog
from support.judged_calls import FLOCK, STATX, judged, unavailable
from support.logs import SIZE, contents, make

if TYPE_CHECKING:
    from pathlib import Path

    from support.judged_calls import Call

WHY = unavailable()
pytestmark = pytest.mark.skipif(WHY is not None, reason=WHY or "")

TOO_SMALL = 5000


class Second:
    """Makes the log and appends to it while the first waits in the n-th call that looks at the file or locks it."""

    def __init__(self, path: Path, turn: int) -> None:
        self.path, self.turn = path, turn
        self.asked = 0
        self.is_done = False

    def judge(self, _: Call) -> int:
        self.asked += 1
        if self.asked == self.turn:
            try:
                with make(self.path) as log:
                    log.append(b"acknowledged")
                self.is_done = True
            except (BlockingIOError, FileNotFoundError):
                pass  # The first has the lock, or is removing the file.
        return 0


@pytest.mark.parametrize("size", [SIZE, TOO_SMALL])
def test_what_the_second_was_told_of_is_there_whatever_becomes_of_the_first(path: Path, size: int) -> None:
    """The first is refused if its size is too small, and leaves the file as it was, or opens the second's log."""
    done = 0
    for turn in range(1, 30):
        second = Second(path, turn)
        path.unlink(missing_ok=True)

        def first() -> None:
            try:
                PmemLog.open(path, size=size, create=True).close()
            except ValueError:
                assert size == TOO_SMALL

        judged([STATX, FLOCK], second.judge, first)
        if second.asked < turn:
            break
        if second.is_done:
            done += 1
            with PmemLog.open(path) as log:
                assert contents(log) == {0: b"acknowledged"}, turn
    assert done > 3
