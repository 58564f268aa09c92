"""What the tests of transfers share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

_FUTEX = "202"  # where a thread waits for the interpreter


def wait_until_blocked(thread: threading.Thread) -> None:
    """Returns when the thread sleeps in a system call that is not the wait for the interpreter."""
    state = Path(f"/proc/self/task/{thread.native_id}/syscall")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        number = state.read_text().split()[0]
        if number not in {"running", "-1", _FUTEX}:
            return
        time.sleep(0.001)
    raise AssertionError("the thread did not block")


def pattern(nbytes: int) -> bytes:
    """Bytes that tell where they are from: no two parts of 64 KiB are alike."""
    block = b"".join(number.to_bytes(4, "big") for number in range(min(nbytes // 4 + 1, 1 << 16)))
    return (block * (nbytes // len(block) + 1))[:nbytes] if len(block) < nbytes else block[:nbytes]
