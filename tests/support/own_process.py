"""Runs programs that may end, stop or fork their process in a process of their own."""

from __future__ import annotations

import inspect
import os
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def survives(program: Callable[..., object], *arguments: str | int, timeout: float = 120) -> None:
    """Calls a function of a test module in another interpreter, which must exit with 0.

    If it does not, its stderr is shown. `timeout` is in seconds; it ends a process that hangs.
    """
    path = Path(inspect.getfile(program))
    code = f"from {program.__module__} import {program.__name__} as program; program(*{arguments!r})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(path.parent)])},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"ended with {done.returncode}: {done.stderr[-1000:]}"


@contextmanager
def little_memory(nbytes: int) -> Iterator[None]:
    """Limits the process to `nbytes` more of address space until the block ends."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + nbytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
