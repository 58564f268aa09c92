"""Several libraries of a process may handle SIGBUS and SIGSEGV: copies survive whichever does, and the others still get
their signals.

Each scenario of `ownership/` runs in a process of its own. The tests need gcc to build a library with other handlers.
"""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "ownership"
DYING = {"SIGBUS": signal.SIGBUS, "SIGSEGV": signal.SIGSEGV}


def scenarios(script: str) -> list[str]:
    tree = ast.parse((HERE / script).read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


def build(source: str, library: Path, *options: str) -> None:
    command = ["gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", *options, "-o", str(library)]
    subprocess.run([*command, str(HERE / source)], check=True, timeout=60)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("stranger") / "foreign.so"
    build("foreign.c", library)
    build("thief.c", library.with_name("thief.so"), "-I", sysconfig.get_paths()["include"])
    return library


def run(
    stranger: Path, script: str, *arguments: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONFAULTHANDLER", "PYTHONDEVMODE")
    }
    environment |= {
        "FOREIGN_LIBRARY": str(stranger),
        "PYTHONPATH": os.pathsep.join(map(str, (HERE.parent, stranger.parent))),
    }
    command = [sys.executable, *options, "-m", f"ownership.{script.removesuffix('.py')}", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("name", scenarios("others.py"))
def test_copies_survive_whoever_else_handles_the_signals(stranger: Path, name: str) -> None:
    options = ("-X", "faulthandler") if name == "already_enabled_by_the_command_line" else ()
    done = run(stranger, "others.py", name, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize("name", scenarios("life.py"))
def test_handlers_come_and_go_with_nothing_lost(stranger: Path, name: str) -> None:
    done = run(stranger, "life.py", name)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
    # If faulthandler takes over the signals during a copy, it may print a traceback before the copy goes on.
    assert done.stderr == "" or name == "faulthandler_enabled_during_a_copy"


@pytest.mark.parametrize("name", scenarios("deaths.py"))
@pytest.mark.parametrize("number", DYING)
def test_a_crash_elsewhere_is_the_crash_it_would_have_been(stranger: Path, name: str, number: str) -> None:
    if (name, number) in (("told_about_other_memory", "SIGSEGV"), ("faulthandler_out_of_stack", "SIGBUS")):
        number = {"SIGSEGV": "SIGBUS", "SIGBUS": "SIGSEGV"}[number]
    done = run(stranger, "deaths.py", name, str(int(DYING[number])))
    assert (done.returncode, done.stdout) == (-DYING[number], "about to die\n"), done.stderr
    if name.startswith("faulthandler"):
        title = {"SIGBUS": "Bus error", "SIGSEGV": "Segmentation fault"}[number]
        assert done.stderr.count(f"Fatal Python error: {title}") == 1, done.stderr
        assert "most recent call first" in done.stderr
        assert name.endswith("out_of_stack") or "deaths.py" in done.stderr
    else:
        assert done.stderr == ""


@pytest.mark.parametrize(("end", "number"), [("segv", 11), ("bus", 7), ("sent", 11), ("raised", 7), ("forked", 11)])
@pytest.mark.parametrize(
    "steps",
    [
        "copy enable disable",
        "enable copy disable",
        "copy enable copy disable",
        "copy enable copy disable copy",
        "copy enable copy disable enable disable",
        "copy enable copy enable copy disable",
        "copy enable copy disable enable copy disable copy",
        "enable copy disable copy enable copy disable",
        "enable copy disable copy enable copy disable copy enable copy disable",
    ],
)
def test_a_crash_after_faulthandler_came_and_went_is_a_crash(stranger: Path, steps: str, end: str, number: int) -> None:
    done = run(stranger, "steps.py", *steps.split(), end)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


def test_a_traceback_comes_from_the_command_line_option_too(stranger: Path) -> None:
    done = run(stranger, "deaths.py", "alone", "11", options=("-X", "faulthandler"))
    assert (done.returncode, done.stderr.count("Fatal Python error: Segmentation fault")) == (-11, 1)
    assert "crash" in done.stderr


UNDER_A_SANITIZER = """
import iovec_rs
from iovec_rs import testing

with testing.truncated(3, keep=2) as memory:
    out = bytearray(memory.length)
    copied, _, fault = iovec_rs.memcpy_mcsafe(out, memory.buffer)
    assert out == testing.pattern(0, copied) + bytes(memory.length - copied)
    print(copied, fault.origin)
"""


@pytest.mark.parametrize(
    ("options", "origin"),
    [
        ("handle_segv=0:handle_sigbus=0", "signal"),
        ("handle_segv=1:handle_sigbus=1", "signal"),
        ("handle_segv=2:handle_sigbus=2", "syscall"),
    ],
)
def test_a_sanitizer_that_keeps_the_signals_to_itself_is_got_around(options: str, origin: str) -> None:
    """AddressSanitizer can be told to ignore new handlers without an error. Then the kernel makes the copies."""
    found = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], check=True, capture_output=True, text=True, timeout=120
    )
    environment = os.environ | {
        "LD_PRELOAD": found.stdout.strip(),
        "ASAN_OPTIONS": f"detect_leaks=0:{options}",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-c", UNDER_A_SANITIZER]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert (done.returncode, done.stdout) == (0, f"8192 {origin}\n"), done.stderr
