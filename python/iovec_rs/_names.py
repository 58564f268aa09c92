"""The name by which a region's file is opened."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import StrOrBytesPath

__all__ = ["file_name", "require_open"]

_DESCRIPTORS = 1 << 31


def file_name(path: StrOrBytesPath | int) -> str:
    """The name of a path, or of the file that a descriptor refers to, which is opened anew by it.

    TypeError: a bool. ValueError: the number can be no descriptor. OSError EBADF: it is none that is open.
    """
    if isinstance(path, bool):
        raise TypeError(f"path is {path}: expected a path or a descriptor")
    if not isinstance(path, int):
        return os.fsdecode(path)
    if not 0 <= path < _DESCRIPTORS:
        raise ValueError(f"path is {path}: expected a path or a descriptor")
    try:
        os.fstat(path)
    except OSError as error:
        raise OSError(error.errno, f"path is {path}: {os.strerror(error.errno or errno.EBADF)}") from None
    return f"/proc/self/fd/{path:d}"


def require_open(made: type, arguments: Sequence[object], file: type) -> None:
    """Refuses to make an object of anything but a file that its `open` has opened."""
    if not (arguments and isinstance(arguments[0], file)):
        name = made.__name__
        raise TypeError(f"{name} cannot be called: {name}.open(path) opens a file")
