"""Sizes as people write them."""

from __future__ import annotations


def short(nbytes: int) -> str:
    """A power of two as people write it: 64, 4 Ki, 16 Mi."""
    for unit, shift in (("Mi", 20), ("Ki", 10)):
        if nbytes >= 1 << shift and nbytes % (1 << shift) == 0:
            return f"{nbytes >> shift} {unit}"
    return str(nbytes)
