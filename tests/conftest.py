"""What every test may use."""

from __future__ import annotations

import gc
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from iovec_rs import cpu, fault_handler

if TYPE_CHECKING:
    from collections.abc import Iterator

# Examples come out the same everywhere, and a slow machine is not a failure.
settings.register_profile(
    "repository", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("repository")


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage: the collections that tests ask for need not look through them each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process that dies leaves its temporary files to pytest, which removes them some runs later."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        patch.setattr(tempfile, "tempdir", None)  # asks the environment again
        yield


@pytest.fixture(params=cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each instruction set this CPU has."""
    with cpu.use_isa(request.param) as name:
        yield name


@pytest.fixture(params=cpu.flush_instructions())
def flush_instruction(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each instruction this CPU writes lines back with."""
    with cpu.use_flush_instruction(request.param) as name:
        yield name


@pytest.fixture(params=["signal", "syscall"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each way to meet faults."""
    with fault_handler.mode(request.param) as name:
        yield name
