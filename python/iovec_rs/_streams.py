"""The standard streams of the ``iovec-rs`` command: what is printed is written whole, or the command fails."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import ReadableBuffer

PIECE = 1 << 20
"""Bytes that are read at a time."""


class OutputError(Exception):
    """The standard output cannot be written to. No OSError, so that nobody takes it for one of the files at work."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the standard output: {error.strerror}")
        self.is_closed_pipe = error.errno == errno.EPIPE


class _Output(io.FileIO):
    """A descriptor that is written to. The first failure is raised; what comes after it, when buffers end, is not."""

    has_failed = False

    def write(self, data: ReadableBuffer, /) -> int:
        if self.has_failed:
            return memoryview(data).nbytes
        try:
            count: int | None = super().write(data)
            if count is None:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        except OSError as error:
            self.has_failed = True
            raise OutputError(error) from error
        return count


@contextmanager
def standard() -> Iterator[None]:
    """Prepares the streams for a command, and sees to it that all that was printed is written at the end.

    Where Python's own standard output is not buffered (PYTHONUNBUFFERED), it loses what a short write leaves over; and
    it ends in the middle of a table at a path that is no text. A descriptor that is closed goes to the next file that
    is opened, a log for instance, which would then get what others print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets this number: it is the lowest that is free
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - the process's own from now on
    if sys.stdout is None:
        raise OutputError(OSError(errno.EBADF, os.strerror(errno.EBADF)))
    with redirect_stdout(_whole(sys.stdout)) as out:
        try:
            yield
        finally:
            out.flush()


def _whole(out: TextIO) -> TextIO:
    """The same output, buffered and with escapes for what cannot be encoded; as it is if it has no descriptor."""
    if not isinstance(out, io.TextIOWrapper):
        return out
    out.flush()
    try:
        raw = _Output(out.fileno(), "w", closefd=False)
    except io.UnsupportedOperation:
        return out
    errors = "backslashreplace" if out.errors == "strict" else out.errors
    is_read_along = out.line_buffering or out.write_through
    return io.TextIOWrapper(io.BufferedWriter(raw), out.encoding, errors, line_buffering=is_read_along)


def complain(message: str) -> None:
    """Tells people. That nobody can be told is no reason to fail."""
    with suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def read_input(file: Path | None, most: int) -> list[bytes]:
    """All of a file, or of the standard input, in pieces. It may have at most so many bytes: it may have no end."""
    if file is None and sys.stdin is None:
        raise OSError(errno.EBADF, "the standard input is closed")
    pieces, left = [], most
    with nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as source:
        while (piece := source.read(PIECE)) != b"":
            if piece is None:
                raise BlockingIOError(errno.EAGAIN, "the standard input has nothing yet and does not wait")
            if len(piece) > left:
                raise OSError(errno.ENOSPC, f"the input has more than {most} bytes, which is the size of the log")
            pieces.append(piece)
            left -= len(piece)
    return pieces
