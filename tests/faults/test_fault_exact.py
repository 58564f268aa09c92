"""Every copy stops exactly before bad memory, whatever made it bad and wherever it begins, on either side.

The bytes before the fault are right, those behind it unchanged, the fault record is right, and the bad memory is
accessed only once.
"""

from __future__ import annotations

import itertools
import mmap
import random
import signal
from typing import TYPE_CHECKING, NamedTuple

import pytest
from iovec_rs import Fault, fault_handler
from support.arena import PAGE_SIZE, Arena
from support.damage import Damage
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
"""Numbers of bytes before the fault. They end everywhere in an iteration of the non-temporal loop, which copies four
lines.
"""

DATA = random.Random(11).randbytes(GOOD_PAGES * PAGE_SIZE).replace(b"\xee", b"\x11")
BLANK = b"\xee" * (GOOD_PAGES * PAGE_SIZE)


@pytest.fixture(params=Damage, ids=lambda how: how.name, scope="module")
def bad(request: pytest.FixtureRequest) -> Iterator[tuple[Arena, Damage]]:
    with Arena.good(GOOD_PAGES + 3, DATA) as arena:
        arena.damage(GOOD_PAGES, request.param)
        yield arena, request.param


@pytest.fixture
def good() -> memoryview:
    """Good memory at a page boundary, so that its offsets are misalignments."""
    return memoryview(mmap.mmap(-1, GOOD_PAGES * PAGE_SIZE))


@pytest.fixture
def origin(isa: str) -> Iterator[str]:
    """The origin that faults should have: a signal, with every instruction set."""
    del isa
    with fault_handler.mode("signal"):
        yield "signal"


class Sweep(NamedTuple):
    """One copy function, run at every distance from the bad page and every misalignment of the good side."""

    name: str
    arena: Arena
    how: Damage
    good: memoryview
    origin: str
    befores: Sequence[int] = BEFORE
    after: int = AFTER

    @property
    def whole_chunk(self) -> bool:
        """Whether a chunk with a fault in it does not count at all."""
        return self.name.startswith("csum")

    def facts(self, fault: Fault | None) -> tuple[str, int, str] | None:
        """Checks a fault's address and cause, and returns its side, offset and origin."""
        if fault is None or (fault.address, fault.length) != (self.arena.address + EDGE, PAGE_SIZE):
            return None
        return (fault.side, fault.offset, fault.origin) if self.how.explains(fault) else None

    def cases(self) -> Iterator[tuple[int, int]]:
        """Yields numbers of bytes before the bad page, with a misalignment each. At the end, checks that each case
        accessed the bad page once.
        """
        recovered = fault_handler.status().recovered
        yield from itertools.product(self.befores, MISALIGNMENTS)
        expected = len(self.befores) * len(MISALIGNMENTS) if self.origin == "signal" else 0
        assert fault_handler.status().recovered - recovered == expected, "touched once more"

    def from_bad(self) -> int:
        """Runs the copies from bad memory, and returns how many were right."""
        count, run, good, after = 0, FROM_BAD[self.name], self.good, self.after
        good[:] = BLANK
        for case in self.cases():
            before, misalignment = case
            n = before + after
            copied, fault = run(self.arena, EDGE - before, n, good[misalignment : misalignment + n])
            assert copied == (0 if self.whole_chunk else before), case
            assert self.facts(fault) == ("source", copied, self.origin), (case, fault)
            end = misalignment + before
            assert good[:misalignment] == BLANK[:misalignment], case
            assert self.whole_chunk or good[misalignment:end] == DATA[EDGE - before :], case
            assert good[end : end + after + 64] == BLANK[: after + 64], case
            good[misalignment:end] = BLANK[:before]
            count += 1
        return count

    def into_bad(self) -> int:
        """Runs the copies into bad memory, and returns how many were right."""
        count, run, good, target = 0, TO_BAD[self.name], self.good, self.arena.buffer
        good[:] = bytes(len(DATA)) if self.name.startswith("zero") else DATA
        target[:EDGE] = BLANK
        for case in self.cases():
            before, misalignment = case
            n = before + self.after
            source = good[misalignment : misalignment + n]
            copied, fault = run(self.arena, EDGE - before, n, source)
            assert copied == (0 if self.whole_chunk else before), case
            assert self.facts(fault) == ("destination", copied, self.origin), (case, fault)
            assert target[EDGE - before - 64 : EDGE - before] == BLANK[:64], case
            assert self.whole_chunk or target[EDGE - before : EDGE] == source[:before], case
            target[EDGE - before : EDGE] = BLANK[:before]
            count += 1
        target[:EDGE] = DATA
        return count


@pytest.mark.parametrize("name", FROM_BAD)
def test_a_bad_source_ends_the_copy_at_its_first_byte(
    name: str, bad: tuple[Arena, Damage], good: memoryview, origin: str
) -> None:
    assert Sweep(name, *bad, good, origin).from_bad() == CASES


@pytest.mark.parametrize("name", TO_BAD)
def test_a_bad_destination_ends_the_copy_at_its_first_byte(
    name: str, bad: tuple[Arena, Damage], good: memoryview, origin: str
) -> None:
    assert Sweep(name, *bad, good, origin).into_bad() == CASES


def test_the_sweep_is_as_wide_as_it_should_be() -> None:
    """These are the counts for one instruction set; recent CPUs have four."""
    assert CASES * len(Damage) * (len(FROM_BAD) + len(TO_BAD)) > 100_000


@pytest.mark.parametrize("name", NONTEMPORAL_FROM_BAD)
def test_a_bad_line_anywhere_in_a_stream_ends_it_at_its_first_byte(
    name: str, bad: tuple[Arena, Damage], good: memoryview, origin: str
) -> None:
    """The loop loads four lines before it stores them. The lines loaded before the bad one must not be lost."""
    assert Sweep(name, *bad, good, origin, IN_STREAMS, 600).from_bad() == len(IN_STREAMS) * len(MISALIGNMENTS)


@pytest.mark.parametrize("name", NONTEMPORAL_INTO_BAD)
def test_a_stream_into_a_bad_page_ends_at_its_first_byte(
    name: str, bad: tuple[Arena, Damage], good: memoryview, origin: str
) -> None:
    assert Sweep(name, *bad, good, origin, IN_STREAMS, 600).into_bad() == len(IN_STREAMS) * len(MISALIGNMENTS)


IN_RUNS = (*range(0, 260, 4), 1000, 4096, 8000)
"""Numbers of bytes before the fault. They end at segments of a run and in them."""

BEHIND_RUNS = (4096 - 64, 4096 + 64)
"""Bytes that follow in a run: those of as many segments of 64 bytes as are prefetched ahead, and of more."""


@pytest.mark.parametrize("behind", BEHIND_RUNS)
@pytest.mark.parametrize("name", [name for name in FROM_BAD if " run" in name])
def test_a_bad_source_in_the_middle_of_a_run_ends_it_at_its_first_byte(
    name: str, behind: int, bad: tuple[Arena, Damage], good: memoryview, origin: str
) -> None:
    assert Sweep(name, *bad, good, origin, IN_RUNS, behind).from_bad() == len(IN_RUNS) * len(MISALIGNMENTS)


@pytest.mark.parametrize("behind", BEHIND_RUNS)
@pytest.mark.parametrize("name", [name for name in TO_BAD if " run" in name])
def test_a_bad_destination_in_the_middle_of_a_run_ends_it_at_its_first_byte(
    name: str, behind: int, bad: tuple[Arena, Damage], good: memoryview, origin: str
) -> None:
    assert Sweep(name, *bad, good, origin, IN_RUNS, behind).into_bad() == len(IN_RUNS) * len(MISALIGNMENTS)


WITHOUT_SIGNALS = [("signals blocked", BEFORE[::7]), ("mode", BEFORE)]


@pytest.fixture(params=WITHOUT_SIGNALS, ids=lambda param: param[0])
def befores(request: pytest.FixtureRequest) -> Iterator[Sequence[int]]:
    """Numbers of bytes before the bad page, for a sweep without a signal handler."""
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
    name: str, bad: tuple[Arena, Damage], good: memoryview, befores: Sequence[int]
) -> None:
    assert Sweep(name, *bad, good, "syscall", befores).from_bad() == len(befores) * len(MISALIGNMENTS)


@pytest.mark.parametrize("name", ["copy_to_iter kvec", "zero", "memcpy_mcsafe", *NONTEMPORAL_INTO_BAD])
def test_system_calls_alone_count_a_destination_as_exactly(
    name: str, bad: tuple[Arena, Damage], good: memoryview, befores: Sequence[int]
) -> None:
    assert Sweep(name, *bad, good, "syscall", befores).into_bad() == len(befores) * len(MISALIGNMENTS)
