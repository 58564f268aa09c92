"""`SafeMap`: a mapped file with three ways in, none of which a truncation turns into a crash."""

from __future__ import annotations

import os
import sys
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from iovec_rs._core import (
    Guard,
    IovIter,
    MappedFile,
    copy_from_iter,
    copy_to_iter_mcsafe,
    guard,
)
from iovec_rs._types import READ, WRITE, McResult

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    from _typeshed import StrOrBytesPath
    from typing_extensions import Buffer

__all__ = ["SafeMap"]


class SafeMap(MappedFile):
    """A file mapped into memory: a buffer, and a context manager that closes it.

    `read`, `read_into` and `write` are copies that stop exactly where the memory is bad. `array` is for code that is
    not ours: use it in `guard()`. What is left of the page that a file ends in reads as zeroes, as in any mapping.
    """

    path: str | None
    """What it was opened by; None if that was a descriptor."""

    @classmethod
    def open(
        cls,
        path: StrOrBytesPath | int,
        mode: Literal["r", "r+", "c"] = "r",
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> Self:
        """Maps `length` bytes (all the rest by default) from `offset` on, both in bytes, by path or by descriptor.

        "r" reads only, "r+" changes the file, "c" keeps stores to itself. The descriptor may be closed afterwards.
        ValueError: another mode, a range that the file does not have, no bytes at all. OSError: the file cannot be
        opened or mapped.
        """
        if isinstance(path, int):
            opened = cls(path, mode, offset, length)
            opened.path = None
            return opened
        file = os.open(path, (os.O_RDWR if mode == "r+" else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            opened = cls(file, mode, offset, length)
        finally:
            os.close(file)
        opened.path = os.fsdecode(path)
        return opened

    def read(self, offset: int, nbytes: int) -> bytes:
        """Up to `nbytes` bytes from `offset` on: fewer at the end of the map, none behind it.

        FaultError, with `.copied`, if the memory is bad: the file was truncated, or cannot be read.
        """
        nbytes = self._there(offset, nbytes)
        data = bytearray(nbytes)
        with memoryview(self) as whole, whole[offset : offset + nbytes] as part:
            copy_from_iter(data, IovIter.kvec(WRITE, [part]))
        return bytes(data)

    def read_into(self, offset: int, dst: Buffer | IovIter) -> McResult:
        """Fills a buffer, or all that is left of an iterator, from `offset` on; short at the end of the map.

        Never an exception for bad memory: `fault` says what stopped it.
        """
        target = dst if isinstance(dst, IovIter) else IovIter.ubuf(READ, dst)
        wanted = target.count
        nbytes = self._there(offset, wanted)
        with memoryview(self) as whole, whole[offset : offset + nbytes] as part:
            copied = copy_to_iter_mcsafe(part, target, nbytes)
        return McResult(copied, wanted - copied, target.fault if copied < nbytes else None)

    def write(self, offset: int, data: Buffer | IovIter) -> int:
        """Copies all of a buffer, or all that is left of an iterator, to `offset`; returns the bytes copied.

        ValueError beyond the end of the map, BufferError in mode "r": then nothing was stored. Bad memory: FaultError,
        with `.copied`; over user memory (UBUF, IOVEC) the count is short and `data.fault` says why. `flush` has it in
        the file.
        """
        source = data if isinstance(data, IovIter) else IovIter.kvec(WRITE, [data])
        nbytes = source.count
        if self._there(offset, nbytes) < nbytes:
            raise ValueError(f"offset {offset} and {nbytes} bytes of data leave the map of {self.size} bytes")
        with memoryview(self) as whole, whole[offset : offset + nbytes] as part:
            return copy_from_iter(part, source, nbytes)

    def array(
        self,
        dtype: Any = "u1",
        shape: Any = None,
        *,
        offset: int = 0,
        order: Literal["C", "F"] = "C",
    ) -> np.ndarray[Any, Any]:
        """A numpy array over the map from `offset` on, without a copy, that keeps it open; by default to its end.

        Use it in `guard()`. ValueError if it does not fit.
        """
        import numpy as np  # noqa: PLC0415 - only where it is asked for

        self._there(offset, 0)
        lengths = () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        count = -1 if shape is None or -1 in lengths else prod(lengths)
        flat: np.ndarray[Any, Any] = np.frombuffer(memoryview(self), dtype=dtype, count=count, offset=offset)
        return flat if shape is None else flat.reshape(lengths, order=order)

    def guard(self, *, on_fault: Literal["raise", "record"] = "raise") -> Guard:
        """Lets any code go on over the map: see `iovec_rs.guard`."""
        return guard(self, on_fault=on_fault)

    def _there(self, offset: int, nbytes: int) -> int:
        """How many of `nbytes` bytes from `offset` on the map has."""
        for name, value in (("offset", offset), ("nbytes", nbytes)):
            if value < 0:
                raise ValueError(f"{name} is {value}: expected 0 or more")
        return max(min(nbytes, self.size - offset), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes it. If it cannot be closed: BufferError, or a note to the exception that the block ends with."""
        try:
            self.close()
        except BufferError as refused:
            if error is None:
                raise
            error.add_note(f"{self!r} stays open: {refused}")

    if sys.version_info < (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """A view of it, as type checkers look for one in a buffer; Python 3.12 and later has this of itself."""
            del flags
            return memoryview(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"size={self.size} mode={self.mode}"
        return f"<SafeMap {self.path!r} {state}>"
