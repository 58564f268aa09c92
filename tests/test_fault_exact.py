"""Every copy stops at the very byte before bad memory, whatever made it bad, wherever it begins, on either side.

The bytes before the fault are right, those behind it untouched, and the fault says what there was to see.
"""

from __future__ import annotations

import mmap
import random
import signal
from collections.abc import Callable
from itertools import cycle
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    READ,
    WRITE,
    Fault,
    FaultError,
    IovIter,
    McResult,
    UserRange,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_page_from_iter,
    copy_page_to_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_mcsafe,
    csum_and_copy_from_iter,
    csum_and_copy_to_iter,
    fault_handler,
    memcpy_flushcache,
    memcpy_mcsafe,
    memcpy_nocache,
)
from ruin import PAGE_SIZE, Land, Ruin

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GOOD_PAGES = 3
EDGE = GOOD_PAGES * PAGE_SIZE
AFTER = 100
MISALIGNMENTS = (0, 1, 7, 33, 63)
BEFORE = (*range(201), 4032, 4063, 4094, 4095, 4096, 4097, 4098, 4127, 4160)
CASES = len(BEFORE) * len(MISALIGNMENTS)
IN_STREAMS = (*range(190, 450), 8191)
"""Bytes before the fault that end everywhere in a turn of the loop that goes past the caches, which is four lines."""

DATA = random.Random(11).randbytes(GOOD_PAGES * PAGE_SIZE).replace(b"\xee", b"\x11")
BLANK = b"\xee" * (GOOD_PAGES * PAGE_SIZE)

Outcome = tuple[int, Fault | None]
Primitive = Callable[[Land, int, int, memoryview], Outcome]
"""Copies between `n` bytes of the land from an offset on, and good memory as long."""


def through(i: IovIter, call: Callable[[IovIter], int]) -> Outcome:
    """The count and the fault, however they are reported."""
    count = i.count
    try:
        copied, fault = call(i), i.fault
    except FaultError as error:
        copied, fault = error.copied, error.fault
    assert i.count == count - copied
    return copied, fault


def across(dst: IovIter, src: IovIter) -> Outcome:
    count = dst.count
    copied, fault = through(src, lambda i: copy_iter(dst, i))
    assert dst.count == count - copied
    return copied, fault


def pieces(view: memoryview) -> list[memoryview]:
    """The same bytes, cut within lines, at their ends, and where there is nothing."""
    found: list[memoryview] = []
    start = 0
    for length in cycle((1, 0, 63, 64, 5, 300, 0, 131, 2, 600)):
        if start >= len(view):
            return found
        found.append(view[start : start + length])
        start += length
    return found


FROM_BAD: dict[str, Primitive] = {
    "copy_to_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, good), lambda i: copy_to_iter(bad.buffer[at : at + n], i)
    ),
    "copy_to_iter range": lambda bad, at, n, good: through(
        IovIter.iovec(READ, [good]), lambda i: copy_to_iter(bad.range(at, n), i)
    ),
    "copy_page_to_iter": lambda bad, at, n, good: through(
        IovIter.kvec(READ, [good]), lambda i: copy_page_to_iter(bad.buffer, at, n, i)
    ),
    "copy_from_iter ubuf": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.buffer[at : at + n]), lambda i: copy_from_iter(good, i)
    ),
    "copy_from_iter iovec range": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, [bad.range(at, n)]), lambda i: copy_from_iter(good, i)
    ),
    "copy_from_iter kvec": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, [bad.buffer[at : at + n]]), lambda i: copy_from_iter(good, i)
    ),
    "copy_iter": lambda bad, at, n, good: across(
        IovIter.ubuf(READ, good), IovIter.iovec(WRITE, [bad.buffer[at : at + n]])
    ),
    "copy_to_iter_mcsafe": lambda bad, at, n, good: through(
        IovIter.kvec(READ, [good]), lambda i: copy_to_iter_mcsafe(bad.buffer[at : at + n], i)
    ),
    "memcpy_mcsafe": lambda bad, at, n, good: flat(good, bad.buffer[at : at + n]),
    "memcpy_mcsafe range": lambda bad, at, n, good: flat(good, bad.range(at, n)),
    "csum_and_copy_to_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, good), lambda i: csum_and_copy_to_iter(bad.buffer[at : at + n], i)[0]
    ),
    "csum_and_copy_from_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.range(at, n)), lambda i: csum_and_copy_from_iter(good, i)[0]
    ),
    "copy_from_iter_nocache": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.buffer[at : at + n]), lambda i: copy_from_iter_nocache(good, i)
    ),
    "copy_from_iter_nocache pieces": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, pieces(bad.buffer[at : at + n])), lambda i: copy_from_iter_nocache(good, i)
    ),
    "copy_from_iter_flushcache range": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, bad.range(at, n)), lambda i: copy_from_iter_flushcache(good, i)
    ),
    "copy_from_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, pieces(bad.buffer[at : at + n])), lambda i: copy_from_iter_flushcache(good, i)
    ),
    "copy_to_iter_flushcache": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, good), lambda i: copy_to_iter_flushcache(bad.buffer[at : at + n], i)
    ),
    "copy_to_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.iovec(READ, pieces(good)), lambda i: copy_to_iter_flushcache(bad.range(at, n), i)
    ),
    "memcpy_nocache": lambda bad, at, n, good: flat(good, bad.buffer[at : at + n], memcpy_nocache),
    "memcpy_flushcache": lambda bad, at, n, good: flat(good, bad.range(at, n), memcpy_flushcache),
}

TO_BAD: dict[str, Primitive] = {
    "copy_to_iter ubuf": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, bad.buffer[at : at + n]), lambda i: copy_to_iter(good, i)
    ),
    "copy_to_iter iovec range": lambda bad, at, n, good: through(
        IovIter.iovec(READ, [bad.range(at, n)]), lambda i: copy_to_iter(good, i)
    ),
    "copy_to_iter kvec": lambda bad, at, n, good: through(
        IovIter.kvec(READ, [bad.buffer[at : at + n]]), lambda i: copy_to_iter(good, i)
    ),
    "copy_from_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: copy_from_iter(bad.buffer[at : at + n], i)
    ),
    "copy_from_iter range": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, [good]), lambda i: copy_from_iter(bad.range(at, n), i)
    ),
    "copy_page_from_iter": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, [good]), lambda i: copy_page_from_iter(bad.buffer, at, n, i)
    ),
    "copy_iter": lambda bad, at, n, good: across(
        IovIter.iovec(READ, [bad.buffer[at : at + n]]), IovIter.ubuf(WRITE, good)
    ),
    "zero": lambda bad, at, n, _: through(IovIter.ubuf(READ, bad.buffer[at : at + n]), lambda i: i.zero()),
    "zero kvec": lambda bad, at, n, _: through(IovIter.kvec(READ, [bad.buffer[at : at + n]]), lambda i: i.zero()),
    "copy_to_iter_mcsafe": lambda bad, at, n, good: through(
        IovIter.iovec(READ, [bad.buffer[at : at + n]]), lambda i: copy_to_iter_mcsafe(good, i)
    ),
    "memcpy_mcsafe": lambda bad, at, n, good: flat(bad.buffer[at : at + n], good),
    "memcpy_mcsafe range": lambda bad, at, n, good: flat(bad.range(at, n), good),
    "csum_and_copy_to_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, bad.range(at, n)), lambda i: csum_and_copy_to_iter(good, i)[0]
    ),
    "csum_and_copy_from_iter": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: csum_and_copy_from_iter(bad.buffer[at : at + n], i)[0]
    ),
    "copy_from_iter_nocache": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: copy_from_iter_nocache(bad.buffer[at : at + n], i)
    ),
    "copy_from_iter_nocache pieces": lambda bad, at, n, good: through(
        IovIter.kvec(WRITE, pieces(good)), lambda i: copy_from_iter_nocache(bad.range(at, n), i)
    ),
    "copy_from_iter_flushcache": lambda bad, at, n, good: through(
        IovIter.ubuf(WRITE, good), lambda i: copy_from_iter_flushcache(bad.range(at, n), i)
    ),
    "copy_from_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.iovec(WRITE, pieces(good)), lambda i: copy_from_iter_flushcache(bad.buffer[at : at + n], i)
    ),
    "copy_to_iter_flushcache range": lambda bad, at, n, good: through(
        IovIter.ubuf(READ, bad.range(at, n)), lambda i: copy_to_iter_flushcache(good, i)
    ),
    "copy_to_iter_flushcache pieces": lambda bad, at, n, good: through(
        IovIter.kvec(READ, pieces(bad.buffer[at : at + n])), lambda i: copy_to_iter_flushcache(good, i)
    ),
    "memcpy_nocache": lambda bad, at, n, good: flat(bad.range(at, n), good, memcpy_nocache),
    "memcpy_flushcache": lambda bad, at, n, good: flat(bad.buffer[at : at + n], good, memcpy_flushcache),
}


PAST_CACHES = [name for name in FROM_BAD if "cache" in name]
INTO_PAST_CACHES = [name for name in TO_BAD if "cache" in name]


def flat(
    dst: memoryview | UserRange,
    src: memoryview | UserRange,
    copy: Callable[[memoryview | UserRange, memoryview | UserRange], McResult] = memcpy_mcsafe,
) -> Outcome:
    copied, remaining, fault = copy(dst, src)
    assert copied + remaining == (len(src) if isinstance(src, memoryview) else src.length)
    return copied, fault


@pytest.fixture(params=Ruin, ids=lambda how: how.name, scope="module")
def bad(request: pytest.FixtureRequest) -> Iterator[tuple[Land, Ruin]]:
    with Land(GOOD_PAGES + 1, DATA) as land:
        land.ruin(GOOD_PAGES, request.param)
        yield land, request.param


@pytest.fixture
def good() -> memoryview:
    """Page-aligned, so that a misalignment is what it says."""
    return memoryview(mmap.mmap(-1, GOOD_PAGES * PAGE_SIZE))


@pytest.fixture
def origin(isa: str) -> Iterator[str]:
    """Every instruction set recovers from signals."""
    del isa
    with fault_handler.mode("signal"):
        yield "signal"


def facts(land: Land, how: Ruin, fault: Fault | None) -> tuple[str, int, str] | None:
    """Side, offset and origin of a fault that is where it should be and looks as it should."""
    if fault is None or (fault.address, fault.length) != (land.address + EDGE, PAGE_SIZE) or not how.explains(fault):
        return None
    return fault.side, fault.offset, fault.origin


def sweep_sources(
    name: str,
    bad: tuple[Land, Ruin],
    good: memoryview,
    origin: str,
    befores: Sequence[int] = BEFORE,
    *,
    after: int = AFTER,
) -> int:
    cases, run, (land, how) = 0, FROM_BAD[name], bad
    whole_chunk = name.startswith("csum")
    good[:] = BLANK
    for before in befores:
        for misalignment in MISALIGNMENTS:
            n, case = before + after, (before, misalignment)
            copied, fault = run(land, EDGE - before, n, good[misalignment : misalignment + n])
            assert copied == (0 if whole_chunk else before), case
            assert facts(land, how, fault) == ("source", copied, origin), (case, fault)
            end = misalignment + before
            assert good[:misalignment] == BLANK[:misalignment], case
            assert whole_chunk or good[misalignment:end] == DATA[EDGE - before :], case
            assert good[end : end + after + 64] == BLANK[: after + 64], case
            good[misalignment:end] = BLANK[:before]
            cases += 1
    return cases


def sweep_destinations(
    name: str,
    bad: tuple[Land, Ruin],
    good: memoryview,
    origin: str,
    befores: Sequence[int] = BEFORE,
    *,
    after: int = AFTER,
) -> int:
    cases, run, (land, how) = 0, TO_BAD[name], bad
    whole_chunk = name.startswith("csum")
    good[:] = DATA if not name.startswith("zero") else bytes(len(DATA))
    land.buffer[:EDGE] = BLANK
    for before in befores:
        for misalignment in MISALIGNMENTS:
            n, case = before + after, (before, misalignment)
            source = good[misalignment : misalignment + n]
            copied, fault = run(land, EDGE - before, n, source)
            assert copied == (0 if whole_chunk else before), case
            assert facts(land, how, fault) == ("destination", copied, origin), (case, fault)
            assert land.buffer[EDGE - before - 64 : EDGE - before] == BLANK[:64], case
            assert whole_chunk or land.buffer[EDGE - before : EDGE] == source[:before], case
            land.buffer[EDGE - before : EDGE] = BLANK[:before]
            cases += 1
    land.buffer[:EDGE] = DATA
    return cases


@pytest.mark.parametrize("name", FROM_BAD)
def test_a_bad_source_ends_the_copy_at_its_first_byte(
    name: str, bad: tuple[Land, Ruin], good: memoryview, origin: str
) -> None:
    assert sweep_sources(name, bad, good, origin) == CASES


@pytest.mark.parametrize("name", TO_BAD)
def test_a_bad_destination_ends_the_copy_at_its_first_byte(
    name: str, bad: tuple[Land, Ruin], good: memoryview, origin: str
) -> None:
    assert sweep_destinations(name, bad, good, origin) == CASES


def test_the_sweep_is_as_wide_as_it_should_be() -> None:
    """Counted for one instruction set; there are four on a CPU of today."""
    assert CASES * len(Ruin) * (len(FROM_BAD) + len(TO_BAD)) > 100_000


@pytest.mark.parametrize("name", PAST_CACHES)
def test_a_bad_line_anywhere_in_a_stream_ends_it_at_its_first_byte(
    name: str, bad: tuple[Land, Ruin], good: memoryview, origin: str
) -> None:
    """Four lines are loaded before they are stored: those read before the bad one are not lost."""
    assert sweep_sources(name, bad, good, origin, IN_STREAMS, after=600) == len(IN_STREAMS) * len(MISALIGNMENTS)


@pytest.mark.parametrize("name", INTO_PAST_CACHES)
def test_a_stream_into_a_bad_page_ends_at_its_first_byte(
    name: str, bad: tuple[Land, Ruin], good: memoryview, origin: str
) -> None:
    assert sweep_destinations(name, bad, good, origin, IN_STREAMS, after=600) == len(IN_STREAMS) * len(MISALIGNMENTS)


WITHOUT_SIGNALS = [("signals blocked", BEFORE[::7]), ("mode", BEFORE)]


@pytest.fixture(params=WITHOUT_SIGNALS, ids=lambda param: param[0])
def befores(request: pytest.FixtureRequest) -> Iterator[Sequence[int]]:
    """What to sweep over while nobody would handle a fault's signal."""
    why, befores = request.param
    if why == "mode":
        with fault_handler.mode("syscall"):
            yield befores
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS, signal.SIGSEGV})
    try:
        yield befores
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize("name", ["copy_to_iter", "copy_from_iter kvec", "memcpy_mcsafe", *PAST_CACHES])
def test_system_calls_alone_count_a_source_as_exactly(
    name: str, bad: tuple[Land, Ruin], good: memoryview, befores: Sequence[int]
) -> None:
    recovered = fault_handler.status().recovered
    assert sweep_sources(name, bad, good, "syscall", befores) == len(befores) * len(MISALIGNMENTS)
    assert fault_handler.status().recovered == recovered


@pytest.mark.parametrize("name", ["copy_to_iter kvec", "zero", "memcpy_mcsafe", *INTO_PAST_CACHES])
def test_system_calls_alone_count_a_destination_as_exactly(
    name: str, bad: tuple[Land, Ruin], good: memoryview, befores: Sequence[int]
) -> None:
    recovered = fault_handler.status().recovered
    assert sweep_destinations(name, bad, good, "syscall", befores) == len(befores) * len(MISALIGNMENTS)
    assert fault_handler.status().recovered == recovered
