"""A small test framework that runs each test in a process of its own, so that one that dies of a signal is a failure
like others.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LIMIT = 120  # seconds for one test; then SIGALRM kills it, and it has failed


class Case(NamedTuple):
    name: str
    run: Callable[[], None]


CASES: list[Case] = []


def test(**parameters: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Registers the function, once for each combination of the parameters."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        for values in itertools.product(*parameters.values()):
            label = f"{name}[{', '.join(map(str, values))}]" if values else name
            arguments = dict(zip(parameters, values, strict=True))
            CASES.append(Case(label, lambda arguments=arguments: function(**arguments)))  # type: ignore[misc]
        return function

    return register


def equal(got: object, want: object, what: str = "") -> None:
    if got != want:
        raise AssertionError(f"{what or 'value'}: {show(got)} instead of {show(want)}")


def show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def attempt(case: Case) -> str | None:
    """Runs the case in a child. Returns what is wrong, or None."""
    sys.stdout.flush()
    back, out = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(LIMIT)
        code = 0
        try:
            case.run()
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"line {last.lineno} of {Path(last.filename).name}"
            os.write(out, f"{type(error).__name__}: {error} ({where})".encode())
            code = 1
        sys.stdout.flush()
        os._exit(code)
    os.close(out)
    with os.fdopen(back, "rb") as pipe:
        said = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code:
        return " ".join(said.split()) or f"exit code {code}"
    return None


def run_all(only: str = "") -> tuple[int, int]:
    """Runs every case whose name contains `only`. Returns how many passed and how many failed."""
    passed = failed = 0
    for case in CASES:
        if only not in case.name:
            continue
        begin = time.monotonic()
        wrong = attempt(case)
        seconds = time.monotonic() - begin
        if wrong is None:
            passed += 1
            print(f"PASS {case.name} {seconds:.2f} s")
        else:
            failed += 1
            print(f"FAIL {case.name}: {wrong}")
    return passed, failed
