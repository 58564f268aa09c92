"""The verdict on a guest's console output: a boot that died or contradicts itself has failed, whatever it printed
before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from guest import boot

if TYPE_CHECKING:
    from pathlib import Path

GOOD = ["Linux 6.1.0", "PASS one.test 0.01 s", "2 passed, 0 failed", "guest exit: 0"]


def verdict(console: list[str], *, problem: str | None = None, code: int = 0) -> boot.Boot:
    return boot.verdict("max", console, 1.0, problem, code)


def test_a_summary_and_a_matching_exit_code_are_a_success() -> None:
    assert verdict(GOOD) == boot.Boot("max", 2, 0, 1.0, None, GOOD)


def test_failed_tests_are_no_problem_of_the_boot() -> None:
    said = verdict(["FAIL one.test: why", "1 passed, 1 failed", "guest exit: 1"])
    assert (said.passed, said.failed, said.problem) == (1, 1, None)


@pytest.mark.parametrize(
    ("console", "code", "problem"),
    [
        ([], 0, "0 summary lines instead of one"),
        ([*GOOD[:2], "guest exit: 137"], 0, "0 summary lines instead of one"),
        (GOOD[:3], 0, "the guest never said how its tests ended"),
        (GOOD[:3] + GOOD[2:], 0, "2 summary lines instead of one"),
        ([*GOOD[:3], "guest exit: 1"], 0, "exit code 1 and 2 passed, 0 failed contradict each other"),
        (["0 passed, 0 failed", "guest exit: 0"], 0, "exit code 0 and 0 passed, 0 failed contradict each other"),
        (GOOD, 1, "QEMU ended with 1"),
        (
            ["[    4.49] Kernel panic - not syncing: Attempted to kill init!", *GOOD],
            0,
            "the guest's kernel broke: [    4.49] Kernel panic - not syncing: Attempted to kill init!",
        ),
    ],
)
def test_a_boot_that_proves_nothing_has_a_problem(console: list[str], code: int, problem: str) -> None:
    assert verdict(console, code=code).problem == problem


def test_a_boot_that_never_ends_is_ended_and_failed(tmp_path: Path) -> None:
    forever = ["sh", "-c", "echo '2 passed, 0 failed'; exec sleep 120"]
    said = boot.boot(forever, "max", 5.0, tmp_path / "console", stream=False)
    assert said.problem == "no end after 5 s"
    assert (tmp_path / "console").read_text(encoding="utf-8") == "2 passed, 0 failed\n"
