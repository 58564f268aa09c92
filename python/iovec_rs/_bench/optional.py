"""What may be missing: numpy, whose contestants are left out then, and matplotlib, without which nothing is drawn."""

from __future__ import annotations

import importlib
from typing import Any


class MissingError(Exception):
    """Something that was asked for cannot be had."""


def numpy() -> Any:
    """The module, or None."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def pyplot() -> Any:
    """matplotlib's, drawing to files alone. MissingError where it is not installed."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        matplotlib.use("svg")
        return importlib.import_module("matplotlib.pyplot")
    except ImportError as why:
        raise MissingError(f"a plot needs matplotlib: pip install 'iovec_rs[bench]' ({why})") from why
