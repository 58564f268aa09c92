"""``python -m iovec_rs``: the command line of the package."""

from __future__ import annotations

import sys

from iovec_rs.cli import main

if __name__ == "__main__":
    sys.exit(main())
