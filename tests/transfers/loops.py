"""The event loops that whole transfers are tested on."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _on(make_loop: Callable[[], asyncio.AbstractEventLoop], main: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(main)


on_asyncio: Run = partial(_on, asyncio.new_event_loop)


def run_on(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on a new loop. Without uvloop the test is skipped before it makes a coroutine."""
    if request.param == "asyncio":
        return on_asyncio
    return partial(_on, pytest.importorskip("uvloop", reason="uvloop is not installed").new_event_loop)


def is_watched(loop: asyncio.AbstractEventLoop, fd: int) -> bool:
    return bool(loop.remove_reader(fd)) or bool(loop.remove_writer(fd))
