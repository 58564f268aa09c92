"""Very many faults, in many threads, across forks and in other interpreters: all are handled, and none leaks
anything.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import struct
import subprocess
import sys
import textwrap
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from iovec_rs import READ, WRITE, FaultError, IovIter, copy_from_iter, copy_to_iter, fault_handler, memcpy_mcsafe
from support.arena import PAGE_SIZE, Arena
from support.damage import Damage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

THREADS = 8
FAULTS = 1_000_000
CONTENT = bytes(range(1, 129)) * (PAGE_SIZE // 128)


@pytest.fixture
def edges() -> Iterator[list[Arena]]:
    """Two mappings that are bad from the second page on. One raises SIGSEGV, the other SIGBUS."""
    with Arena.good(2, CONTENT) as cut, Arena.good(2, CONTENT) as protected:
        cut.damage(1, Damage.CUT)
        protected.damage(1, Damage.PROTECTED)
        yield [cut, protected]


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_SIZE


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def in_threads(run: list[Callable[[], None]]) -> None:
    """Runs the functions at once; what one of them raises is raised here."""
    failures: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in run]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def many_faults(arena: Arena, faults: int, seed: int) -> None:
    """Copies a few bytes from memory that begins before the edge and ends behind it."""
    befores = [(seed + 7 * index) % 61 for index in range(64)]
    sources = [arena.buffer[PAGE_SIZE - before : PAGE_SIZE + 8] for before in befores]
    results = [bytearray(len(source)) for source in sources]
    wanted = [CONTENT[PAGE_SIZE - before :] + bytes(8) for before in befores]
    for start in range(0, faults, 64):
        for source, result, before in zip(sources, results, befores, strict=True):
            copied, remaining, fault = memcpy_mcsafe(result, source)
            if copied != before or remaining != 8 or fault is None or fault.offset != before:
                raise AssertionError((copied, before, fault))
        if start % 6400 == 0:
            assert results == wanted
            for result in results:
                result[:] = bytes(len(result))


def test_a_million_faults_in_eight_threads_go_right_and_leave_nothing(edges: list[Arena]) -> None:
    each = FAULTS // THREADS // 64 * 64 + 64
    in_threads([partial(many_faults, edges[n % 2], 6400, n) for n in range(THREADS)])
    gc.collect()
    memory, files, recovered = resident(), descriptors(), fault_handler.status().recovered
    with fault_handler.mode("signal"):
        in_threads([partial(many_faults, edges[n % 2], each, n) for n in range(THREADS)])
    gc.collect()
    assert fault_handler.status().recovered - recovered == each * THREADS >= FAULTS
    # If each fault leaked 100 bytes, the process would grow by 100 MB.
    assert resident() - memory < 8 << 20
    assert descriptors() == files


def many_faulting_stores(arena: Arena, faults: int, seed: int) -> None:
    """Copies a few bytes to memory that begins before the edge and ends behind it. No other thread has this arena."""
    befores = [(seed + 7 * index) % 61 for index in range(64)]
    targets = [arena.buffer[PAGE_SIZE - before : PAGE_SIZE + 8] for before in befores]
    for start in range(0, faults, 64):
        source = bytes([start // 64 % 255 + 1]) * 72
        for target, before in zip(targets, befores, strict=True):
            copied, remaining, fault = memcpy_mcsafe(target, source[: before + 8])
            if copied != before or remaining != 8 or fault is None or fault.side != "destination":
                raise AssertionError((copied, before, fault))
            if target[:before] != source[:before]:
                raise AssertionError((copied, bytes(target[:before])))


def test_stores_that_fault_in_some_threads_and_loads_in_others_go_right_and_leave_nothing(edges: list[Arena]) -> None:
    with ExitStack() as stack:
        own = [stack.enter_context(Arena.good(2)) for _ in range(THREADS // 2)]
        for number, arena in enumerate(own):
            arena.damage(1, (Damage.CUT, Damage.PROTECTED)[number % 2])

        def both(faults: int) -> None:
            run: list[Callable[[], None]] = []
            for number, arena in enumerate(own):
                run.append(partial(many_faults, edges[number % 2], faults, number))
                run.append(partial(many_faulting_stores, arena, faults, number))
            in_threads(run)

        both(6400)
        gc.collect()
        memory, files, recovered = resident(), descriptors(), fault_handler.status().recovered
        with fault_handler.mode("signal"):
            both(64_000)
        gc.collect()
        assert fault_handler.status().recovered - recovered == 64_000 * THREADS
        assert resident() - memory < 8 << 20
        assert descriptors() == files


def test_short_copies_through_iterators_leave_nothing(edges: list[Arena]) -> None:
    def short(arena: Arena, rounds: int) -> None:
        out = bytearray(100)
        for _ in range(rounds):
            source = IovIter.iovec(WRITE, [arena.buffer[PAGE_SIZE - 60 :][:30], arena.range(PAGE_SIZE - 30, 70)])
            assert copy_from_iter(out, source) == 60
            assert source.fault is not None
            target = IovIter.ubuf(READ, arena.buffer[PAGE_SIZE - 60 :][:100])
            assert copy_to_iter(CONTENT[PAGE_SIZE - 60 :] + bytes(40), target) == 60
            with pytest.raises(FaultError) as caught:
                copy_from_iter(out, IovIter.kvec(WRITE, [arena.buffer[PAGE_SIZE - 60 :][:100]]))
            assert caught.value.copied == 60

    in_threads([partial(short, edges[n % 2], 200) for n in range(THREADS)])
    gc.collect()
    memory, files = resident(), descriptors()
    in_threads([partial(short, edges[n % 2], 2000) for n in range(THREADS)])
    gc.collect()
    assert resident() - memory < 4 << 20
    assert descriptors() == files


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_in_the_middle_of_faults_changes_nothing_for_either_side(edges: list[Arena]) -> None:
    """Other threads are inside copies at the time of the fork. The child has none of those threads."""
    stop = threading.Event()

    def until_stopped(arena: Arena, seed: int) -> None:
        while not stop.is_set():
            many_faults(arena, 640, seed)

    def forks() -> None:
        try:
            for index in range(40):
                child = os.fork()
                if child == 0:
                    code = 1
                    try:
                        many_faults(edges[index % 2], 640, index)
                        code = 0
                    finally:
                        os._exit(code)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                many_faults(edges[index % 2], 640, index)
        finally:
            stop.set()

    in_threads([forks, *(partial(until_stopped, edges[n % 2], n) for n in range(3))])


def test_threads_that_come_and_go_are_all_served(edges: list[Arena]) -> None:
    """There are more threads, both in turn and at once, than one block of the table of threads has room for."""
    for _ in range(30):
        in_threads([partial(many_faults, edges[n % 2], 64, n) for n in range(50)])


def test_a_threads_own_signal_stack_is_used_and_left_to_it(edges: list[Arena]) -> None:
    """The handler runs on that stack. The thread can end normally, and later threads are not affected."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = 128 << 10

    def stack_in_use() -> tuple[int, int, int]:
        now = ctypes.create_string_buffer(24)
        assert libc.sigaltstack(None, now) == 0
        return struct.unpack("QixxxxQ", now.raw)

    def faults_on_a_stack_of_its_own(arena: Arena, seed: int) -> None:
        stack = mmap.mmap(-1, size)
        address = ctypes.addressof(ctypes.c_char.from_buffer(stack))
        assert libc.sigaltstack(struct.pack("QixxxxQ", address, 0, size), None) == 0
        many_faults(arena, 640, seed)
        assert stack_in_use() == (address, 0, size)
        assert any(stack[size // 2 :]), "no signal came by it"
        off = 2
        assert libc.sigaltstack(struct.pack("QixxxxQ", 0, off, 0), None) == 0
        many_faults(arena, 640, seed)
        assert stack_in_use()[1] == off

    with fault_handler.mode("signal"):
        for _ in range(5):
            in_threads([partial(faults_on_a_stack_of_its_own, edges[n % 2], n) for n in range(4)])


def test_other_interpreters_are_refused_and_never_crash() -> None:
    """Those that import only extensions made for them, and those that CPython lets import any."""
    program = textwrap.dedent("""
        import iovec_rs
        from iovec_rs import testing
        try:
            import _interpreters as interpreters
            makers = [interpreters.create, lambda: interpreters.create("legacy")]
        except ImportError:
            import _xxsubinterpreters as interpreters
            makers = [interpreters.create, lambda: interpreters.create(isolated=False)]

        use = '''if True:
            try:
                import iovec_rs
            except ImportError:
                print("refused")
            else:
                print("works")
        '''
        for make in 3 * makers:
            other = make()
            interpreters.run_string(other, use)
            with testing.truncated(2, 1) as memory:
                assert iovec_rs.memcpy_mcsafe(bytearray(memory.length), memory.buffer).copied == 4096
            interpreters.destroy(other)
        print("alive")
    """)
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [*6 * ["refused"], "alive"]


def test_a_handler_that_another_thread_uninstalls_was_installed_all_the_same() -> None:
    """If one thread installs and another uninstalls, the last one decides. The first must not report that the handler
    cannot be installed.
    """
    stop = threading.Event()

    def uninstall() -> None:
        while not stop.is_set():
            fault_handler.uninstall()

    threads = [threading.Thread(target=uninstall) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200_000):
            fault_handler.install()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    fault_handler.install()
    assert fault_handler.status().installed
