"""Sums over a directory of arrays, of which some are cut, unreadable or poisoned while they are summed.

    python examples/guarded_sums.py [directory]    # of .npy files; without one it makes three and cuts one of them

Each file is mapped, and numpy reads it in a guard. A file that was not there whole is named, and what was computed
from it is thrown away; the others are as if nothing had happened.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from iovec_rs import FaultError, guard


def mapped_sum(array: Any) -> float:
    """FaultError if a page of it could not be had."""
    with guard(array):
        return float(array.sum(dtype=np.float64))


def sums(files: list[Path]) -> dict[str, float | None]:
    """The sum of each, or None."""
    found: dict[str, float | None] = {}
    arrays = {file: np.load(file, mmap_mode="r") for file in files}
    if DEMONSTRATION:
        os.truncate(files[1], files[1].stat().st_size // 3)
    for file, array in arrays.items():
        try:
            found[file.name] = mapped_sum(array)
        except FaultError as error:
            found[file.name] = None
            lost = error.guard.lost if error.guard else 0
            print(f"{file.name}: {lost} bytes could not be had: {error.fault.cause}")
    return found


DEMONSTRATION = len(sys.argv) < 2


def main() -> None:
    with tempfile.TemporaryDirectory() as own:
        where = Path(own if DEMONSTRATION else sys.argv[1])
        if DEMONSTRATION:
            for name in ("a", "b", "c"):
                np.save(where / name, np.ones(1 << 18))
        for name, total in sums(sorted(where.glob("*.npy"))).items():
            print(name, "damaged" if total is None else total)


if __name__ == "__main__":
    main()
