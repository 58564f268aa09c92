"""A case of the test with other libraries that handle the signals, its neighbours."""

from __future__ import annotations

from typing import NamedTuple

NAMES = "ab"
"""The names of the neighbours."""
WAYS = ["kill", "sigqueue", "tgkill"]
"""The ways in which a signal can be sent."""


class Case(NamedTuple):
    ours: bool
    """Whether copies may use our handler."""
    style: str
    flags: str
    """The flags of neighbour a, joined by `+`. Neighbour b always chains."""
    order: str
    """The steps in order: `copy`, `a` (neighbour a installs its handler), `-a` (it restores the one before)."""
    end: str
