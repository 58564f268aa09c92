"""Guards over any code whose memory vanishes. Each scenario runs in a process of its own, which a bug would kill."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATIENCE = 300


def scenarios(script: str) -> list[str]:
    tree = ast.parse((HERE / script).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def run(script: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONFAULTHANDLER", "PYTHONDEVMODE")
    }
    environment["PYTHONPATH"] = str(HERE.parent)
    command = [sys.executable, *options, "-m", f"guard.{script.removesuffix('.py')}", name]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, env=environment)


SCRIPTS = [
    "blocks.py",
    "extents.py",
    "threads.py",
    "others.py",
    "limits.py",
    "copies.py",
    "races.py",
    "remade.py",
    "judges.py",
]
LIVING = [(script, name) for script in SCRIPTS if (HERE / script).exists() for name in scenarios(script)]


@pytest.mark.parametrize(("script", "name"), LIVING, ids=[name for _, name in LIVING])
def test_the_process_lives(script: str, name: str) -> None:
    done = run(script, name)
    if done.stdout.startswith("skip: "):
        pytest.skip(done.stdout.removeprefix("skip: "))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("traceback", [False, True], ids=["alone", "faulthandler"])
@pytest.mark.parametrize("name", scenarios("deaths.py"))
def test_a_crash_that_is_not_guarded_is_the_crash_it_would_have_been(name: str, traceback: bool) -> None:
    number = signal.SIGSEGV if "segv" in name else signal.SIGBUS
    done = run("deaths.py", name, *(["-X", "faulthandler"] if traceback else []))
    assert (done.returncode, done.stdout) == (-number, "about to die\n"), done.stderr
    title = {signal.SIGBUS: "Bus error", signal.SIGSEGV: "Segmentation fault"}[number]
    assert done.stderr.count(f"Fatal Python error: {title}") == traceback, done.stderr
    assert ("deaths.py" in done.stderr) == traceback
