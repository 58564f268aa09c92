"""Compares a log with a list: after any operations in any order, the log has the records of the list."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from iovec_rs import CorruptError, PmemLog

SIZE = 8192 + 8192


class LogAndList(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "log"
        self.log = PmemLog.open(self.path, size=SIZE, create=True)
        self.reader = PmemLog.open(self.path, writable=False)
        self.first = 0
        self.known = 0
        """The sequence number behind the last record that the superblock mentions. Damage before it is not a torn
        tail.
        """
        self.records: list[bytes | None] = []
        """A record that was damaged is `None`."""

    def teardown(self) -> None:
        self.log.close()
        self.reader.close()
        self.folder.cleanup()

    @rule(length=st.integers(0, 3000), byte=st.integers(1, 255))
    def append(self, length: int, byte: int) -> None:
        data = bytes([byte]) * length
        before = self.log.free
        try:
            number = self.log.append(data)
        except OSError:
            assert length > before or before == 0
        else:
            assert length <= before
            assert number == self.first + len(self.records)
            self.records.append(data)

    @rule(part=st.floats(0, 1))
    def discard(self, part: float) -> None:
        gone = round(part * len(self.records))
        self.log.discard_before(self.first + gone)
        self.known = self.first + len(self.records) if gone else self.known
        self.first += gone
        del self.records[:gone]

    @rule(is_closed=st.booleans())
    def reopen(self, is_closed: bool) -> None:
        if is_closed:
            self.log.close()
            self.known = self.first + len(self.records)
        del self.log  # Without a close the superblock is not updated, as if the process had died.
        self.log = PmemLog.open(self.path)
        kept = len(self.records)
        while self.first + kept > self.known and self.records[kept - 1] is None:
            kept -= 1
        assert (self.log.recovered > 0) == (kept < len(self.records))
        del self.records[kept:]
        self.known = self.first + kept
        self.reader.close()
        self.reader = PmemLog.open(self.path, writable=False)

    @precondition(lambda self: any(self.records))
    @rule(pick=st.integers(0), at=st.floats(0, 1))
    def damage(self, pick: int, at: float) -> None:
        choices = [index for index, data in enumerate(self.records) if data]
        index = choices[pick % len(choices)]
        place = self.log.record(self.first + index)
        with self.path.open("r+b") as file:
            file.seek(place.offset + int(at * (place.length - 1)))
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 0x55]))
        self.records[index] = None

    @invariant()
    def both_hold_the_same(self) -> None:
        for log in (self.log, self.reader):
            assert (log.first, log.last) == (self.first, self.first + len(self.records) - 1)
            for number, data in enumerate(self.records, self.first):
                if data is None:
                    with pytest.raises(CorruptError):
                        log.read(number)
                else:
                    assert log.read(number) == data


LogAndList.TestCase.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
test_a_log_is_a_list = LogAndList.TestCase
