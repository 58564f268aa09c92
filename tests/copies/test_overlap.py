"""If the two sides overlap, a copy ends as if all of the source had been read before anything was written.

Every function copies at every kind of distance, with the handler and without it, up to the first byte that cannot be
read or written. The model is a slice of bytes assigned to another.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import pytest
from iovec_rs import (
    READ,
    WRITE,
    FaultMap,
    IovIter,
    McResult,
    PipeRing,
    UserRange,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_mcsafe,
    cpu,
    csum_and_copy_from_iter,
    csum_and_copy_to_iter,
    fault_handler,
    hash_and_copy_to_iter,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
)
from support.arena import PAGE_SIZE, Arena, Page, window
from support.checksum import internet_checksum

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer


class Copied(NamedTuple):
    """What a copy reports: its count, the bytes it passed to a hash, and their checksum, if it has these."""

    nbytes: int
    fed: bytes | None = None
    csum: int | None = None


class Fed:
    """A stand-in for a hash: `update` keeps the bytes that it is called with."""

    def __init__(self) -> None:
        self.data = b""

    def update(self, data: bytes) -> None:
        self.data += data


def through(i: IovIter, call: Callable[[], int]) -> int:
    """Runs a copy and returns its count. Checks that the iterator moved by that, and that a short count has a fault."""
    before = i.count
    count = call()
    assert (i.count, i.fault is None) == (before - count, count == before)
    return count


def near_map(address: int) -> FaultMap:
    """A map of bad memory around the arena, but not in it, so that every copy has to search the map."""
    return FaultMap([(address - (1 << 30), 1), (address + (1 << 30), 1)])


ToIter = Callable[[UserRange, IovIter], Copied]
FromIter = Callable[[UserRange, IovIter], Copied]
Flat = Callable[[UserRange, UserRange], McResult]


def buffer(range_: UserRange) -> Buffer:
    return window(range_.address, range_.length)


def plain(copy: Callable[..., int]) -> Callable[[UserRange, IovIter], Copied]:
    return lambda side, i: Copied(through(i, lambda: copy(side, i)))


def summing(copy: Callable[..., tuple[int, int]]) -> Callable[[UserRange, IovIter], Copied]:
    def run(side: UserRange, i: IovIter) -> Copied:
        before = i.count
        count, csum = copy(buffer(side), i)
        assert i.count == before - count
        return Copied(count, csum=csum)

    return run


def hashing(src: UserRange, i: IovIter) -> Copied:
    fed = Fed()
    return Copied(through(i, lambda: hash_and_copy_to_iter(buffer(src), i, fed)), fed=fed.data)


def careful(src: UserRange, i: IovIter) -> Copied:
    return Copied(through(i, lambda: copy_to_iter_mcsafe(src, i, fault_map=near_map(src.address))))


TO_ITER: dict[str, ToIter] = {
    "copy_to_iter": plain(copy_to_iter),
    "copy_to_iter_flushcache": plain(copy_to_iter_flushcache),
    "copy_to_iter_mcsafe": plain(copy_to_iter_mcsafe),
    "copy_to_iter_mcsafe, a map": careful,
    "csum_and_copy_to_iter": summing(csum_and_copy_to_iter),
    "hash_and_copy_to_iter": hashing,
}
FROM_ITER: dict[str, FromIter] = {
    "copy_from_iter": plain(copy_from_iter),
    "copy_from_iter_nocache": plain(copy_from_iter_nocache),
    "copy_from_iter_flushcache": plain(copy_from_iter_flushcache),
    "csum_and_copy_from_iter": summing(csum_and_copy_from_iter),
}
FLAT: dict[str, Flat] = {
    "memcpy_mcsafe": memcpy_mcsafe,
    "memcpy_mcsafe, a map": lambda dst, src: memcpy_mcsafe(dst, src, fault_map=near_map(dst.address)),
    "memcpy_nocache": memcpy_nocache,
    "memcpy_flushcache": memcpy_flushcache,
}


def iterator(direction: int, arena: Arena, at: int, length: int, pieces: int) -> IovIter:
    if pieces == 1:
        return IovIter.ubuf(direction, arena.range(at, length))
    cuts = [length * k // pieces for k in range(pieces + 1)]
    return IovIter.iovec(direction, [arena.range(at + a, b - a) for a, b in pairwise(cuts)])


def every_copy(arena: Arena, dst: int, src: int, length: int) -> Iterator[tuple[str, Callable[[], Copied]]]:
    """Each function, over each shape, as a call that copies `length` bytes from `src` to `dst`."""
    to, origin = arena.range(dst, length), arena.range(src, length)

    def across(pieces: int) -> Copied:
        target, source = (iterator(d, arena, at, length, pieces) for d, at in ((READ, dst), (WRITE, src)))
        count = through(source, lambda: copy_iter(target, source))
        assert target.count == source.count
        return Copied(count)

    def flat(copy: Flat) -> Copied:
        result = copy(to, origin)
        assert (result.copied + result.remaining, result.fault is None) == (length, result.remaining == 0)
        return Copied(result.copied)

    def to_iter(copy: ToIter, pieces: int) -> Copied:
        return copy(origin, iterator(READ, arena, dst, length, pieces))

    def from_iter(copy: FromIter, pieces: int) -> Copied:
        return copy(to, iterator(WRITE, arena, src, length, pieces))

    for pieces in (1, 3):
        yield from ((name, partial(to_iter, copy, pieces)) for name, copy in TO_ITER.items())
        yield from ((name, partial(from_iter, copy, pieces)) for name, copy in FROM_ITER.items())
        yield "copy_iter", partial(across, pieces)
    yield from ((name, partial(flat, copy)) for name, copy in FLAT.items())


GOOD = 4
SIZE = GOOD * PAGE_SIZE
ORIGINAL = random.Random(11).randbytes(SIZE)
DISTANCES = (0, 1, 2, 7, 8, 13, 31, 33, 64, 65, 300, 999, 1000, 4096)


@pytest.fixture(params=[*cpu.available(), "syscall"])
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs the test with the handler and each instruction set, and with copies by the kernel."""
    if request.param == "syscall":
        with fault_handler.mode("syscall"):
            yield
    else:
        with cpu.use_isa(request.param):
            yield


@pytest.fixture
def arena() -> Iterator[Arena]:
    """Good pages between two pages that cannot be accessed."""
    with Arena([*[Page.GOOD] * GOOD, Page.PROTECTED], ORIGINAL) as made:
        yield made


def check(arena: Arena, dst: int, src: int, length: int) -> None:
    """Compares a copy with the model: the bytes before the first that cannot be read or written are moved, and no other
    byte changes.
    """
    good = min(length, arena.accessible(src, length), arena.accessible(dst, length, write=True))
    for name, copy in every_copy(arena, dst, src, length):
        arena.write(0, ORIGINAL)
        copied = copy()
        case = (name, dst, src, length, copied.nbytes, good)
        moved, now = ORIGINAL[src : src + good], arena.read(0, SIZE)
        if name.startswith("csum"):
            # A chunk that fails does not count at all; which of its bytes are overwritten is unspecified.
            assert copied.nbytes == good == length or copied.nbytes < length, case
            assert now[: dst + copied.nbytes] == ORIGINAL[:dst] + moved[: copied.nbytes], case
            assert copied.csum == internet_checksum(moved[: copied.nbytes]), case
        else:
            assert copied.nbytes == good, case
            assert now == ORIGINAL[:dst] + moved + ORIGINAL[dst + good :], case
        assert copied.fed in (None, moved), case


@pytest.mark.usefixtures("_mode")
@pytest.mark.parametrize("distance", DISTANCES)
def test_the_source_reads_as_if_first(arena: Arena, distance: int) -> None:
    for length in (1, 100, 1000, 5000):
        check(arena, 1000, 1000 + distance, length)
        check(arena, 1003 + distance, 1003, length)


@pytest.mark.usefixtures("_mode")
@pytest.mark.parametrize("distance", DISTANCES)
def test_up_to_the_first_byte_that_cannot_be_read_or_written(arena: Arena, distance: int) -> None:
    for good in (0, 1, 63, 700, 3000):
        edge, length = SIZE - good, good + 600
        for below in (600 + distance, 1 + distance):
            check(arena, edge - below, edge, length)
            check(arena, edge, edge - below, length)


@pytest.mark.usefixtures("_mode")
def test_anywhere(arena: Arena) -> None:
    numbers = random.Random(12)
    for _ in range(60):
        length = numbers.choice((1, 8, 64, 200, 1024, 4096, 9000))
        src, dst = (numbers.randrange(SIZE - length + numbers.choice((0, 1, 500))) for _ in range(2))
        check(arena, dst, src, min(length, SIZE + 500 - max(src, dst)))


SIGNALS_BLOCKED = """
import mmap, os, signal, sys, threading
from iovec_rs import READ, IovIter, copy_to_iter
def work():
    signal.pthread_sigmask(signal.SIG_BLOCK, {getattr(signal, name) for name in sys.argv[1:]} or signal.valid_signals())
    for distance in (1, 13, 33):
        memory, data = mmap.mmap(-1, 1 << 16), os.urandom(40_000)
        memory[:40_000], view = data, memoryview(memory)
        to = IovIter.ubuf(READ, view[: 40_000 - distance])
        if copy_to_iter(view[distance:40_000], to) != 40_000 - distance or view[: 40_000 - distance] != data[distance:]:
            os._exit(3)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("names", [(), ("SIGBUS",), ("SIGSEGV",)])
def test_a_thread_that_blocks_signals_compacts_a_buffer_in_place(names: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS_BLOCKED, *names], check=False, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")


UNREAD_SCRATCH = """
import mmap, tempfile
from iovec_rs import READ, FaultMap, IovIter, copy_to_iter_mcsafe
PAGE = 4096
file = tempfile.TemporaryFile()
file.truncate(8 * PAGE)
memory = mmap.mmap(file.fileno(), 8 * PAGE)
memory[:] = b"m" * (8 * PAGE)
view, known, out = memoryview(memory), FaultMap(), bytearray(7 * PAGE)
known.poison(memory, 6 * PAGE, PAGE)
file.truncate(2 * PAGE)
i = IovIter.iovec(READ, [out, view[7 * PAGE : 7 * PAGE + 16]])
copied = copy_to_iter_mcsafe(view, i, 7 * PAGE + 16, fault_map=known)
print(copied, i.count, i.fault.offset, i.fault.origin, out.count(b"m"), out.count(0))
"""


def test_what_was_not_read_ahead_is_not_counted() -> None:
    """A real fault comes before the bad range in the map. Scratch memory is filled with 0xa5, which no byte counted may
    have.
    """
    environment = {**os.environ, "IOVEC_RS_POISON": "1"}
    run = subprocess.run(
        [sys.executable, "-c", UNREAD_SCRATCH],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert run.stderr == ""
    good, rest = 2 * PAGE_SIZE, 5 * PAGE_SIZE
    assert run.stdout.split() == [*map(str, (good, rest + 16, good)), "signal", *map(str, (good, rest))]


def filled_ring() -> tuple[PipeRing, memoryview, IovIter]:
    """A ring whose newest page has room, the page, and an iterator that fills it up."""
    ring = PipeRing(4)
    i = IovIter.pipe(READ, ring, 3 * PAGE_SIZE)
    assert copy_to_iter(bytes(range(256)) * 4, i) == 1024
    return ring, ring.slots[0][0], i


@pytest.mark.parametrize("length", [100, 2000, 3500])
def test_a_pipe_is_filled_from_its_own_newest_page(length: int) -> None:
    """The copy reads what was in the page before it, not the bytes that it writes there."""
    for copy in (copy_to_iter, lambda data, i: copy_iter(i, IovIter.iovec(WRITE, [data[:7], data[7:]]))):
        ring, page, i = filled_ring()
        before = bytes(page)
        assert copy(page[100 : 100 + length], i) == length
        assert ring.read() == before[:1024] + before[100 : 100 + length]


LITTLE_MEMORY = """
import mmap, resource
from iovec_rs import *
SIZE = 256 << 20
memory = mmap.mmap(-1, 2 * SIZE)
memory[: 1 << 20] = b"m" * (1 << 20)
view, before = memoryview(memory), bytes(memory[: 2 << 20])
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
low, high = view[:SIZE], view[100 : SIZE + 100]
class Hash:
    def update(self, data): raise AssertionError("nothing was copied")
to, source, pieces = IovIter.ubuf(READ, high), IovIter.iovec(WRITE, [low]), IovIter.iovec(READ, [high[:9], high[9:]])
copies = [
    lambda: copy_to_iter(low, to), lambda: copy_to_iter_flushcache(low, to), lambda: csum_and_copy_to_iter(low, to),
    lambda: hash_and_copy_to_iter(low, to, Hash()), lambda: copy_from_iter(high, source),
    lambda: copy_from_iter_nocache(high, source), lambda: csum_and_copy_from_iter(high, source),
    lambda: copy_iter(pieces, source), lambda: memcpy_mcsafe(high, low), lambda: memcpy_flushcache(high, low),
]
refused = 0
for copy in copies:
    try: copy()
    except MemoryError: refused += 1
print(refused, len(copies), {i.count for i in (to, source, pieces)} == {SIZE}, bytes(memory[: 2 << 20]) == before)
"""


def test_without_memory_to_read_ahead_into_nothing_changes() -> None:
    run = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], check=False, capture_output=True, text=True, timeout=120
    )
    assert (run.stderr, run.stdout.split()) == ("", ["10", "10", "True", "True"])
