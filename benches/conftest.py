"""pytest-benchmark over contestants that the interleaved harness races, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from iovec_rs._bench import libpmem
from iovec_rs._bench.harness import Case, fit, prove, quiet
from iovec_rs._bench.lasting import instruction_kept

Compare = Callable[[Case, str], None]

SECONDS = 1.0
"""About how long all contestants of a case take together; it decides how many rounds there are."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a clock the large sizes show nothing that the small ones do not."""
    if config.getoption("benchmark_disable"):
        items[:] = [item for item in items if item.get_closest_marker("large") is None]


@pytest.fixture
def quick(pytestconfig: pytest.Config) -> bool:
    """Tiny cases, where nothing is measured."""
    return bool(pytestconfig.getoption("benchmark_disable"))


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with instruction_kept(), quiet():
        yield


@pytest.fixture
def compare(benchmark: Any, quick: bool) -> Compare:
    """Measures one contestant of a case, once all of them were shown to produce the same bytes."""

    def run(case: Case, name: str) -> None:
        contestants = {contestant.name: contestant for contestant in (case.ours, *case.rivals)}
        if name.startswith("pmem_memcpy") and libpmem.load() is None:
            pytest.skip(libpmem.ABSENT)
        prove(list(contestants.values()), case.scrub)
        chosen = contestants[name]

        def prepare() -> None:
            chosen.prepare()

        benchmark.group = case.title
        benchmark.extra_info["operations"] = case.ops
        benchmark.extra_info["bytes"] = case.ops * case.op_bytes
        rounds = 1 if quick else fit(case, SECONDS).rounds
        benchmark.pedantic(chosen.run, setup=prepare, rounds=rounds, warmup_rounds=0 if quick else 2)

    return run
