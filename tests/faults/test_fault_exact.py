"""Every copy stops at the very byte before bad memory, whatever made it bad, wherever it begins, on either side.

The bytes before the fault are right, those behind it untouched, the fault says what there was to see, and the bad
memory is touched only once.
"""

from __future__ import annotations

import mmap
import random
import signal
from typing import TYPE_CHECKING

import pytest
from iovec_rs import Fault, fault_handler
from support.damage import PAGE_SIZE, Damage, FaultyArena
from support.primitives import FROM_BAD, NONTEMPORAL_FROM_BAD, NONTEMPORAL_INTO_BAD, TO_BAD

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


@pytest.fixture(params=Damage, ids=lambda how: how.name, scope="module")
def bad(request: pytest.FixtureRequest) -> Iterator[tuple[FaultyArena, Damage]]:
    with FaultyArena(GOOD_PAGES + 1, DATA) as arena:
        arena.damage(GOOD_PAGES, request.param)
        yield arena, request.param


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


def facts(arena: FaultyArena, how: Damage, fault: Fault | None) -> tuple[str, int, str] | None:
    """Side, offset and origin of a fault that is where it should be and looks as it should."""
    if fault is None or (fault.address, fault.length) != (arena.address + EDGE, PAGE_SIZE) or not how.explains(fault):
        return None
    return fault.side, fault.offset, fault.origin


def sweep_sources(
    name: str,
    bad: tuple[FaultyArena, Damage],
    good: memoryview,
    origin: str,
    befores: Sequence[int] = BEFORE,
    *,
    after: int = AFTER,
) -> int:
    cases, run, (arena, how) = 0, FROM_BAD[name], bad
    whole_chunk, recovered = name.startswith("csum"), fault_handler.status().recovered
    good[:] = BLANK
    for before in befores:
        for misalignment in MISALIGNMENTS:
            n, case = before + after, (before, misalignment)
            copied, fault = run(arena, EDGE - before, n, good[misalignment : misalignment + n])
            assert copied == (0 if whole_chunk else before), case
            assert facts(arena, how, fault) == ("source", copied, origin), (case, fault)
            end = misalignment + before
            assert good[:misalignment] == BLANK[:misalignment], case
            assert whole_chunk or good[misalignment:end] == DATA[EDGE - before :], case
            assert good[end : end + after + 64] == BLANK[: after + 64], case
            good[misalignment:end] = BLANK[:before]
            cases += 1
    assert fault_handler.status().recovered - recovered == (cases if origin == "signal" else 0), "touched once more"
    return cases


def sweep_destinations(
    name: str,
    bad: tuple[FaultyArena, Damage],
    good: memoryview,
    origin: str,
    befores: Sequence[int] = BEFORE,
    *,
    after: int = AFTER,
) -> int:
    cases, run, (arena, how) = 0, TO_BAD[name], bad
    whole_chunk, recovered = name.startswith("csum"), fault_handler.status().recovered
    good[:] = DATA if not name.startswith("zero") else bytes(len(DATA))
    arena.buffer[:EDGE] = BLANK
    for before in befores:
        for misalignment in MISALIGNMENTS:
            n, case = before + after, (before, misalignment)
            source = good[misalignment : misalignment + n]
            copied, fault = run(arena, EDGE - before, n, source)
            assert copied == (0 if whole_chunk else before), case
            assert facts(arena, how, fault) == ("destination", copied, origin), (case, fault)
            assert arena.buffer[EDGE - before - 64 : EDGE - before] == BLANK[:64], case
            assert whole_chunk or arena.buffer[EDGE - before : EDGE] == source[:before], case
            arena.buffer[EDGE - before : EDGE] = BLANK[:before]
            cases += 1
    arena.buffer[:EDGE] = DATA
    assert fault_handler.status().recovered - recovered == (cases if origin == "signal" else 0), "touched once more"
    return cases


@pytest.mark.parametrize("name", FROM_BAD)
def test_a_bad_source_ends_the_copy_at_its_first_byte(
    name: str, bad: tuple[FaultyArena, Damage], good: memoryview, origin: str
) -> None:
    assert sweep_sources(name, bad, good, origin) == CASES


@pytest.mark.parametrize("name", TO_BAD)
def test_a_bad_destination_ends_the_copy_at_its_first_byte(
    name: str, bad: tuple[FaultyArena, Damage], good: memoryview, origin: str
) -> None:
    assert sweep_destinations(name, bad, good, origin) == CASES


def test_the_sweep_is_as_wide_as_it_should_be() -> None:
    """Counted for one instruction set; there are four on a CPU of today."""
    assert CASES * len(Damage) * (len(FROM_BAD) + len(TO_BAD)) > 100_000


@pytest.mark.parametrize("name", NONTEMPORAL_FROM_BAD)
def test_a_bad_line_anywhere_in_a_stream_ends_it_at_its_first_byte(
    name: str, bad: tuple[FaultyArena, Damage], good: memoryview, origin: str
) -> None:
    """Four lines are loaded before they are stored: those read before the bad one are not lost."""
    assert sweep_sources(name, bad, good, origin, IN_STREAMS, after=600) == len(IN_STREAMS) * len(MISALIGNMENTS)


@pytest.mark.parametrize("name", NONTEMPORAL_INTO_BAD)
def test_a_stream_into_a_bad_page_ends_at_its_first_byte(
    name: str, bad: tuple[FaultyArena, Damage], good: memoryview, origin: str
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


@pytest.mark.parametrize("name", ["copy_to_iter", "copy_from_iter kvec", "memcpy_mcsafe", *NONTEMPORAL_FROM_BAD])
def test_system_calls_alone_count_a_source_as_exactly(
    name: str, bad: tuple[FaultyArena, Damage], good: memoryview, befores: Sequence[int]
) -> None:
    assert sweep_sources(name, bad, good, "syscall", befores) == len(befores) * len(MISALIGNMENTS)


@pytest.mark.parametrize("name", ["copy_to_iter kvec", "zero", "memcpy_mcsafe", *NONTEMPORAL_INTO_BAD])
def test_system_calls_alone_count_a_destination_as_exactly(
    name: str, bad: tuple[FaultyArena, Damage], good: memoryview, befores: Sequence[int]
) -> None:
    assert sweep_destinations(name, bad, good, "syscall", befores) == len(befores) * len(MISALIGNMENTS)
