"""Writers are killed while readers follow the log: no acknowledged record is lost, and no reader sees half a record."""

from __future__ import annotations

import os
import signal
import struct
import time
from typing import TYPE_CHECKING, NoReturn

from iovec_rs import PmemLog

if TYPE_CHECKING:
    from pathlib import Path

KILLS = int(os.environ.get("IOVEC_RS_LOG_KILLS", "15"))
SECONDS = float(os.environ.get("IOVEC_RS_LOG_SECONDS", "2"))
"""How long readers follow a writer."""
SIZE = 1 << 18


def record(number: int) -> bytes:
    """A record in which every word is its number. Its length depends on the number."""
    return struct.pack("<Q", number) * (1 + number * 7919 % 1500)


def write_forever(path: Path, acknowledge: int) -> NoReturn:
    """Appends records, reports each number to the parent, and discards old records, until the process is killed."""
    code = 1
    try:
        signal.alarm(120 + int(SECONDS))
        with PmemLog.open(path) as log:
            while True:
                while log.free < len(record(log.last + 1)):
                    log.discard_before(log.first + 1)
                os.write(acknowledge, struct.pack("<Q", log.append(record(log.last + 1))))
    finally:
        os._exit(code)


def follow_until_told(path: Path, stop: int) -> NoReturn:
    """Reads and checks each record as it is appended."""
    code = 1
    try:
        signal.alarm(120 + int(SECONDS))
        os.set_blocking(stop, False)
        with PmemLog.open(path, writable=False) as log:
            seen = 0
            while True:
                last = log.last
                if last < seen - 1:
                    os._exit(3)
                if log.verify():
                    os._exit(4)
                for number in range(max(seen, log.first), last + 1):
                    try:
                        data = log.read(number)
                    except IndexError:
                        continue  # The record was discarded meanwhile.
                    if data != record(number):
                        os._exit(2)
                seen = last + 1
                try:
                    os.read(stop, 1)
                except BlockingIOError:
                    continue
                break
        code = 0
    finally:
        os._exit(code)


def test_whatever_was_acknowledged_before_the_writer_was_killed_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    PmemLog.open(path, size=SIZE, create=True).close()
    acknowledged = -1
    for round_ in range(KILLS):
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(told)
            write_forever(path, tell)
        os.close(tell)
        # The writer is killed after a number of records, in the middle of whatever it does.
        for _ in range(1 + round_ * 37 % 50):
            acknowledged = struct.unpack("<Q", os.read(told, 8))[0]
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while data := os.read(told, 8):
            acknowledged = struct.unpack("<Q", data)[0]
        os.close(told)
        with PmemLog.open(path) as log:
            assert log.last in (acknowledged, acknowledged + 1)
            for place in log:
                assert log.read(place.sequence) == record(place.sequence)
            assert log.verify() == []


def test_readers_follow_a_writer_in_another_process(tmp_path: Path) -> None:
    path = tmp_path / "log"
    PmemLog.open(path, size=SIZE, create=True).close()
    told, tell = os.pipe()
    stop, end = os.pipe()
    writer = os.fork()
    if writer == 0:
        write_forever(path, tell)
    readers = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            follow_until_told(path, stop)
        readers.append(child)
    appended, until = 0, time.monotonic() + SECONDS
    while appended < 1500 or time.monotonic() < until:
        assert len(os.read(told, 8)) == 8
        appended += 1
    os.write(end, b"..")
    codes = [os.waitstatus_to_exitcode(os.waitpid(reader, 0)[1]) for reader in readers]
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    for descriptor in (told, tell, stop, end):
        os.close(descriptor)
    assert codes == [0, 0]
