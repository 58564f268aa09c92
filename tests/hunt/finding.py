"""How a hunter reports findings, and what it notes for the case of its death."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap

__all__ = ["Finding", "attach", "doing", "expect", "last_done", "noted"]


class Finding(Exception):  # noqa: N818 - what is wrong is the code under test
    """A bug that was found. The first line of the message describes it; messages whose first lines differ only in
    numbers are one finding.
    """


def expect(condition: object, what: str, *details: object) -> None:
    """Raises a finding unless the condition holds."""
    if not condition:
        raise Finding("\n".join([what, *(f"  {detail}" for detail in details)]))


_shared: list[mmap.mmap] = []
_ROOM = 16, 1008
"""The offset in the shared page of the note, and its length in bytes."""


def attach(shared: mmap.mmap) -> None:
    """Makes `doing` write to shared memory, which the parent process can read after this one has died."""
    _shared[:] = [shared]


def doing(what: str) -> None:
    """Notes what this process does next."""
    start, room = _ROOM
    with contextlib.suppress(IndexError):
        _shared[0][start : start + room] = what.encode(errors="replace")[:room].ljust(room, b"\0")


def noted() -> str:
    """The last note of this process or of a child that it forked."""
    return last_done(bytes(_shared[0])) if _shared else ""


def last_done(shared: bytes) -> str:
    """The last note of a process that has died."""
    start, room = _ROOM
    return shared[start : start + room].rstrip(b"\0").decode(errors="replace")
