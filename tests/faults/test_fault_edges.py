"""Faults far into long copies, on both sides at once, in one of many segments, and at addresses without memory."""

from __future__ import annotations

import hashlib
import mmap
import random
from typing import TYPE_CHECKING, Literal

import pytest
from iovec_rs import (
    READ,
    WRITE,
    Direction,
    Fault,
    FaultError,
    IovIter,
    McResult,
    UserRange,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    fault_handler,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
    testing,
)
from support.arena import PAGE_SIZE, Arena, Page
from support.damage import Damage
from support.kinds import state_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAR_PAGES = 1100
FAR = FAR_PAGES * PAGE_SIZE
NOISE = random.Random(3).randbytes(FAR)


@pytest.fixture(autouse=True)
def _by_signal(isa: str) -> Iterator[None]:
    with fault_handler.mode("auto" if isa == "scalar" else "signal"):
        yield


@pytest.fixture(scope="module")
def far() -> Iterator[Arena]:
    with Arena.good(FAR_PAGES + 1, NOISE) as arena:
        arena.damage(FAR_PAGES, Damage.CUT)
        yield arena


@pytest.fixture(scope="module")
def room() -> memoryview:
    return memoryview(mmap.mmap(-1, FAR + PAGE_SIZE))


# Lengths around those at which the copy changes its method: it releases the interpreter, uses `rep movsb`, or is made
# in several spans.
LENGTHS = (8191, 8192, 32_767, 32_768, 40_001, 65_536, 131_072 + 17, 1 << 20, (1 << 22) - 1, (1 << 22) + 123)


FLAT: list[Callable[..., McResult]] = [memcpy_mcsafe, memcpy_nocache, memcpy_flushcache]


@pytest.mark.parametrize("before", LENGTHS)
@pytest.mark.parametrize("shift", [0, 1, 17, 63])
def test_a_long_copy_from_memory_that_ends_is_exact(far: Arena, room: memoryview, before: int, shift: int) -> None:
    """With shift 0 the addresses agree modulo a cache line, for which long copies have a method of their own."""
    at, n = FAR - before, before + 3000
    good = room[(at + shift) % 64 :][:n]
    flag = bytes([room[(at + shift) % 64 + before] ^ 0xFF]) * 3000
    good[before:] = flag
    for flat in FLAT:
        good[:before] = bytes(before)
        copied, remaining, fault = flat(good, far.buffer[at : at + n])
        assert (copied, remaining) == (before, 3000)
        assert good[:before] == NOISE[at:]
        assert good[before:] == flag
        assert fault is not None
        assert (fault.side, fault.offset, fault.cause) == ("source", before, "gone")
    for copy_from in (copy_from_iter, copy_from_iter_nocache, copy_from_iter_flushcache):
        good[:before] = bytes(before)
        source = IovIter.ubuf(WRITE, far.buffer[at : at + n])
        assert copy_from(good, source) == before
        assert good[:before] == NOISE[at:]
        assert good[before:] == flag
    for copy_to in (copy_to_iter, copy_to_iter_flushcache):
        good[:before] = bytes(before)
        target = IovIter.ubuf(READ, good)
        assert copy_to(far.buffer[at : at + n], target) == before
        assert good[:before] == NOISE[at:]
        assert good[before:] == flag


@pytest.mark.parametrize("before", LENGTHS)
@pytest.mark.parametrize("shift", [0, 1, 17, 63])
def test_a_long_copy_into_memory_that_ends_is_exact(far: Arena, room: memoryview, before: int, shift: int) -> None:
    at, n = FAR - before, before + 3000
    good = room[(at + shift) % 64 :][:n]
    good[:] = NOISE[-n % len(NOISE) :][:n].ljust(n, b"=")
    target = IovIter.ubuf(READ, far.buffer[at : at + n])
    try:
        for copy_to in (copy_to_iter, copy_to_iter, copy_to_iter_flushcache):
            assert copy_to(good, target) == before
            assert target.fault is not None
            assert (target.fault.side, target.fault.offset) == ("destination", before)
            assert far.buffer[at:FAR] == good[:before]
            assert far.buffer[at - 64 : at] == NOISE[at - 64 : at]
            target.revert(before)
            far.buffer[at:FAR] = NOISE[at:]
        for copy_from in (copy_from_iter_nocache, copy_from_iter_flushcache):
            source = IovIter.iovec(WRITE, [good[:4100], good[4100:]])
            assert copy_from(far.buffer[at : at + n], source) == before
            assert far.buffer[at:FAR] == good[:before]
            assert far.buffer[at - 64 : at] == NOISE[at - 64 : at]
            assert source.ranges()[0].address == IovIter.ubuf(WRITE, good[before:]).ranges()[0].address
            far.buffer[at:FAR] = NOISE[at:]
        for flat in FLAT:
            assert flat(far.buffer[at : at + n], good)[:2] == (before, 3000)
            assert far.buffer[at:FAR] == good[:before]
        assert target.zero() == before
        assert far.buffer[at:FAR] == bytes(before)
    finally:
        far.buffer[at:FAR] = NOISE[at:]


def bvec(direction: Direction, segments: list[memoryview]) -> IovIter:
    return IovIter.bvec(direction, [(segment, 0, len(segment)) for segment in segments])


NEAR = (*range(20), 31, 32, 33, 63, 64, 65, 130, 200, 257, 300, 420, 4000)


@pytest.mark.parametrize("copy", FLAT)
def test_with_both_ends_bad_the_nearer_one_stops_the_copy(copy: Callable[..., McResult]) -> None:
    """If both are equally near, the source stops it, since a byte is read before it is written."""
    cases = 0
    with Arena.good(3, NOISE[: 3 * PAGE_SIZE]) as source, Arena.good(3, bytes(3 * PAGE_SIZE)) as target:
        source.damage(2, Damage.CUT)
        target.damage(2, Damage.PROTECTED)
        edge = 2 * PAGE_SIZE
        for readable in NEAR:
            for writable in NEAR:
                expected, n = min(readable, writable), max(readable, writable) + 50
                dst, src = target.buffer[edge - writable :][:n], source.buffer[edge - readable :][:n]
                copied, _, fault = copy(dst, src)
                case = (readable, writable, fault)
                assert copied == expected, case
                assert fault is not None
                side, cause = ("source", "gone") if readable <= writable else ("destination", "protection")
                assert (fault.side, fault.cause, fault.offset) == (side, cause, expected), case
                assert dst[:copied] == src[:copied], case
                assert not any(dst[copied:writable]), case
                assert target.buffer[edge - writable - 64 : edge - writable] == bytes(64), case
                target.buffer[:edge] = bytes(edge)
                cases += 1
    assert cases == len(NEAR) ** 2


@pytest.mark.parametrize("how", Damage)
def test_a_fault_in_one_of_many_segments_is_counted_from_the_start(how: Damage) -> None:
    """The two iterators are split differently, so that the fault is in the middle of a segment of one of them."""
    with Arena.good(3, NOISE[: 3 * PAGE_SIZE]) as arena:
        arena.damage(1, how)
        for step in (1, 5, 64, 100, 1000):
            pieces = [arena.buffer[at : min(at + step, 2 * PAGE_SIZE)] for at in range(17, 2 * PAGE_SIZE, step)]
            collected = bytearray(2 * PAGE_SIZE)
            source = IovIter.iovec(WRITE, pieces[:1024])
            reachable = min(PAGE_SIZE - 17, source.count)
            assert copy_from_iter(collected, source, source.count) == reachable
            assert collected[: reachable + 100] == NOISE[17 : 17 + reachable] + bytes(100)
            assert (source.fault is not None) == (source.count > 0)
            blocks = [bytearray(333) for _ in range(25)]
            target = IovIter.kvec(READ, blocks)
            source = IovIter.iovec(WRITE, [arena.range(17, 8000)])
            if source.count:
                try:
                    copied = copy_iter(target, source)
                except OSError as error:
                    copied = error.copied  # type: ignore[attr-defined]
                assert copied == PAGE_SIZE - 17
                assert b"".join(blocks)[: copied + 50] == NOISE[17:PAGE_SIZE] + bytes(50)
                assert target.count == 25 * 333 - copied
                assert source.count == 8000 - copied


def come_short(copy: Callable[..., int], dst: memoryview, i: IovIter) -> tuple[int, Fault | None]:
    try:
        return copy(dst, i), i.fault
    except FaultError as error:
        return error.copied, error.fault


@pytest.mark.parametrize("make", [IovIter.iovec, IovIter.kvec, bvec], ids=["iovec", "kvec", "bvec"])
@pytest.mark.parametrize("copy", [copy_from_iter_nocache, copy_from_iter_flushcache])
@pytest.mark.parametrize("mode", ["auto", "syscall"])
def test_segments_read_in_vain_are_taken_back_exactly(
    make: Callable[..., IovIter], copy: Callable[..., int], mode: Literal["auto", "syscall"]
) -> None:
    """Short segments are buffered until their line is whole, and then the line cannot be written. A later segment may
    be bad as well.
    """
    numbers = random.Random(6)
    with Arena.good(2, NOISE[: 2 * PAGE_SIZE]) as source, Arena.good(2) as target, fault_handler.mode(mode):
        source.damage(1, Damage.CUT)
        target.damage(1, Damage.PROTECTED)
        sides = set()
        for _ in range(400):
            lengths = [
                numbers.choice((0, 1, 4, 13, 60, 64, 100, 256, 300, 700)) for _ in range(numbers.randrange(2, 14))
            ]
            starts = [numbers.randrange(PAGE_SIZE - length) for length in lengths]
            if numbers.randrange(2):
                lengths.append(90)
                starts.append(PAGE_SIZE - numbers.randrange(90))
            lengths += [50, 0, 50]
            starts += [1, 2, 3]
            segments = [source.buffer[at : at + length] for at, length in zip(starts, lengths, strict=True)]
            at = PAGE_SIZE - numbers.randrange(min(sum(lengths) + 50, PAGE_SIZE - 64))
            dst = target.buffer[at : at + sum(lengths)] if at + sum(lengths) <= 2 * PAGE_SIZE else target.buffer[at:]
            plain, i = make(WRITE, segments), make(WRITE, segments)
            wanted = come_short(copy_from_iter, dst, plain)
            reached = target.buffer[:PAGE_SIZE].tobytes()
            target.buffer[:PAGE_SIZE] = bytes(PAGE_SIZE)
            assert come_short(copy, dst, i) == wanted, (at, lengths)
            assert target.buffer[:PAGE_SIZE] == reached
            target.buffer[:PAGE_SIZE] = bytes(PAGE_SIZE)
            assert (state_of(i), i.ranges()) == (state_of(plain), plain.ranges()), (at, lengths)
            sides.add(wanted[1].side if wanted[1] else None)
        assert sides == {"source", "destination", None}


@pytest.mark.parametrize("address", [0, 1, 0x7FFF_FFFF_F000, 1 << 47, 1 << 63, (1 << 64) - 4096, (1 << 64) - 64])
@pytest.mark.parametrize("mode", ["auto", "syscall"])
@pytest.mark.parametrize("copy", FLAT)
def test_an_address_without_memory_copies_nothing(
    address: int, mode: Literal["auto", "syscall"], copy: Callable[..., McResult]
) -> None:
    wild, here = UserRange(address, 64), bytearray(b"\xee" * 64)
    with fault_handler.mode(mode):
        for dst, src, side in ((here, wild, "source"), (wild, here, "destination")):
            copied, remaining, fault = copy(dst, src)
            assert (copied, remaining) == (0, 64)
            assert fault is not None
            assert (fault.side, fault.offset) == (side, 0)
            assert fault.cause == ("unmapped" if address < 0x7FFF_FFFF_F000 else "bad_address")
            assert here == b"\xee" * 64


@pytest.mark.parametrize("mode", ["auto", "syscall"])
@pytest.mark.parametrize("copy", FLAT)
def test_the_last_byte_of_the_address_space_is_as_bad_as_any(
    mode: Literal["auto", "syscall"], copy: Callable[..., McResult]
) -> None:
    """A range that would extend beyond it is refused, and no memory is accessed."""
    here = bytearray(b"\xee")
    with fault_handler.mode(mode):
        for dst, src in ((here, UserRange((1 << 64) - 1, 1)), (UserRange((1 << 64) - 1, 1), here)):
            copied, remaining, fault = copy(dst, src)
            assert (copied, remaining) == (0, 1)
            assert fault is not None
            assert (fault.cause, fault.address) == ("bad_address", (1 << 64) - 1)
        wide = bytearray(b"\xee" * 64)
        copied, remaining, fault = copy(wide, UserRange((1 << 64) - 10, 64))
        assert (copied, remaining) == (0, 64)
        assert wide == b"\xee" * 64


def move_to(copy: Callable[..., int]) -> Callable[..., McResult]:
    return lambda dst, src: through(IovIter.iovec(READ, [dst[:5], dst[5:]]), lambda i: copy(src, i))


def move_from(copy: Callable[..., int]) -> Callable[..., McResult]:
    return lambda dst, src: through(IovIter.iovec(WRITE, [src[:5], src[5:]]), lambda i: copy(dst, i))


def through(i: IovIter, copy: Callable[[IovIter], int]) -> McResult:
    wanted = i.count
    copied = copy(i)
    assert i.count == wanted - copied
    return McResult(copied, i.count, i.fault)


MOVES = [*FLAT, *map(move_to, (copy_to_iter, copy_to_iter_flushcache))]
MOVES += map(move_from, (copy_from_iter, copy_from_iter_nocache, copy_from_iter_flushcache))


@pytest.mark.parametrize("how", [Damage.CUT, Damage.PROTECTED, Damage.POISON])
@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("distance", [1, 31, 33, 63, 64, 100, 2000])
@pytest.mark.parametrize("copy", MOVES)
def test_a_range_moved_within_memory_that_ends_is_exact(
    how: Damage, distance: int, copy: Callable[..., McResult]
) -> None:
    """Moved down, the range reaches the bad memory with its source. Moved up, it reaches it with its destination."""
    n = 3 * PAGE_SIZE
    with Arena.good(3, NOISE[:n]) as arena:
        arena.damage(2, how)
        edge = 2 * PAGE_SIZE
        up = edge - distance
        assert copy(arena.buffer[distance:], arena.buffer[: n - distance]).copied == up
        assert arena.buffer[:edge] == NOISE[:distance] + NOISE[:up]
        arena.buffer[:edge] = NOISE[:edge]
        result = copy(arena.buffer[: n - distance], arena.buffer[distance:])
        assert result.copied == up
        assert result.fault is not None
        assert (result.fault.side, result.fault.address) == ("source", arena.start(2))
        assert arena.buffer[:edge] == NOISE[distance:edge] + NOISE[up:edge]


def test_a_copy_of_nothing_touches_nothing() -> None:
    with Arena.good(2, NOISE[: 2 * PAGE_SIZE]) as arena:
        arena.damage(1, Damage.CUT)
        before = fault_handler.status().recovered
        nowhere = arena.buffer[PAGE_SIZE:PAGE_SIZE]
        for flat in FLAT:
            assert flat(nowhere, nowhere) == (0, 0, None)
        i = IovIter.ubuf(WRITE, arena.buffer[PAGE_SIZE:])
        for copy in (copy_from_iter, copy_from_iter_nocache, copy_from_iter_flushcache):
            assert (copy(bytearray(0), i), i.fault, i.count) == (0, None, PAGE_SIZE)
        assert fault_handler.status().recovered == before


@pytest.mark.parametrize("copy", FLAT)
def test_a_copy_that_ends_at_the_edge_is_whole(copy: Callable[..., McResult]) -> None:
    """Neither the byte behind the range nor any other byte of its line is read."""
    with Arena.good(2, NOISE[: 2 * PAGE_SIZE]) as arena:
        arena.damage(1, Damage.UNMAPPED)
        before = fault_handler.status().recovered
        for n in (*range(300), 1023, 4096):
            out = bytearray(n)
            assert copy(out, arena.buffer[PAGE_SIZE - n : PAGE_SIZE]) == (n, 0, None)
            assert out == NOISE[PAGE_SIZE - n : PAGE_SIZE]
            assert copy(arena.buffer[PAGE_SIZE - n : PAGE_SIZE], out) == (n, 0, None)
        assert fault_handler.status().recovered == before


def test_memory_that_cannot_be_written_is_no_fault_for_a_source() -> None:
    with Arena([Page.READ_ONLY], NOISE[:PAGE_SIZE]) as arena:
        out = bytearray(PAGE_SIZE)
        assert memcpy_mcsafe(out, arena.range(0, PAGE_SIZE)) == (PAGE_SIZE, 0, None)
        assert out == NOISE[:PAGE_SIZE]
        copied, _, fault = memcpy_mcsafe(arena.range(0, PAGE_SIZE), out)
        assert copied == 0
        assert fault is not None
        assert (fault.side, fault.cause) == ("destination", "protection")
        assert arena.read(0, PAGE_SIZE) == NOISE[:PAGE_SIZE]


def test_a_copy_too_long_for_the_caches_is_exact() -> None:
    """The copy is longer than most caches, so its long pieces are stored non-temporally."""
    held, beyond = 48 << 20, 3 * PAGE_SIZE
    size = held + beyond
    target = mmap.mmap(-1, size + 64)
    room = memoryview(target)[17 : 17 + size - 5]
    with testing.truncated(size // PAGE_SIZE, held // PAGE_SIZE) as memory:
        source = memory.buffer[5:]
        expected = hashlib.blake2b(source[: held - 5]).digest()
        for pieces in (1, 3, 5000):
            room[-beyond:] = b"=" * beyond
            step = -(-len(room) // pieces)
            i = IovIter.iovec(READ, [room[at : at + step] for at in range(0, len(room), step)])
            assert copy_to_iter(source, i) == held - 5
            assert i.fault is not None
            assert (i.fault.side, i.fault.offset, i.fault.cause) == ("source", held - 5, "gone")
            assert hashlib.blake2b(room[: held - 5]).digest() == expected
            assert bytes(room[-beyond:]) == b"=" * beyond
            room[: held - 5] = bytes(held - 5)
            i = IovIter.iovec(WRITE, [source[at : at + step] for at in range(0, len(source), step)])
            assert copy_from_iter(room, i) == held - 5
            assert hashlib.blake2b(room[: held - 5]).digest() == expected
            assert bytes(room[-beyond:]) == b"=" * beyond
