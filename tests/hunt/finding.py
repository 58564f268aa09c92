"""What a hunter reports with."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

__all__ = ["Finding", "attach", "doing", "expect", "last_done", "noted"]


class Finding(Exception):  # noqa: N818 - what is wrong is the code under test
    """Something that must not be. The first line says what; equal first lines, numbers apart, are one finding."""


def expect(condition: object, what: str, *details: object) -> None:
    """Raises a finding unless the condition holds."""
    if not condition:
        raise Finding("\n".join([what, *(f"  {detail}" for detail in details)]))


_shared: list[mmap.mmap] = []
_ROOM = 16, 1008
"""Where in the shared page the words begin, and how many bytes of them there are."""


def attach(shared: mmap.mmap) -> None:
    """From now on `doing` writes where the parent process can read it after a death."""
    _shared[:] = [shared]


def doing(what: str) -> None:
    """Notes what this process does next."""
    start, room = _ROOM
    with contextlib.suppress(IndexError):
        _shared[0][start : start + room] = what.encode(errors="replace")[:room].ljust(room, b"\0")


def noted() -> str:
    """What this process, or a child that it forked, noted last."""
    return last_done(bytes(_shared[0])) if _shared else ""


def last_done(shared: bytes) -> str:
    """What a process had noted."""
    start, room = _ROOM
    return shared[start : start + room].rstrip(b"\0").decode(errors="replace")
