"""A log on a medium that refuses an msync: the kernel takes the pages for written, and the medium may have others."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PmemLog
from support.judged_calls import MSYNC, judged, unavailable
from support.logs import contents, make
from support.refusing_medium import Medium

if TYPE_CHECKING:
    from pathlib import Path

    from support.judged_calls import Call

WHY = unavailable()
pytestmark = pytest.mark.skipif(WHY is not None, reason=WHY or "")


class TakesTheFirst(Medium):
    """Takes what the first msync is for that it refuses, which is a record, and not what would erase it there."""

    def judge(self, call: Call) -> int:
        self.share = float(self.refusals == 0)
        return super().judge(call)


@pytest.mark.parametrize("laps", [0, 1])
def test_a_record_that_could_not_be_erased_is_gone_for_good_once_the_log_is_open_again(path: Path, laps: int) -> None:
    medium = TakesTheFirst(random.Random(0), path)

    def program() -> None:
        log = make(path)
        for number in range(5 * laps):
            log.append(bytes(15_000))
            log.discard_before(number + 1)
        log.append(b"kept")
        kept = contents(log)
        medium.settle()
        medium.chance = 1
        with pytest.raises(OSError, match="msync"):
            log.append(b"refused")
        with pytest.raises(OSError, match="neither made durable nor undone"):
            log.append(b"later")
        medium.chance = 0
        log.close()
        with PmemLog.open(path) as log:
            assert contents(log) == kept
            path.with_suffix(".left").write_bytes(medium.at(0, log.size))  # The power fails.
        with PmemLog.open(path.with_suffix(".left")) as log:
            assert contents(log) == kept

    judged([MSYNC], medium.judge, program)


class Ends(Medium):
    """Keeps what the file had when its writer waited for the first msync that is refused."""

    there = b""

    def judge(self, call: Call) -> int:
        there, refusals = self.path.read_bytes(), self.refusals
        answer = super().judge(call)
        if self.refusals > refusals == 0:
            self.there = there
        return answer


@pytest.mark.parametrize("nbytes", [10, 20_000])
def test_a_record_that_is_found_is_there_for_good_though_its_writer_was_killed_before_it_was_durable(
    path: Path, nbytes: int
) -> None:
    medium = Ends(random.Random(0), path)
    medium.share = 0

    def program() -> None:
        log = make(path)
        log.append(b"durable")
        medium.settle()
        medium.chance = 1
        with pytest.raises(OSError, match="msync"):
            log.append(bytes(nbytes))
        log.close()
        medium.chance = 0
        path.write_bytes(medium.there)  # The writer is killed: nothing is synced any more, and nothing erased.
        with PmemLog.open(path) as log:
            assert contents(log) == {0: b"durable", 1: bytes(nbytes)}
            path.with_suffix(".left").write_bytes(medium.at(0, log.size))  # The power fails.
        with PmemLog.open(path.with_suffix(".left")) as log:
            assert contents(log) == {0: b"durable", 1: bytes(nbytes)}

    judged([MSYNC], medium.judge, program)
