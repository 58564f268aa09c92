"""The file that a log is in: links to it, its length, and what becomes of it while the log is open."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PmemLog
from support.logs import SIZE, contents, make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_leads_to_the_same_log_and_the_same_writer(path: Path, link: Callable[..., None]) -> None:
    other = path.with_name("other")
    with make(path) as log:
        link(path, other)
        log.append(b"by its name")
        with pytest.raises(BlockingIOError):
            PmemLog.open(other)
        with PmemLog.open(other, writable=False) as reader:
            assert contents(reader) == {0: b"by its name"}
    with PmemLog.open(other) as log:
        assert log.append(b"by the link") == 1
        with pytest.raises(BlockingIOError):
            PmemLog.open(path)


def test_a_link_to_nothing_is_not_followed_to_make_a_log(path: Path) -> None:
    path.symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match="leads to no file"):
        PmemLog.open(path, size=SIZE, create=True)
    assert not path.with_name("nowhere").exists()


def test_a_log_goes_on_when_its_file_is_renamed_and_when_it_has_no_name_any_more(path: Path) -> None:
    log, moved = make(path), path.with_name("moved")
    path.rename(moved)
    log.append(b"renamed")
    with PmemLog.open(moved, writable=False) as reader:
        moved.unlink()
        log.append(b"without a name")
        assert contents(reader) == contents(log) == {0: b"renamed", 1: b"without a name"}
    log.close()


def test_a_refused_opening_keeps_nobody_off_even_while_its_exception_lives(path: Path) -> None:
    path.write_bytes(bytes(SIZE))
    with pytest.raises(OSError, match="no room for") as refused:
        PmemLog.open(path, size=1 << 62, create=True)
    with PmemLog.open(path, create=True) as log:
        assert log.append(b"beside the exception") == 0
    assert refused.value.errno == errno.ENOSPC


def test_a_log_has_the_size_that_it_was_made_with_however_long_its_file_is(path: Path) -> None:
    make(path).close()
    with path.open("ab") as file:
        file.write(b"of somebody else" * 300)
    with PmemLog.open(path) as log:
        assert log.size == SIZE
        while log.free > 1000:
            log.append(bytes(1000))
    with PmemLog.open(path, size=SIZE) as log:
        assert log.verify() == []
    assert path.read_bytes()[SIZE:] == b"of somebody else" * 300
    for writable in (True, False):
        with pytest.raises(ValueError, match=f"size is {SIZE + 4096}: expected {SIZE}"):
            PmemLog.open(path, size=SIZE + 4096, writable=writable)


@pytest.mark.parametrize("writable", [True, False])
def test_what_is_missing_or_empty_is_refused_and_left_so(path: Path, writable: bool) -> None:
    with pytest.raises(FileNotFoundError):
        PmemLog.open(path, writable=writable)
    path.touch()
    with pytest.raises(
        ValueError, match="path is a file without a log: expected one with a log; create=True makes one"
    ):
        PmemLog.open(path, writable=writable)
    assert path.read_bytes() == b""


@pytest.mark.parametrize("length", [SIZE, SIZE + 5])
def test_a_file_of_zeroes_becomes_a_log_of_its_length(path: Path, length: int) -> None:
    path.write_bytes(bytes(length))
    with PmemLog.open(path, create=True) as log:
        assert log.size == length
        log.append(bytes(log.free))
    with PmemLog.open(path) as log:
        assert (log.size, log.verify()) == (length, [])


def test_a_log_is_made_by_open_alone(path: Path) -> None:
    for arguments in ((), (path,), (str(path), 1 << 16)):
        with pytest.raises(TypeError, match=r"PmemLog cannot be called: PmemLog\.open\(path\) opens a file"):
            PmemLog(*arguments)
    with make(path) as log, pytest.raises(AttributeError):
        log.note = "none"  # type: ignore[attr-defined]


def test_a_reader_changes_nothing(path: Path) -> None:
    with make(path) as log:
        log.append(b"kept")
    before = path.read_bytes()
    with PmemLog.open(path, writable=False) as reader:
        for change in (lambda: reader.append(b"x"), lambda: reader.discard_before(1)):
            with pytest.raises(BufferError, match="the log is read-only: it was opened with writable=False"):
                change()
    assert path.read_bytes() == before
