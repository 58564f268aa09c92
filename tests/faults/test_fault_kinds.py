"""Bad memory under an iterator of every kind: the copy stops exactly there, and the iterator can continue from there.

Over user memory the count is short, over trusted memory the copy raises FaultError, and mcsafe copies return a short
count over either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest.mock import ANY

import pytest
from iovec_rs import (
    READ,
    WRITE,
    FaultError,
    FaultMap,
    IovIter,
    IterKind,
    PipeRing,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_full,
    copy_from_iter_full_nocache,
    copy_from_iter_nocache,
    copy_iter,
    copy_page_from_iter,
    copy_page_to_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_full,
    copy_to_iter_mcsafe,
    csum_and_copy_from_iter,
    csum_and_copy_from_iter_full,
    csum_and_copy_to_iter,
    fault_handler,
    memcpy_mcsafe,
)
from support.arena import PAGE_SIZE, Arena
from support.damage import Damage
from support.damaged_kinds import DATA, KINDS, OTHER, PAGES, SKIP, TOTAL, TRUSTED, build, expect_short, state, state_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from iovec_rs import Fault


@pytest.fixture(params=["auto", "syscall"], autouse=True)
def _mode(request: pytest.FixtureRequest) -> Iterator[None]:
    with fault_handler.mode(request.param):
        yield


FULL = [copy_to_iter_full, copy_from_iter_full, copy_from_iter_full_nocache, csum_and_copy_from_iter_full]
FLAVOURS: dict[str, Callable[[memoryview | bytearray, IovIter], int]] = {
    "copy": copy_from_iter,
    "nocache": copy_from_iter_nocache,
    "flushcache": copy_from_iter_flushcache,
}


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.good(PAGES, DATA) as made:
        yield made


everywhere = pytest.mark.parametrize("page", range(PAGES))
every_kind = pytest.mark.parametrize("kind", KINDS)
every_way = pytest.mark.parametrize("how", Damage, ids=lambda how: how.name)


@every_kind
@every_way
@everywhere
@pytest.mark.parametrize("flavour", [*FLAVOURS, "page"])
def test_a_bad_page_in_a_source_stops_it_and_nothing_is_lost(
    arena: Arena, kind: IterKind, how: Damage, page: int, flavour: str
) -> None:
    i, reachable = build(kind, WRITE, arena.buffer), max(page * PAGE_SIZE - SKIP, 0)
    arena.damage(page, how)
    out = bytearray(b"\xee" * TOTAL)

    def copy(at: int) -> int:
        if flavour == "page":
            return copy_page_from_iter(out, at, TOTAL - at, i)
        return FLAVOURS[flavour](memoryview(out)[at:], i)

    expect_short(i, lambda: copy(0), reachable, how, raises=kind in TRUSTED)
    assert state(i) == state_at(kind, reachable)
    assert out == DATA[SKIP:][:reachable] + b"\xee" * (TOTAL - reachable)
    expect_short(i, lambda: copy(reachable), 0, how, raises=kind in TRUSTED)
    assert state(i) == state_at(kind, reachable)
    arena.mend(page)
    assert copy(reachable) == TOTAL - reachable
    assert (bytes(out), i.count, i.fault) == (DATA[SKIP:], 0, None)


@every_kind
@every_way
@everywhere
@pytest.mark.parametrize("flavour", ["copy", "page", "mcsafe", "flushcache", "zero"])
def test_a_bad_page_in_a_destination_stops_it_and_nothing_is_repeated(
    arena: Arena, kind: IterKind, how: Damage, page: int, flavour: str
) -> None:
    i, reachable = build(kind, READ, arena.buffer), max(page * PAGE_SIZE - SKIP, 0)
    arena.damage(page, how)
    wanted = bytes(TOTAL) if flavour == "zero" else OTHER

    def copy(at: int) -> int:
        match flavour:
            case "copy":
                return copy_to_iter(memoryview(OTHER)[at:], i)
            case "page":
                return copy_page_to_iter(OTHER, at, TOTAL - at, i)
            case "mcsafe":
                return copy_to_iter_mcsafe(memoryview(OTHER)[at:], i)
            case "flushcache":
                return copy_to_iter_flushcache(memoryview(OTHER)[at:], i)
        return i.zero()

    raises = kind in TRUSTED and flavour != "mcsafe"
    for start, copied in ((0, reachable), (reachable, 0)):
        expect_short(i, lambda at=start: copy(at), copied, how, raises=raises)  # type: ignore[misc]
        assert state(i) == state_at(kind, reachable)
    arena.mend(page)
    assert arena.image() == DATA[:SKIP] + wanted[:reachable] + DATA[SKIP + reachable :]
    assert copy(reachable) == TOTAL - reachable
    assert (arena.image(), i.count, i.fault) == (DATA[:SKIP] + wanted, 0, None)


@every_kind
@everywhere
def test_a_chunk_of_a_sum_fails_as_a_whole(arena: Arena, kind: IterKind, page: int) -> None:
    """Every byte counted is in the sum, and the sum of the parts is that of the whole."""
    whole = csum_and_copy_from_iter(bytearray(TOTAL), build(kind, WRITE, arena.buffer))
    for direction in (WRITE, READ):
        i = build(kind, direction, arena.buffer)
        arena.damage(page, Damage.CUT)
        out, done, csum = bytearray(TOTAL), 0, 0

        def copy(csum: int) -> tuple[int, int]:
            if i.direction == WRITE:  # noqa: B023 - called at once
                return csum_and_copy_from_iter(memoryview(out)[done:], i, csum=csum)  # noqa: B023
            return csum_and_copy_to_iter(DATA[SKIP + done :], i, csum=csum, offset=done)  # noqa: B023

        try:
            done, csum = copy(0)
        except FaultError as error:
            done = error.copied
            csum = csum_and_copy_from_iter(bytearray(done), IovIter.kvec(WRITE, [DATA[SKIP : SKIP + done]]))[1]
        assert done <= max(page * PAGE_SIZE - SKIP, 0)
        assert state(i)[0] == TOTAL - done
        summed = csum_and_copy_from_iter(bytearray(TOTAL), IovIter.kvec(WRITE, [DATA[SKIP : SKIP + done]]))[1]
        assert csum == summed
        arena.mend(page)
        if direction == READ or done % 2 == 0:
            copied, csum = copy(csum)
            assert (done + copied, csum) == whole


@every_kind
@every_way
def test_several_bad_pages_are_got_over_one_after_the_other(arena: Arena, kind: IterKind, how: Damage) -> None:
    i, out, done = build(kind, WRITE, arena.buffer), bytearray(TOTAL), 0
    for page in (0, 1, 3):
        arena.damage(page, how)
    met = []
    while i.count:
        try:
            done += copy_from_iter(memoryview(out)[done:], i)
            fault = i.fault
        except FaultError as error:
            done, fault = done + error.copied, error.fault
        if fault is not None:
            met.append((fault.address - arena.address) // PAGE_SIZE)
            arena.mend(met[-1])
    assert (met, done, bytes(out)) == ([0, 1, 3], TOTAL, DATA[SKIP:])


@every_kind
@every_way
@everywhere
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_bad_page_in_a_flat_destination_moves_an_iterator_as_far_as_it_got(
    arena: Arena, kind: IterKind, how: Damage, page: int, flavour: str
) -> None:
    """This holds also if bytes of later segments have been read by then."""
    arena.damage(page, how)
    reachable, copy = page * PAGE_SIZE, FLAVOURS[flavour]
    with Arena.good(PAGES, OTHER) as clean:
        i = build(kind, WRITE, clean.buffer)
        expect_short(i, lambda: copy(arena.buffer[:TOTAL], i), reachable, how, raises=kind in TRUSTED)
        assert state(i) == state_at(kind, reachable)
        expect_short(i, lambda: copy(arena.buffer[reachable:TOTAL], i), 0, how, raises=kind in TRUSTED)
        assert state(i) == state_at(kind, reachable)
        arena.mend(page)
        wanted = OTHER[SKIP:].ljust(TOTAL, b"\0")
        assert arena.image() == wanted[:reachable] + DATA[reachable:]
        assert copy(arena.buffer[reachable:TOTAL], i) == TOTAL - reachable
        assert (arena.image(), i.count) == (wanted + DATA[TOTAL:], 0)


@pytest.mark.parametrize("kind", [*KINDS, IterKind.PIPE])
@every_way
def test_bad_memory_on_the_other_side_moves_an_iterator_as_far_as_it_got(
    arena: Arena, kind: IterKind, how: Damage
) -> None:
    arena.damage(2, how)
    reachable = 2 * PAGE_SIZE
    with Arena.good(PAGES, bytes(PAGES * PAGE_SIZE)) as clean:
        ring = PipeRing(8)
        i = IovIter.pipe(READ, ring, TOTAL) if kind is IterKind.PIPE else build(kind, READ, clean.buffer)
        copied = copy_to_iter_mcsafe(arena.buffer[:TOTAL], i)
        assert (copied, i.count) == (reachable, TOTAL - reachable)
        assert i.fault is not None
        assert (i.fault.side, i.fault.offset) == ("source", reachable)
        arena.mend(2)
        assert copy_to_iter(arena.buffer[reachable:TOTAL], i) == TOTAL - reachable
        got = ring.read() if kind is IterKind.PIPE else clean.image()[SKIP:]
        assert got == DATA[:TOTAL]


@every_kind
@every_way
@pytest.mark.parametrize("full", FULL)
def test_all_or_nothing_is_nothing_and_stays_where_it_was(
    arena: Arena, kind: IterKind, how: Damage, full: Callable[..., bool | tuple[bool, int]]
) -> None:
    """Where trusted memory fails, too, the iterator is moved back before the error reports 0 bytes."""
    inward = full is copy_to_iter_full
    i = build(kind, READ if inward else WRITE, arena.buffer)
    data = OTHER if inward else bytearray(TOTAL)
    there = state(i)
    arena.damage(2, how)
    if kind in TRUSTED:
        with pytest.raises(FaultError) as caught:
            full(data, i)
        assert caught.value.copied == 0
        fault: Fault | None = caught.value.fault
    else:
        assert full(data, i) in (False, (False, ANY))
        fault = i.fault
    assert state(i) == there
    assert fault is not None
    assert how.explains(fault)
    arena.mend(2)
    assert full(data, i) in (True, (True, ANY))
    assert i.count == 0


@every_kind
@every_way
def test_between_two_iterators_both_stop_at_the_bad_page(arena: Arena, kind: IterKind, how: Damage) -> None:
    with Arena.good(PAGES, DATA) as clean:
        arena.damage(1, how)
        for bad, good in ((WRITE, READ), (READ, WRITE)):
            broken, sound = build(kind, bad, arena.buffer), build(kind, good, clean.buffer)
            dst, src = (broken, sound) if bad is READ else (sound, broken)
            copied, raises = PAGE_SIZE - SKIP, kind in TRUSTED
            expect_short(dst, lambda d=dst, s=src: copy_iter(d, s), copied, how, raises=raises)  # type: ignore[misc]
            assert state(broken) == state_at(kind, PAGE_SIZE - SKIP)
            assert broken.count == sound.count


@every_way
def test_poison_met_once_is_known_from_then_on(arena: Arena, how: Damage) -> None:
    arena.damage(1, how)
    known, out = FaultMap(), bytearray(TOTAL)
    for again in (False, True, True):
        before = fault_handler.status().recovered
        copied, _, fault = memcpy_mcsafe(out, arena.buffer[:TOTAL], fault_map=known)
        assert copied == PAGE_SIZE
        assert fault is not None
        if again:
            assert fault.origin == "map"
            assert fault_handler.status().recovered == before
        assert [(found.start, found.length) for found in known] == [(arena.start(1), PAGE_SIZE)]
    i = IovIter.kvec(READ, [out])
    assert copy_to_iter_mcsafe(arena.buffer[:TOTAL], i, fault_map=known) == PAGE_SIZE
    arena.mend(1)
    assert memcpy_mcsafe(out, arena.buffer[:TOTAL], fault_map=known).copied == PAGE_SIZE
    known.clear(arena.start(1), PAGE_SIZE)
    assert memcpy_mcsafe(out, arena.buffer[:TOTAL], fault_map=known) == (TOTAL, 0, None)
    assert out == DATA[:TOTAL]
