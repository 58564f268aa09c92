"""Fixtures for all tests."""

from __future__ import annotations

import gc
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from iovec_rs import cpu, fault_handler

if TYPE_CHECKING:
    from collections.abc import Iterator

# Examples are the same on every machine, and a slow machine fails no test.
settings.register_profile(
    "repository", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("repository")


def pytest_collection_finish() -> None:
    """Excludes the thousands of test objects from garbage collection, which makes the collections that tests run
    quick.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Puts temporary files below pytest's own directory, so that those of a process that dies are removed some runs
    later.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
        patch.setattr(tempfile, "tempdir", None)  # makes tempfile read the environment again
        yield


@pytest.fixture(params=cpu.available())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each instruction set that this CPU has."""
    with cpu.use_isa(request.param) as name:
        yield name


@pytest.fixture(params=cpu.flush_instructions())
def flush_instruction(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each write-back instruction that this CPU has."""
    with cpu.use_flush_instruction(request.param) as name:
        yield name


@pytest.fixture(params=["signal", "syscall"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once in each mode of fault handling."""
    with fault_handler.mode(request.param) as name:
        yield name
