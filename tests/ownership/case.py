"""One case of the neighbours' test."""

from __future__ import annotations

from typing import NamedTuple

NAMES = "ab"
"""The neighbours."""
WAYS = ["kill", "sigqueue", "tgkill"]
"""Ways to send a signal."""


class Case(NamedTuple):
    ours: bool
    """Whether copies may use our handler."""
    style: str
    flags: str
    """Of neighbour a, joined by `+`. Neighbour b always chains."""
    order: str
    """`copy`, `a` (it comes), `-a` (it leaves)."""
    end: str
