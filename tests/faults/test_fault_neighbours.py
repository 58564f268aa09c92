"""Other libraries that handle SIGBUS and SIGSEGV, and the process itself, get the signals that they would get without
us.

Every case runs twice, once with copies that use our handler and once with copies that use none. Both runs must end
alike, and must have called the other library's handler equally often. The tests need gcc to build those libraries.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ownership.case import NAMES, WAYS, Case

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent.parent / "ownership"
TURNING_ROUND = -signal.SIGPROF

ORDERS = [
    "a copy",
    "copy a",
    "copy a copy",
    "a b copy",
    "copy a b",
    "a copy b",
    "a copy b copy",
    "copy a copy b copy",
    "copy a copy -a",
    "copy a copy b copy -b",
    "a copy -a",
    "copy a -a",
    "copy a copy -a copy",
    "copy a copy -a copy a copy",
    "copy a copy b copy -b -a",
    "copy a copy b copy -b copy -a copy",
    "copy a copy b copy -a",
    "copy a copy b copy -a copy -b",
    "a copy b copy -a copy -b copy",
]
MANNERS = [
    ("chain", "info"),
    ("chain", "info+nodefer"),
    ("chain", "info+onstack"),
    ("chain", "info+resethand"),
    ("chain", "info+mask"),
    ("chain", "plain"),
    ("replace", "info"),
    ("restore", "info"),
    ("restore", "info+nodefer"),
    ("jump", "info"),
    ("jump", "info+nodefer"),
    ("mend", "info"),
    ("skip", "info"),
]


ITSELF = ["a copy a copy", "copy a copy a copy", "a copy b a copy"]


def ends(style: str, flags: str) -> list[str]:
    found = ["segv", "bus", "sent", "raised"]
    if style == "chain":
        found += [f"three:{way}" for way in WAYS]
    if "onstack" in flags:
        found.append("overflow")
    if style == "jump":
        found += ["probe:saving", "probe:leaving"]
    if style == "skip":
        found.append("probe:saving")
    if style == "mend":
        found.append("barrier")
    return found


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[Case]], list[tuple[int, list[int]]]]:
    """Runs cases in a process that has loaded the other libraries. Returns how each ended, and what library `a`
    counted.
    """
    libraries = [tmp_path_factory.mktemp("neighbours") / f"{name}.so" for name in NAMES]
    for library in libraries:
        command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o", str(library)]
        subprocess.run([*command, str(HERE / "neighbour.c")], check=True, timeout=60)
    foreign = libraries[0].with_name("foreign.so")
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(foreign), str(HERE / "foreign.c")]
    subprocess.run(command, check=True, timeout=60)
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONFAULTHANDLER", "PYTHONDEVMODE")
    }
    environment |= {"FOREIGN_LIBRARY": str(foreign), "PYTHONPATH": str(HERE.parent)}

    def run(cases: list[Case]) -> list[tuple[int, list[int]]]:
        command = [sys.executable, "-m", "ownership.neighbours", *map(str, libraries)]
        done = subprocess.run(
            command,
            check=True,
            input=json.dumps(cases),
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
            env=environment,
        )
        return [(ended, counted) for ended, counted in json.loads(done.stdout)]

    return run


def death(end: str) -> int:
    return -signal.SIGBUS if end in ("bus", "raised") or end.startswith("three") else -signal.SIGSEGV


def makes_sense(case: Case) -> bool:
    # In `three`, library `a` waits for its signals, so it must not have left. Library `b` does not use the alternate
    # stack, so it could not handle a stack overflow; below our handler it runs on that stack all the same.
    absent = {"three": "-a", "overflow": "b"}.get(case.end.partition(":")[0])
    return absent is None or absent not in case.order


@pytest.mark.parametrize(("style", "flags"), MANNERS)
def test_a_neighbour_gets_what_it_would_get_without_us(
    play: Callable[[list[Case]], list[tuple[int, list[int]]]], style: str, flags: str
) -> None:
    orders = ORDERS if flags == "info" else ORDERS[:10]
    cases = [Case(True, style, flags, order, end) for order in orders for end in ends(style, flags)]
    with_us = list(filter(makes_sense, cases))
    without_us = [case._replace(ours=False) for case in with_us]
    different = []
    for case, found, expected in zip(with_us, play(with_us), play(without_us), strict=True):
        # Without us, a fault that no handler mends is raised for ever; with us, the process dies of it.
        alike = found[0] == death(case.end) if expected[0] == TURNING_ROUND else found == expected
        if not alike:
            different.append((case.order, case.end, found, expected))
    assert different == []


def test_a_neighbour_that_takes_itself_for_its_predecessor_goes_round_only_without_us(
    play: Callable[[list[Case]], list[tuple[int, list[int]]]],
) -> None:
    cases = [Case(True, "chain", "info", order, end) for order in ITSELF for end in ("segv", "bus", "sent", "raised")]
    for case, (ended, (calls, *_)) in zip(cases, play(cases), strict=True):
        assert (ended, calls) == (death(case.end), 1), case
