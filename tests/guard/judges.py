"""Other projects as judges: python -m guard.judges NAME."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from iovec_rs import PAGE_SIZE, FaultError, guard

from guard.common import Array, MappedFile, caught, extents, places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def _judge(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        print(f"skip: {name} is not installed")
        sys.exit(0)
    return importlib.import_module(name)


def _fate(read: Callable[[], object]) -> int:
    """The signal that kills a child that reads without a guard, or 0."""
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        with contextlib.suppress(BaseException):
            read()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


class _Guarded:
    """Runs each test of another project under guards, which must report no fault."""

    calls = 0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        self.calls += 1
        with guard():
            return (yield)


def numpys_own_tests_of_memmap_pass_under_a_guard() -> None:
    tests = Path(np.__file__).parent / "_core" / "tests" / "test_memmap.py"
    if not tests.exists():
        print("skip: this numpy comes without its tests")
        sys.exit(0)
    plugin, said = _Guarded(), io.StringIO()
    options = ["-q", "-c", os.devnull, "-p", "no:cacheprovider", "-W", "ignore", "--import-mode=importlib"]
    with tempfile.TemporaryDirectory() as where, contextlib.redirect_stdout(said):
        os.chdir(where)
        code = pytest.main([*options, f"--rootdir={tests.parent}", str(tests)], plugins=[plugin])
        os.chdir("/")
    assert code == 0, said.getvalue()
    assert plugin.calls > 10


def safetensors_reads_a_file_that_was_cut() -> None:
    safetensors, writer = _judge("safetensors"), importlib.import_module("safetensors.numpy")
    with tempfile.TemporaryDirectory() as where:
        path = Path(where, "model.safetensors")
        wanted = {f"layer{at}": np.full((64, 1024), at + 1, dtype=np.float32) for at in range(8)}
        writer.save_file(wanted, path)
        whole = path.read_bytes()
        with safetensors.safe_open(path, framework="np") as opened:

            def tensors() -> dict[str, Array]:
                return {name: opened.get_tensor(name) for name in wanted}

            os.truncate(path, len(whole) // 2)
            assert _fate(tensors) == signal.SIGBUS
            with guard(on_fault="record") as watch:
                found = tensors()
            assert watch.lost >= len(whole) // 2 - PAGE_SIZE
            assert watch.not_restored == 0
            for name, tensor in found.items():
                assert ((tensor == wanted[name]) | (tensor == 0)).all()
            assert sum(np.array_equal(found[name], wanted[name]) for name in wanted) in (3, 4)
            path.write_bytes(whole)
            assert all(np.array_equal(tensor, wanted[name]) for name, tensor in tensors().items())
    assert extents() == 0


def lmdb_reads_a_database_that_was_cut() -> None:
    lmdb = _judge("lmdb")
    with tempfile.TemporaryDirectory() as where:
        wanted = {f"key{at:03}".encode(): bytes([at + 1]) * 50_000 for at in range(64)}
        with lmdb.open(where, map_size=16 << 20) as environment, environment.begin(write=True) as transaction:
            for key, value in wanted.items():
                transaction.put(key, value)
        path = Path(where, "data.mdb")
        whole = path.read_bytes()
        with lmdb.open(where, map_size=16 << 20, readonly=True, lock=False) as environment:

            def read() -> dict[bytes, bytes]:
                with environment.begin() as transaction:
                    return dict(transaction.cursor())

            os.truncate(path, 16 * PAGE_SIZE)
            assert _fate(read) == signal.SIGBUS
            raised: BaseException | None = None
            try:
                with guard():
                    read()
            except FaultError as error:
                raised = caught(error)
            assert isinstance(raised, FaultError)
            assert raised.__context__ is None or isinstance(raised.__context__, lmdb.Error)
            path.write_bytes(whole)
            assert read() == wanted
    assert extents() == 0


def a_store_that_faults_names_its_address_as_in_go() -> None:
    """As in Go's test of `SetPanicOnFault`, the fault becomes an error with the address, and the program goes on."""
    file = MappedFile(8, mode="r+")
    file.cut(2)
    for offset in (2 * PAGE_SIZE, 3 * PAGE_SIZE + 1, 5 * PAGE_SIZE + 0xBE, 8 * PAGE_SIZE - 1):
        for _ in range(2):
            raised = None
            try:
                with guard(file.array):
                    file.array[offset] = 1
            except FaultError as error:
                raised = error
            fault = caught(raised).fault
            assert fault.address == file.address + offset // PAGE_SIZE * PAGE_SIZE
            assert (fault.side, fault.signo) == ("destination", signal.SIGBUS)
    file.check_is_the_file_again()


def a_buffer_whose_file_was_truncated_as_in_openjdk() -> None:
    """As in OpenJDK's test of mapped buffers, three pages are truncated to two, and no access behind the end
    crashes.
    """
    file = MappedFile(3, mode="r+")
    file.cut(2)
    last, other = file.array[2 * PAGE_SIZE :], np.full(3 * PAGE_SIZE, 9, dtype=np.uint8)
    ways: dict[str, Callable[[], object]] = {
        "one byte": lambda: last[5],
        "a word across the end": lambda: file.array[2 * PAGE_SIZE - 4 : 2 * PAGE_SIZE + 4].view(np.uint64)[0],
        "fill": lambda: last.fill(1),
        "out of it": lambda: np.copyto(other, file.array),
        "into it": lambda: np.copyto(last, other[:PAGE_SIZE]),
        "within it": lambda: np.copyto(last, file.array[:PAGE_SIZE]),
        "as bytes": lambda: bytes(memoryview(file.array)),
    }
    for name, way in ways.items():
        raised = None
        try:
            with guard(file.array):
                way()
        except FaultError as error:
            raised = error
        told = caught(raised)
        assert told.guard is not None
        assert places(told.guard.faults, file.address) == [(2, 1)], name
        assert np.array_equal(file.array[: 2 * PAGE_SIZE], file.expected[: 2 * PAGE_SIZE]), name
    file.check_is_the_file_again()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
