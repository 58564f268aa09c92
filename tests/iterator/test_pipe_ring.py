"""A pipe's ring: which writer may append to which page; threads that fill, drain and query it; and forks."""

from __future__ import annotations

import mmap
import os
import resource
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    FaultError,
    FolioQueue,
    IovIter,
    PipeRing,
    XArray,
    copy_page_to_iter,
    copy_to_iter,
    copy_to_iter_full,
    testing,
)
from support.own_process import little_memory, survives

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


def layout(ring: PipeRing) -> list[tuple[int, int]]:
    return [(offset, length) for _, offset, length, _ in ring.slots]


# --- which page is added to --------------------------------------------------------------------------------------


def test_a_longer_view_of_a_referenced_page_gets_a_separate_slot() -> None:
    """The slot's owner keeps ten bytes alive; the ten behind them have another owner."""
    memory = memoryview(bytearray(range(256)))
    ring = PipeRing(4)
    i = IovIter.pipe(READ, ring, 1000)
    assert copy_page_to_iter(memory[:10], 2, 8, i) == 8
    assert copy_page_to_iter(memory[:20], 10, 10, i) == 10
    assert layout(ring) == [(2, 8), (10, 10)]
    assert ring.read() == memory[2:20]
    assert ring.used == 0


def test_another_view_of_a_referenced_page_extends_its_slot() -> None:
    page = bytearray(range(100))
    ring = PipeRing(4)
    i = IovIter.pipe(READ, ring, 1000)
    assert copy_page_to_iter(page, 0, 10, i) == 10
    assert copy_page_to_iter(memoryview(page), 10, 10, i) == 10
    assert layout(ring) == [(0, 20)]
    assert ring.read() == page[:20]


@pytest.mark.parametrize("start", [0, 100, 1000, 1024])
def test_filling_a_ring_from_its_own_newest_page_reads_the_page_first(start: int) -> None:
    ring = PipeRing(4)
    ring.write(bytes(range(256)) * 4)
    page = ring.slots[0][0]
    source = bytes(page[start : start + 2000])
    assert ring.write(page[start : start + 2000]) == 2000
    assert ring.read() == bytes(range(256)) * 4 + source


def test_a_revert_removes_only_the_newest_bytes_of_the_same_writer() -> None:
    ring = PipeRing(2)
    i = IovIter.pipe(READ, ring, 3 * PAGE_SIZE)
    assert copy_to_iter(b"abc", i) == 3
    assert ring.write(b"other") == 5
    with pytest.raises(ValueError, match="only 0 bytes"):
        i.revert(1)
    assert ring.read() == b"abcother"
    assert copy_to_iter_full(bytes(3 * PAGE_SIZE), i) is False
    assert (ring.used, i.count) == (0, 3 * PAGE_SIZE - 3)


# --- draining it -------------------------------------------------------------------------------------------------


@pytest.fixture
def full_pipe() -> Iterator[tuple[int, int]]:
    """A full kernel pipe: its reading end and its writing end."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(PAGE_SIZE))
    os.set_blocking(writing, True)
    yield reading, writing
    os.close(reading)
    os.close(writing)


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    content = b""
    try:
        while part := os.read(fd, 1 << 20):
            content += part
    except BlockingIOError:
        pass
    return content


def in_a_system_call(thread: threading.Thread) -> bool:
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def wait_until_asleep(thread: threading.Thread) -> None:
    for _ in range(6000):
        if in_a_system_call(thread):
            return
        threading.Event().wait(0.01)
    raise AssertionError("the thread does not wait")


class SignalError(Exception):
    """Raised by the signal handler."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """SIGALRM raises `SignalError` in the main thread repeatedly."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise SignalError

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("alarm")
def test_a_signal_ends_a_waiting_splice_without_losing_a_byte(full_pipe: tuple[int, int]) -> None:
    reading, writing = full_pipe
    ring = PipeRing(4)
    ring.write(b"A" * 5000)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    with pytest.raises(SignalError):
        ring.splice(writing)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert drain(reading).strip(b"\0") + ring.read() == b"A" * 5000


@pytest.mark.usefixtures("alarm")
def test_a_signal_ends_a_read_that_waits_for_a_splice(full_pipe: tuple[int, int]) -> None:
    reading, writing = full_pipe
    ring = PipeRing(4)
    ring.write(b"A" * 5000)
    thread = threading.Thread(target=ring.splice, args=(writing,))
    thread.start()
    wait_until_asleep(thread)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)
    with pytest.raises(SignalError):
        ring.read()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert (ring.used, ring.full) == (2, False)
    content = b""
    while len(content) < 5000:
        content += os.read(reading, 1 << 20).strip(b"\0")
    thread.join()
    assert content + ring.read() == b"A" * 5000


def test_bytes_written_during_a_waiting_splice_are_sent_once(full_pipe: tuple[int, int]) -> None:
    reading, writing = full_pipe
    ring = PipeRing(64)
    ring.write(b"A" * PAGE_SIZE)
    sent: list[int] = []
    taken: list[bytes] = []
    splicing = threading.Thread(target=lambda: sent.append(ring.splice(writing)))
    splicing.start()
    wait_until_asleep(splicing)

    def read_and_write() -> None:
        taken.append(ring.read())
        ring.write(b"B" * PAGE_SIZE)
        taken.append(ring.read())

    other = threading.Thread(target=read_and_write)
    other.start()
    wait_until_asleep(other)
    assert taken == [], "the bytes are on their way"
    content = os.read(reading, PAGE_SIZE)
    while splicing.is_alive() or other.is_alive():
        content += drain(reading)
        threading.Event().wait(0.01)
    content += drain(reading)
    everything = content + b"".join(taken) + ring.read()
    assert (everything.count(b"A"), everything.count(b"B")) == (PAGE_SIZE, PAGE_SIZE)
    assert sent == [content.count(b"A") + content.count(b"B")]


def test_several_readers_and_writers_transfer_every_word_once() -> None:
    """Two threads write, one references pages, two splice and two read. A reader gets a writer's words in order."""
    words, ring = 40_000, PipeRing(16)
    near, far = socket.socketpair()
    outputs: list[list[int]] = []
    stop = threading.Event()

    def write(start: int) -> None:
        for first in range(start, start + words, 50):
            data = b"".join(word.to_bytes(4, "big") for word in range(first, first + 50))
            while data:
                data = data[ring.write(data) :]

    def lend(start: int) -> None:
        i = IovIter.pipe(READ, ring, 4 * words)
        for first in range(start, start + words, 50):
            page = b"".join(word.to_bytes(4, "big") for word in range(first, first + 50))
            while not copy_page_to_iter(page, 0, 200, i):
                pass

    def keep(content: bytes) -> None:
        assert len(content) % 4 == 0
        outputs.append([int.from_bytes(content[at : at + 4], "big") for at in range(0, len(content), 4)])

    def read() -> None:
        content = b""
        while not stop.is_set():
            content += ring.read(400)
        keep(content)

    def splice() -> None:
        while not stop.is_set():
            ring.splice(near, 4000)

    def receive() -> None:
        content = b""
        while part := far.recv(1 << 16):
            content += part
        keep(content)

    writers = [threading.Thread(target=write, args=(n * words,)) for n in range(2)]
    writers.append(threading.Thread(target=lend, args=(2 * words,)))
    drains = [threading.Thread(target=target) for target in (read, read, splice, splice)]
    receiver = threading.Thread(target=receive)
    for thread in [*writers, *drains, receiver]:
        thread.start()
    for thread in writers:
        thread.join()
    while ring.used:
        threading.Event().wait(0.01)
    stop.set()
    for thread in drains:
        thread.join()
    near.close()
    receiver.join()
    far.close()
    assert sorted(word for output in outputs for word in output) == list(range(3 * words))
    for output in outputs:
        for writer in range(3):
            mine = [word for word in output if word // words == writer]
            assert mine == sorted(mine)


def read_without_memory() -> None:
    page = mmap.mmap(-1, 1 << 28)
    page[-3:] = b"end"
    ring = PipeRing(4)
    assert copy_page_to_iter(page, 0, 1 << 28, IovIter.pipe(READ, ring, 1 << 28)) == 1 << 28
    with little_memory(64 << 20), pytest.raises(MemoryError):
        ring.read()
    content = ring.read()
    assert (len(content), content[-3:], ring.used) == (1 << 28, b"end", 0)


def test_a_read_without_memory_for_its_result_consumes_nothing() -> None:
    survives(read_without_memory)


def test_a_read_returns_the_bytes_before_bad_memory_and_the_next_one_raises() -> None:
    with testing.poisoned(3, bad=[(PAGE_SIZE, 1)]) as memory:
        ring = PipeRing(4)
        ring.write(b"before")
        assert copy_page_to_iter(memory.buffer, 0, 2 * PAGE_SIZE, IovIter.pipe(READ, ring, 1 << 20)) == 2 * PAGE_SIZE
        assert len(ring.read()) == 6 + PAGE_SIZE
        with pytest.raises(FaultError) as bad:
            ring.read()
        assert (bad.value.fault.offset, bad.value.copied, ring.used) == (0, 0, 1)
        del ring


# --- looking at it -----------------------------------------------------------------------------------------------


def test_the_fill_level_can_be_read_during_a_copy_into_the_ring() -> None:
    pages = 1 << 15
    ring = PipeRing(pages)
    source = mmap.mmap(-1, pages * PAGE_SIZE)
    i = IovIter.pipe(READ, ring, len(source))
    thread = threading.Thread(target=copy_to_iter, args=(source, i))
    thread.start()
    seen = set()
    while thread.is_alive():
        seen.add(ring.used)
        assert not ring.full or ring.used == pages
        assert repr(ring).startswith("<PipeRing used=")
    assert any(0 < used < pages for used in seen), "every question waited for the whole copy"
    assert (ring.used, ring.full) == (pages, True)


# --- forks -------------------------------------------------------------------------------------------------------


def fork_in_the_middle_of_copies() -> None:
    ring, source = PipeRing(1 << 12), mmap.mmap(-1, 1 << 24)
    source[:] = b"x" * (1 << 24)
    stop = threading.Event()

    def fill() -> None:
        while not stop.is_set():
            copy_to_iter(source, IovIter.pipe(READ, ring, 1 << 24))
            ring.read()

    def look() -> int:
        content = ring.read()
        whole = content == b"x" * len(content) and ring.used == 0
        room = copy_to_iter(source, IovIter.pipe(READ, ring, 1 << 24))
        return not (whole and room == (1 << 12) * PAGE_SIZE and ring.full)

    threads = [threading.Thread(target=fill) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        child = os.fork()
        if not child:
            signal.alarm(60)
            os._exit(look())
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()


def test_a_child_forked_during_a_copy_finds_complete_slots_and_open_locks() -> None:
    survives(fork_in_the_middle_of_copies, timeout=300)


def fork_while_a_splice_waits() -> None:
    reading, writing = os.pipe()
    ring = PipeRing(16)
    ring.write(bytes(1 << 16))
    assert ring.splice(writing) == 1 << 16
    ring.write(b"on its way")
    thread = threading.Thread(target=ring.splice, args=(writing,))
    thread.start()
    wait_until_asleep(thread)
    child = os.fork()
    if not child:
        signal.alarm(60)
        os._exit(ring.read() != b"on its way")
    assert os.waitpid(child, 0)[1] == 0
    assert len(os.read(reading, 1 << 16)) == 1 << 16
    thread.join()
    assert os.read(reading, 1 << 16) == b"on its way"


def test_a_child_can_read_bytes_that_a_thread_of_its_parent_was_splicing() -> None:
    survives(fork_while_a_splice_waits)


def fork_while_pages_are_copied_to() -> None:
    array, queue = XArray({n: bytearray(PAGE_SIZE) for n in range(4)}), FolioQueue([bytearray(4 * PAGE_SIZE)])
    stop = threading.Event()

    def copy() -> None:
        while not stop.is_set():
            for _ in range(100):
                copy_to_iter(bytes(4 * PAGE_SIZE), IovIter.xarray(READ, array, 0, 4 * PAGE_SIZE))
                copy_to_iter(bytes(4 * PAGE_SIZE), IovIter.folioq(READ, queue, 0, 0, 4 * PAGE_SIZE))

    threads = [threading.Thread(target=copy) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(100):
        child = os.fork()
        if not child:
            signal.alarm(60)
            array.store(1, bytearray(PAGE_SIZE))
            queue.append(bytearray(1))
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    for thread in threads:
        thread.join()


def test_a_child_forked_during_copies_can_change_arrays_and_queues() -> None:
    survives(fork_while_pages_are_copied_to, timeout=300)


# --- memory and sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [-1, -(2**70), 9, 2**63, 2**64 - 1])
def test_a_length_beyond_the_ring_means_all_bytes(nbytes: int) -> None:
    ring = PipeRing(4)
    ring.write(b"all of it")
    for refused, exception in ((2**64, ValueError), ("9", TypeError)):
        with pytest.raises(exception, match="nbytes"):
            ring.read(refused)  # type: ignore[arg-type]
    assert ring.read(nbytes) == b"all of it"


def make_large_rings() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rings = [PipeRing(1 << 20) for _ in range(20)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10, "KiB"
    assert not any(ring.used for ring in rings)


def test_a_large_ring_allocates_only_when_it_is_filled() -> None:
    survives(make_large_rings)
