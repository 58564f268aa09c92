"""The loops that a test takes by its parameter `run`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from transfers.loops import run_on

if TYPE_CHECKING:
    from transfers.loops import Run


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    return run_on(request)
