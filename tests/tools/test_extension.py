"""The built extension as a shared object: it exports only its module, is loaded once, and is never unmapped."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from iovec_rs import _core


def objdump(option: str) -> list[str]:
    done = subprocess.run(["objdump", option, _core.__file__], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_only_the_module_is_exported() -> None:
    """Two copies of the library in one process must not resolve to each other's routines and tables."""
    defined = [line.split() for line in objdump("--dynamic-syms") if " g " in line and "*UND*" not in line]
    assert [fields[-1] for fields in defined] == ["PyInit__core"]


def test_it_is_never_unmapped_whoever_closes_it() -> None:
    """The kernel would call the signal handler even if its code were unmapped."""
    nodelete = 0x8
    (flags,) = [line.split()[-1] for line in objdump("--private-headers") if line.split()[:1] == ["FLAGS_1"]]
    assert int(flags, 16) & nodelete


def test_names_of_the_package_are_found_as_fast_as_those_of_any_module() -> None:
    program = "import sys, iovec_rs; print(*vars(iovec_rs)); print('asyncio' in sys.modules, iovec_rs.aio, iovec_rs.io)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    names, lazily = done.stdout.splitlines()
    # CPython does not specialise the access to an attribute of a module that has this function: 10 ns for each.
    assert "__getattr__" not in names.split()
    assert lazily.startswith("False <module"), "asyncio takes longer to import than the package does"


FORGET = """
import os, sys
def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "iovec_rs"]:
        del sys.modules[name]
"""


def lines_of(program: str) -> list[str]:
    command = [sys.executable, "-c", FORGET + textwrap.dedent(program)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def test_a_second_import_is_refused_and_the_first_one_goes_on_working() -> None:
    """A second module would get the first one's results: its own `except FaultError` would not catch them."""
    *refused, caught = lines_of("""
        import iovec_rs
        from iovec_rs import testing
        for _ in range(2):
            forget()
            try:
                import iovec_rs as second
            except ImportError as error:
                print(error)
        with testing.truncated(1, 0) as memory:
            try:
                iovec_rs.crc32c(memory.buffer)
            except iovec_rs.FaultError:
                print("caught")
    """)
    assert len(refused) == 2
    assert all("it can be loaded once in a process" in line for line in refused)
    assert caught == "caught"


def test_an_import_that_failed_can_be_repeated() -> None:
    refused, loaded = lines_of("""
        os.environ["IOVEC_RS_TUNING"] = "nonsense"
        try:
            import iovec_rs
        except ImportError as error:
            print(error)
        del os.environ["IOVEC_RS_TUNING"]
        import iovec_rs
        print(iovec_rs.crc32c(b""))
    """)
    assert "nonsense" in refused
    assert loaded == "0"
