"""Runtimes that use SIGSEGV and SIGBUS for their own work, a JVM and wasmtime, keep working beside us, in any order of
start.

A test runs if its runtime is installed: a JDK with its headers, or `pip install --group runtimes`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "ownership"

ORDERS = [
    "start trip copy trip copy trip",
    "copy start trip copy trip copy trip",
    "copy start copy trip copy trip",
    "enable start trip copy trip copy trip",
    "copy enable copy start trip copy trip",
    "copy enable copy start copy trip copy trip",
]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("stranger") / "foreign.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "foreign.c")]
    subprocess.run(command, check=True, timeout=60)
    return library


@pytest.fixture(scope="session")
def jvm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("there is no javac")
    home = Path(compiler).resolve().parent.parent
    library = home / "lib" / "server" / "libjvm.so"
    if not (library.exists() and (home / "include" / "jni.h").exists()):
        pytest.skip(f"{home} has no JVM that can be linked to")
    place = tmp_path_factory.mktemp("jvm")
    subprocess.run([compiler, "-d", str(place), str(HERE / "Trips.java")], check=True, timeout=300)
    headers = ["-I", str(home / "include"), "-I", str(home / "include" / "linux")]
    command = ["gcc", "-O2", "-shared", "-fPIC", *headers, "-o", str(place / "glue.so"), str(HERE / "jvm.c")]
    subprocess.run(command, check=True, timeout=60)
    return {"JVM_LIBRARY": str(library), "JVM_GLUE": str(place / "glue.so")}


def run(foreign: Path, runtime: str, order: str, more: dict[str, str]) -> None:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONFAULTHANDLER", "PYTHONDEVMODE")
    }
    environment |= {"FOREIGN_LIBRARY": str(foreign), "PYTHONPATH": str(HERE.parent)} | more
    command = [sys.executable, "-m", "ownership.runtimes", runtime, *order.split()]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=environment)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout + done.stderr


@pytest.mark.parametrize("order", ORDERS)
def test_a_jvm_keeps_recovering(foreign: Path, jvm: dict[str, str], order: str) -> None:
    run(foreign, "jvm", order, jvm)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.skipif(importlib.util.find_spec("wasmtime") is None, reason="wasmtime is not installed")
def test_wasmtime_keeps_trapping(foreign: Path, order: str) -> None:
    run(foreign, "wasmtime", order, {})
