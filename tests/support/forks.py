"""Forks children while a thread of their parent works."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def codes_of_children_beside(work: Callable[[], object], child: Callable[[], int], nchildren: int = 30) -> list[int]:
    """Forks children while a thread does the work again and again. Returns their exit codes: what `child` returned, 1
    if it raised, or a negative number if it had not ended after a minute.
    """
    stop = threading.Event()

    def keep_working() -> None:
        while not stop.is_set():
            work()

    thread = threading.Thread(target=keep_working)
    thread.start()
    codes = []
    for _ in range(nchildren):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                signal.alarm(60)
                code = child()
            finally:
                os._exit(code)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    stop.set()
    thread.join()
    return codes
