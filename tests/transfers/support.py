"""What the tests of transfers share."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

# poll, readv, writev, recvmsg, preadv
_TRANSFERS = {"x86_64": {"7", "19", "20", "47", "295"}, "aarch64": {"65", "66", "69", "73", "212"}}


def wait_until_blocked(thread: threading.Thread) -> None:
    """Returns when the thread waits for bytes, or for room, in a system call: not at its own start, and not for the
    interpreter.
    """
    state = Path(f"/proc/self/task/{thread.native_id}/syscall")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if state.read_text(encoding="ascii").split()[0] in _TRANSFERS[platform.machine()]:
            return
        time.sleep(0.001)
    raise AssertionError("the thread did not block")


def pattern(nbytes: int) -> bytes:
    """Bytes that tell where they are from: no two parts of 64 KiB are alike."""
    block = b"".join(number.to_bytes(4, "big") for number in range(min(nbytes // 4 + 1, 1 << 16)))
    return (block * (nbytes // len(block) + 1))[:nbytes] if len(block) < nbytes else block[:nbytes]
