"""libpmem, called through ctypes as a Python program would that has nothing else.

``python -m iovec_rs._bench.libpmem`` says whether it can be loaded, and if not, why.
"""

from __future__ import annotations

import ctypes
import sys

SONAME = "libpmem.so.1"


class Libpmem:
    """Its copies, by address. OSError where it is not installed."""

    def __init__(self) -> None:
        library = ctypes.CDLL(SONAME)
        self.persist = library.pmem_memcpy_persist
        self.nodrain = library.pmem_memcpy_nodrain
        self.drain = library.pmem_drain
        for copy in (self.persist, self.nodrain):
            copy.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
            copy.restype = ctypes.c_void_p
        self.drain.argtypes = ()
        self.drain.restype = None


def load() -> Libpmem | None:
    """None where it is not installed: then it takes no part, and `ABSENT` belongs in the table."""
    try:
        return Libpmem()
    except OSError:
        return None


ABSENT = f"{SONAME} cannot be loaded (Debian: libpmem1): it is left out."


def main() -> int:
    try:
        Libpmem()
    except OSError as why:
        print(why)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
