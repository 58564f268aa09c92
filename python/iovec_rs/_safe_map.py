"""`SafeMap`: a mapped file that can be truncated without a crash, by copies, numpy arrays and guards."""

from __future__ import annotations

import os
import sys
from math import prod
from operator import index
from typing import TYPE_CHECKING, Any, Literal

from iovec_rs._core import (
    Guard,
    IovIter,
    MappedFile,
    copy_from_iter,
    copy_to_iter_mcsafe,
    guard,
)
from iovec_rs._types import READ, WRITE, FaultError, McResult

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    from _typeshed import StrOrBytesPath
    from typing_extensions import Buffer

__all__ = ["SafeMap"]


def _whole(name: str, value: Any) -> int:
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}: expected an int") from None


def _lengths(shape: Any) -> tuple[int, ...]:
    """The length of each dimension, from a shape as numpy takes it: one number or several, of which one may be -1."""
    several = not hasattr(shape, "__index__")
    try:
        lengths = tuple(_whole("shape", each) for each in (shape if several else (shape,)))
    except TypeError:
        raise TypeError(f"shape is {shape!r}: expected an int or a tuple of ints") from None
    if any(length < -1 for length in lengths) or lengths.count(-1) > 1:
        raise ValueError(f"shape is {shape!r}: expected lengths of 0 or more, one of which may be -1")
    return lengths


class SafeMap(MappedFile):
    """A file mapped into memory. It is a buffer, and a context manager that closes it.

    `read`, `read_into` and `write` are copies that stop exactly where the memory is bad. `array` gives other code
    access: use it in the block of `guard()`. In the page in which a file ends, the bytes behind the end read as zeroes,
    as in any mapping.
    """

    path: str | None = None
    """The path that was opened; None if a descriptor was given."""

    @classmethod
    def open(
        cls,
        path: StrOrBytesPath | int,
        mode: Literal["r", "r+", "c"] = "r",
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> Self:
        """Maps `length` bytes (by default, the rest) from `offset` on, both in bytes. `path` is a path or a descriptor.

        Mode "r" is read-only; in "r+" stores change the file; in "c" they change this map alone (copy on write). The
        descriptor may be closed afterwards. ValueError: an unknown mode, or a range that is empty or not in the file.
        OSError: the file cannot be opened or mapped.
        """
        if isinstance(path, int):
            return cls(path, mode, offset, length)
        file = os.open(path, (os.O_RDWR if mode == "r+" else os.O_RDONLY) | os.O_CLOEXEC)
        try:
            opened = cls(file, mode, offset, length)
        finally:
            os.close(file)
        opened.path = os.fsdecode(path)
        return opened

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns up to `nbytes` bytes from `offset` on: fewer at the end of the map, none behind it.

        FaultError, with `.copied`, if the memory is bad: the file was truncated, or cannot be read.
        """
        offset, nbytes = self._there(offset, nbytes)
        data = bytearray(nbytes)
        with memoryview(self) as whole, whole[offset : offset + nbytes] as part:
            copy_from_iter(data, IovIter.kvec(WRITE, [part]))
        return bytes(data)

    def read_into(self, offset: int, dst: Buffer | IovIter) -> McResult:
        """Fills a buffer, or the rest of an iterator, from `offset` on. The copy is short at the end of the map.

        Bad memory raises no exception: the result's `fault` says what stopped the copy.
        """
        target = dst if isinstance(dst, IovIter) else IovIter.ubuf(READ, dst)
        wanted = target.count
        offset, nbytes = self._there(offset, wanted)
        with memoryview(self) as whole, whole[offset : offset + nbytes] as part:
            copied = copy_to_iter_mcsafe(part, target, nbytes)
        return McResult(copied, wanted - copied, target.fault if copied < nbytes else None)

    def write(self, offset: int, data: Buffer | IovIter) -> int:
        """Copies a buffer, or the rest of an iterator, to `offset`. Returns the bytes copied.

        ValueError if the data would end behind the map, BufferError in mode "r": then nothing was stored. FaultError,
        with `.copied`, if memory is bad or the file was truncated before the end of the bytes stored. Over user memory
        (UBUF, IOVEC) bad memory is a short count instead, and `data.fault` says why. `flush` writes the bytes to the
        file.
        """
        source = data if isinstance(data, IovIter) else IovIter.kvec(WRITE, [data])
        nbytes = source.count
        offset, there = self._there(offset, nbytes)
        if there < nbytes:
            raise ValueError(f"offset {offset} and {nbytes} bytes of data leave the map of {self.size} bytes")
        with memoryview(self) as whole, whole[offset : offset + nbytes] as part:
            copied = copy_from_iter(part, source, nbytes)
        try:
            self._require_held(offset, copied)
        except FaultError as error:
            source.revert(copied - error.copied)
            raise
        return copied

    def array(
        self,
        dtype: Any = "u1",
        shape: Any = None,
        *,
        offset: int = 0,
        order: Literal["C", "F"] = "C",
    ) -> np.ndarray[Any, Any]:
        """A numpy array over the map from `offset` on, by default to its end. It copies nothing and keeps the map open.

        Use it in the block of `guard()`, or a truncated file crashes the process. ValueError if the array does not fit.
        """
        import numpy as np  # noqa: PLC0415 - only this method needs it

        offset, _ = self._there(offset, 0)
        lengths = () if shape is None else _lengths(shape)
        count = -1 if shape is None or -1 in lengths else prod(lengths)
        flat: np.ndarray[Any, Any] = np.frombuffer(memoryview(self), dtype=dtype, count=count, offset=offset)
        return flat if shape is None else flat.reshape(lengths, order=order)

    def guard(self, *, on_fault: Literal["raise", "record"] = "raise") -> Guard:
        """A guard over the map, in whose block any code survives bad memory: see `iovec_rs.guard`."""
        return guard(self, on_fault=on_fault)

    def _there(self, offset: int, nbytes: int) -> tuple[int, int]:
        """Both as ints, with `nbytes` reduced to the bytes that the map has from `offset` on."""
        offset, nbytes = _whole("offset", offset), _whole("nbytes", nbytes)
        for name, value in (("offset", offset), ("nbytes", nbytes)):
            if value < 0:
                raise ValueError(f"{name} is {value}: expected 0 or more")
        return offset, max(min(nbytes, self.size - offset), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the map. If that is refused: BufferError, or a note to the exception that the block ends with."""
        try:
            self.close()
        except BufferError as refused:
            if error is None:
                raise
            error.add_note(f"{self!r} stays open: {refused}")

    if sys.version_info < (3, 12):

        def __buffer__(self, flags: int, /) -> memoryview:
            """A view, for type checkers that look for this method on buffers. Python 3.12 and later provide it."""
            del flags
            return memoryview(self)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"size={self.size} mode={self.mode}"
        return f"<SafeMap {self.path!r} {state}>"
