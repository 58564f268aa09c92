"""Non-temporal and flushing copies move the same bytes as plain ones, and leave iterators at the same position.

They run for every kind, with every instruction set and every write-back instruction. That the bytes are durable is
tested in the core, where a recorder sees each store.
"""

from __future__ import annotations

import mmap
import random
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    IovIter,
    McResult,
    PipeRing,
    UserRange,
    XArray,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_full_nocache,
    copy_from_iter_nocache,
    copy_to_iter_flushcache,
    cpu,
    memcpy_flushcache,
    memcpy_nocache,
)
from support.kinds import CASES, Shape, build, state_of

if TYPE_CHECKING:
    from collections.abc import Callable

FROM: dict[str, Callable[..., int]] = {"nocache": copy_from_iter_nocache, "flushcache": copy_from_iter_flushcache}
FLAT: dict[str, Callable[..., McResult]] = {"nocache": memcpy_nocache, "flushcache": memcpy_flushcache}
NOISE = random.Random(8).randbytes(1 << 17)
BLANK = b"\xee" * (1 << 17)
LINE = 64

every_instruction = pytest.mark.usefixtures("isa", "flush_instruction")


@pytest.fixture
def room() -> memoryview:
    """Zeroed memory at a page boundary, so that an offset modulo 64 is the offset in a cache line."""
    view = memoryview(mmap.mmap(-1, len(BLANK)))
    view[:] = BLANK
    return view


def shapes(seed: int) -> list[Shape]:
    """Empty, tiny and long segments. Most end inside a cache line of the memory that they are gathered to."""
    numbers = random.Random(seed)

    def length() -> int:
        return numbers.choice((0, 0, numbers.randrange(9), numbers.randrange(200), 64, 256, numbers.randrange(3000)))

    found = [Shape(tuple(length() for _ in range(numbers.randrange(1, 30))), seed=seed) for _ in range(6)]
    found += [Shape((2048 + 7,)), Shape((4096, 0, 4096 - 1, 3), lead=77), Shape((65_536 + 33, 100), lead=9)]
    return found


@every_instruction
@pytest.mark.parametrize("kind", [kind for kind, source in CASES if source])
@pytest.mark.parametrize("flavour", FROM)
def test_every_kind_is_gathered_as_by_a_plain_copy(kind: str, flavour: str, room: memoryview) -> None:
    for number, shape in enumerate(shapes(4)):
        subject, at = build(kind, True, shape), 4096 + (0, 4, 13, 63, 32)[number % 5]
        for part in (100, 1, 0, subject.oracle.room() // 2, 1 << 16):
            n = min(part, subject.oracle.room())
            data = subject.oracle.copy_from(n)
            assert FROM[flavour](room[at : at + n] if part % 2 else room[at:], subject.real, n) == n
            subject.check()
            assert room[at - 200 : at + n + 200] == BLANK[:200] + data + BLANK[:200], (shape, part)
            room[at : at + n] = BLANK[:n]
            at += n


@every_instruction
@pytest.mark.parametrize("kind", [kind for kind, source in CASES if not source])
def test_every_kind_is_scattered_to_as_by_a_plain_copy(kind: str) -> None:
    for number, shape in enumerate(shapes(5)):
        subject, at = build(kind, False, shape), (0, 1, 60, 64)[number % 4]
        for part in (100, 1, 0, subject.oracle.room() // 2, 1 << 16):
            data = NOISE[at : at + part]
            assert copy_to_iter_flushcache(data, subject.real) == subject.oracle.copy_to(data)
            subject.check()


LENGTHS = (*range(135), *range(135, 600, 11), *range(248, 265), 511, 512, 513)
LONG = [size + more for size in (2048, 4096, 65_536) for more in (-64, -1, 0, 1, 4, 63, 64)]


@every_instruction
@pytest.mark.parametrize("flavour", FLAT)
def test_every_alignment_and_length_is_exact(flavour: str, room: memoryview) -> None:
    """Each side starts at every offset in a line. A line on each side of the destination must not change."""
    copy, source = FLAT[flavour], memoryview(bytearray(NOISE))
    cases = [(length, to, (to * 5 + length) % 65) for length in LENGTHS for to in range(65)]
    cases += [(length, to, at) for length in LONG for to in (0, 1, 4, 60, 63) for at in (0, 3, 64)]
    cases += [(length, 0, at) for length in (256, 260, 320) for at in range(65)]
    for length, to, at in cases:
        start, end = LINE + to, LINE + to + length
        assert copy(room[start:end], source[at : at + length]) == (length, 0, None)
        assert room[: end + LINE] == BLANK[:start] + NOISE[at : at + length] + BLANK[:LINE], (length, to, at)
        room[start:end] = BLANK[:length]


@every_instruction
@pytest.mark.parametrize("flavour", FROM)
def test_lines_shared_by_many_segments_are_put_together(flavour: str, room: memoryview) -> None:
    """All segments of a copy have one length, from less than a word to more than a page, and the destination every
    offset in a line.
    """
    for length in (1, 3, 4, 8, 20, 63, 64, 65, 200, 255, 256, 300, 320, 1000, 4095, 5000):
        total = max(2 * length, 900) // length * length
        segments = [memoryview(NOISE)[at : at + length] for at in range(0, total, length)]
        for to in (LINE, LINE + 1, LINE + 4, LINE + 32, LINE + 63):
            i = IovIter.iovec(WRITE, segments)
            assert FROM[flavour](room[to : to + total], i) == total
            assert (i.count, i.fault) == (0, None)
            assert room[: to + total + LINE] == BLANK[:to] + NOISE[:total] + BLANK[:LINE], (length, to)
            room[to : to + total] = BLANK[:total]


@pytest.mark.parametrize("shift", [-5000, -64, -3, -1, 0, 1, 2, 63, 64, 257, 5000])
@pytest.mark.parametrize("flavour", FLAT)
def test_overlapping_flat_memory_is_read_before_it_is_written(flavour: str, shift: int, isa: str) -> None:
    del isa
    for length in (100, 1000, 12_000):
        memory = memoryview(bytearray(NOISE[:24_000]))
        expected = bytearray(memory)
        expected[6000 + shift : 6000 + shift + length] = memory[6000 : 6000 + length]
        copied = FLAT[flavour](memory[6000 + shift :][:length], memory[6000:][:length])
        assert copied == (length, 0, None)
        assert memory == expected


def test_all_or_nothing_is_taken_back(isa: str) -> None:
    del isa
    for lengths in ((300, 40, 0, 5), (5,), (64, 64)):
        segments = [NOISE[:length] for length in lengths]
        i, total, out = IovIter.kvec(WRITE, segments), sum(lengths), bytearray(1000)
        there = state_of(i)
        assert copy_from_iter_full_nocache(out, i) is False
        assert state_of(i) == there
        assert copy_from_iter_full_nocache(out, i, total + 1) is False
        assert state_of(i) == there
        assert copy_from_iter_full_nocache(memoryview(out)[100:], i, total) is True
        assert i.count == 0
        assert out[100 : 100 + total] == b"".join(segments)
        assert not any(out[100 + total :])
        assert copy_from_iter_full_nocache(out, i, 0) is True


ALL_FROM = {**FROM, "full_nocache": copy_from_iter_full_nocache}


@pytest.mark.parametrize("flavour", ALL_FROM)
def test_what_cannot_be_gathered_is_refused_and_changes_nothing(flavour: str) -> None:
    copy, out = ALL_FROM[flavour], bytearray(b"untouched")
    i = IovIter.iovec(WRITE, [b"abc", b"defgh"])
    for wrong in (IovIter.ubuf(READ, out), IovIter.discard(READ, 9), IovIter.pipe(READ, PipeRing(2), 9)):
        before = state_of(wrong)
        with pytest.raises(ValueError, match=r"copy_from_iter.*wrong direction"):
            copy(out, wrong)
        assert state_of(wrong) == before
    before = state_of(i)
    with pytest.raises(ValueError, match=r"nbytes is 10.*9"):
        copy(out, i, 10)
    with pytest.raises(ValueError, match="nbytes is -1"):
        copy(out, i, -1)
    with pytest.raises(BufferError, match="addr: read-only memory cannot be a destination"):
        copy(b"read-only", i)
    with pytest.raises(BufferError, match="addr: not C-contiguous"):
        copy(memoryview(out)[::2], i)
    with pytest.raises(TypeError, match=r"addr: .* is expected, not list"):
        copy([out], i)
    assert out == b"untouched"
    assert state_of(i) == before


def test_what_cannot_be_scattered_is_refused_and_changes_nothing() -> None:
    block = bytearray(b"untouched")
    source, target = IovIter.ubuf(WRITE, block), IovIter.ubuf(READ, block)
    with pytest.raises(ValueError, match="copy_to_iter_flushcache: wrong direction"):
        copy_to_iter_flushcache(b"data", source)
    with pytest.raises(ValueError, match=r"nbytes is 5.*4"):
        copy_to_iter_flushcache(b"data", target, 5)
    with pytest.raises(ValueError, match="nbytes is -1"):
        copy_to_iter_flushcache(b"data", target, -1)
    pages = XArray({0: bytearray(PAGE_SIZE)})
    constant = IovIter.xarray(READ, pages, 0, 9)
    pages.store(0, bytes(PAGE_SIZE))
    with pytest.raises(BufferError, match="page 0 is read-only and cannot be a destination"):
        copy_to_iter_flushcache(b"data", constant)
    assert constant.count == 9
    assert block == b"untouched"
    assert source.count == target.count == 9


@pytest.mark.parametrize("flavour", FLAT)
def test_flat_sides_of_different_lengths_are_refused(flavour: str) -> None:
    out = bytearray(b"untouched")
    for dst, src in ((out, bytes(8)), (out, UserRange(0, 10)), (memoryview(out)[:0], b"x")):
        wanted = src.length if isinstance(src, UserRange) else len(src)
        with pytest.raises(ValueError, match=rf"dst is {len(dst)} bytes.*{wanted} bytes, as many as src has"):
            FLAT[flavour](dst, src)
    with pytest.raises(BufferError, match="dst: read-only memory cannot be a destination"):
        FLAT[flavour](b"read-only", bytes(9))
    with pytest.raises(TypeError, match=r"src: .* is expected, not int"):
        FLAT[flavour](out, 9)
    assert out == b"untouched"


def test_a_random_vector_leaves_the_iterator_where_a_plain_copy_does() -> None:
    """Some copies end in the middle of the vector because of their count."""
    numbers = random.Random(12)
    for _ in range(300):
        lengths = [numbers.choice((0, 1, 5, 64, 300)) for _ in range(numbers.randrange(9))]
        segments = [memoryview(NOISE)[at * 7 : at * 7 + length] for at, length in enumerate(lengths)]
        n = numbers.randrange(sum(lengths) + 5)
        plain, out = IovIter.kvec(WRITE, segments), bytearray(n)
        assert copy_from_iter(out, plain) == min(n, sum(lengths))
        for copy in FROM.values():
            i, past = IovIter.kvec(WRITE, segments), bytearray(n)
            assert copy(past, i) == min(n, sum(lengths))
            assert (past, state_of(i), i.ranges()) == (out, state_of(plain), plain.ranges())


def test_the_flush_instruction_is_chosen_by_name_and_put_back() -> None:
    before, known = cpu.flush_instruction(), cpu.flush_instructions()
    assert before == known[-1]
    assert known == [name for name in ("clflush", "clflushopt", "clwb") if name in known]
    for name in known:
        with cpu.use_flush_instruction(name) as chosen:
            assert chosen == name == cpu.flush_instruction()
    assert cpu.flush_instruction() == before
    with pytest.raises(ValueError, match="wbinvd"):
        cpu.use_flush_instruction("wbinvd")
    assert cpu.flush_instruction() == before
