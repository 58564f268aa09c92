"""Scenarios in which handlers are installed and uninstalled: python -m ownership.life NAME. Each prints `ok` at its
end.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import mmap
import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import FaultError, fault_handler, memcpy_mcsafe, pmem, testing

from ownership.common import BOTH, BUS, SEGV, dispositions, foreign, install_foreign, owners, probe_foreign, survive

if TYPE_CHECKING:
    from collections.abc import Callable


def blocked() -> None:
    for first in (True, False):
        if not first:
            survive()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, BOTH)
        survive()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == {signal.SIGBUS, signal.SIGSEGV}
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        survive()


def blocked_in_one_thread() -> None:
    survived: list[list[str]] = []

    def run(number: int) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [number])
        survived.extend(survive() for _ in range(50))

    threads = [threading.Thread(target=run, args=(number,)) for number in (BUS, SEGV)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        survive()
    for thread in threads:
        thread.join()
    assert len(survived) == 100


def fork() -> None:
    for first in (True, False):
        if not first:
            survive()
        child = os.fork()
        if child == 0:
            survive()
            os._exit(17)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
        survive()


def threads() -> None:
    survived: list[list[str]] = []
    runners = [threading.Thread(target=lambda: survived.extend(survive() for _ in range(200))) for _ in range(8)]
    for runner in runners:
        runner.start()
    for runner in runners:
        runner.join()
    assert len(survived) == 8 * 200
    assert fault_handler.status().recovered == 8 * 200 * 8


def second_copy_of_the_library() -> None:
    with tempfile.TemporaryDirectory() as place:
        package = Path(place, "iovec_two")
        shutil.copytree(Path(fault_handler.__file__).parent, package)
        for source in package.glob("*.py"):
            source.write_text(source.read_text().replace("iovec_rs", "iovec_two"))
        sys.path.insert(0, place)
        two = importlib.import_module("iovec_two")
    for _ in range(10):
        survive()
        survive(two)
        survive(two)
    two.fault_handler.uninstall()
    survive()
    survive(two)


def system_calls_only() -> None:
    before = dispositions()
    with fault_handler.mode("syscall"):
        assert fault_handler.status().mode == "syscall"
        assert survive() == ["syscall"] * 8
        assert dispositions() == before
        assert not fault_handler.status().installed
        assert fault_handler.status().recovered == 0
    assert fault_handler.status().mode == "auto"
    with fault_handler.mode("signal"):
        assert survive() == ["signal"] * 8
        with fault_handler.mode("syscall"):
            assert survive() == ["syscall"] * 8
        assert fault_handler.status().mode == "signal"
    assert fault_handler.status().recovered == 8


def not_allowed_to_install() -> None:
    """The process is not permitted to change the actions of these signals. We notice, say so, and copy by system
    calls.
    """
    assert foreign.refuse_sigaction() == 0

    def by_signal_alone() -> None:
        with fault_handler.mode("signal"):
            survive()

    refused: list[str] = []
    for attempt in (fault_handler.install, by_signal_alone):
        try:
            attempt()
        except (OSError, RuntimeError) as error:
            refused.append(str(error))
    assert len(list(filter(None, refused))) == 2, "it claims to own what it cannot own, or gives no reason"
    fault_handler.mode("auto")
    assert owners() == ("default", "default")
    assert not fault_handler.status().installed
    assert survive() == ["syscall"] * 8


def uninstall_restores() -> None:
    preparations: list[Callable[[], object]] = [dispositions, install_foreign, faulthandler.enable]
    for prepare in preparations:
        prepare()
        before = dispositions()
        fault_handler.install()
        assert dispositions() != before
        assert owners() == ("ours", "ours")
        survive()
        fault_handler.install()
        fault_handler.uninstall()
        assert dispositions() == before
        fault_handler.uninstall()
        assert dispositions() == before


def uninstalled_during_copies() -> None:
    """The handler stays until a copy that runs into bad memory has ended."""
    with testing.truncated(512, 256) as memory:
        wrong: list[int] = []

        def run() -> None:
            out = bytearray(memory.length)
            counts = (memcpy_mcsafe(out, memory.buffer).copied for _ in range(300))
            wrong.extend(copied for copied in counts if copied != memory.length // 2)

        copying = threading.Thread(target=run)
        copying.start()
        while copying.is_alive():
            fault_handler.uninstall()
        copying.join()
        assert wrong == []


def uninstalled_during_copies_of_more_threads_than_one_table_has_slots() -> None:
    with testing.truncated(2048, 2047) as memory:
        stop, sitting = threading.Event(), threading.Barrier(601)
        threading.stack_size(64 << 10)

        def sit() -> None:
            assert memcpy_mcsafe(bytearray(9), memory.buffer[:9]).copied == 9
            sitting.wait()
            stop.wait()

        sitters = [threading.Thread(target=sit) for _ in range(600)]
        for thread in sitters:
            thread.start()
        sitting.wait()

        wrong: list[int] = []

        def run() -> None:
            out = bytearray(memory.length)
            counts = (memcpy_mcsafe(out, memory.buffer).copied for _ in range(100))
            wrong.extend(copied for copied in counts if copied != memory.length - 4096)

        copying = threading.Thread(target=run)
        copying.start()
        while copying.is_alive():
            fault_handler.uninstall()
        copying.join()
        stop.set()
        for thread in sitters:
            thread.join()
        assert wrong == []


def forked_while_others_copy() -> None:
    """In the child no other thread copies any more, so uninstalling waits for none, and later copies survive."""
    done = threading.Event()

    def run() -> None:
        out, source = bytearray(8 << 20), bytes(8 << 20)
        while not done.is_set():
            memcpy_mcsafe(out, source)

    copying = [threading.Thread(target=run) for _ in range(2)]
    for thread in copying:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            fault_handler.uninstall()
            survive()
            os._exit(17)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    done.set()
    for thread in copying:
        thread.join()


def installed_again_and_again() -> None:
    """None of it leaks anything."""
    pages = []
    for _ in range(4):
        for _ in range(20_000):
            fault_handler.install()
            fault_handler.uninstall()
        pages.append(int(Path("/proc/self/statm").read_text().split()[1]))
    assert pages[-1] - pages[1] < 50, pages


def cut_while_it_is_flushed_by_system_calls() -> None:
    with tempfile.TemporaryFile() as file:
        size = 1 << 20
        file.truncate(size)
        mapping = mmap.mmap(file.fileno(), size)
        done = threading.Event()

        def cut() -> None:
            while not done.is_set():
                os.ftruncate(file.fileno(), 4096)
                os.ftruncate(file.fileno(), size)

        cutting = threading.Thread(target=cut)
        cutting.start()
        with fault_handler.mode("syscall"):
            for _ in range(300):
                with contextlib.suppress(FaultError):
                    pmem.flush(mapping)
        done.set()
        cutting.join()


def uninstall_below_somebody_leaves_all_alone() -> None:
    fault_handler.install()
    install_foreign()
    before = dispositions()
    fault_handler.uninstall()
    assert dispositions() == before
    assert before[0][0] == foreign.recovering_address()
    for _ in range(3):
        survive()
        probe_foreign()


def faulthandler_enabled_during_a_copy() -> None:
    """Another thread enables it at any moment of a copy that ends at a fault."""
    size = 64 << 20
    with testing.truncated((size >> 12) + 1, size >> 12) as memory:
        out = bytearray(memory.length)
        for wait in range(12):
            fault_handler.install()
            timer = threading.Timer(wait / 2000, faulthandler.enable)
            timer.start()
            assert memcpy_mcsafe(out, memory.buffer).copied == size
            timer.join()
            faulthandler.disable()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
