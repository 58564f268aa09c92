"""Logs to test, and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs.pmem import PmemLog

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 1 << 16


def make(path: Path, size: int = SIZE) -> PmemLog:
    return PmemLog.open(path, size=size, create=True)


def contents(log: PmemLog) -> dict[int, bytes]:
    return {record.sequence: log.read(record.sequence) for record in log}
