"""Lines written back and evicted: nothing in them changes, and bad memory ends it at its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs import FaultError, UserRange, pmem
from support.arena import Arena, Page
from support.damage import PAGE_SIZE, Damage, FaultyArena
from support.damaged_kinds import DATA, ERRNO, PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLS: dict[str, Callable[..., None]] = {"flush": pmem.flush, "persist": pmem.persist, "invalidate": pmem.invalidate}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def land() -> Iterator[FaultyArena]:
    with FaultyArena(PAGES, DATA) as made:
        yield made


@every_call
@pytest.mark.usefixtures("flush_instruction", "way")
@pytest.mark.parametrize("how", Damage, ids=lambda how: how.name)
def test_bad_memory_ends_it_at_its_page_and_says_so(land: FaultyArena, call: Callable[..., None], how: Damage) -> None:
    land.ruin(2, how)
    edge = 2 * PAGE_SIZE
    for offset in (0, 1, 63, 64, PAGE_SIZE - 1, PAGE_SIZE + 17, edge - 65, edge - 1, edge, edge + 1, edge + 100):
        for length in (None, 1, 64, 130, PAGE_SIZE, 2 * PAGE_SIZE):
            end = PAGES * PAGE_SIZE if length is None else offset + length
            if end > PAGES * PAGE_SIZE:
                continue
            if end <= edge:
                call(land.buffer, offset, length)
                continue
            for buffer, start in (
                (land.buffer, 0),
                (land.range(0, PAGES * PAGE_SIZE), 0),
                (land.buffer[offset:], offset),
            ):
                with pytest.raises(FaultError) as caught:
                    call(buffer, offset - start, length)
                good = max(edge - offset, 0)
                error, fault = caught.value, caught.value.fault
                assert (error.copied, fault.offset, fault.side) == (good, good, "destination"), (offset, length)
                assert (fault.address, fault.length) == (land.start(2), PAGE_SIZE)
                assert how.explains(fault)
                assert error.errno == ERRNO[fault.cause]
    land.mend(2)
    call(land.buffer)
    assert land.image() == DATA


@every_call
@pytest.mark.usefixtures("way")
def test_of_no_length_nothing_is_touched(land: FaultyArena, call: Callable[..., None]) -> None:
    land.ruin(1, Damage.UNMAPPED)
    for offset in (PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, PAGES * PAGE_SIZE):
        call(land.buffer, offset, 0)
    call(land.buffer, PAGES * PAGE_SIZE)
    call(b"")
    call(UserRange(0, 0))


@every_call
@pytest.mark.usefixtures("flush_instruction")
def test_what_memory_holds_stays_what_it_is(land: FaultyArena, call: Callable[..., None]) -> None:
    for offset in range(0, 200, 7):
        for length in (1, 7, 64, 65, 200):
            land.buffer[offset : offset + length] = DATA[:length]
            call(land.buffer, offset, length)
            assert land.buffer[offset : offset + length] == DATA[:length]
            land.buffer[offset : offset + length] = DATA[offset : offset + length]
    call(memoryview(DATA)[5:])
    assert land.image() == DATA


@every_call
@pytest.mark.usefixtures("flush_instruction", "way")
def test_memory_that_can_only_be_read_will_do(call: Callable[..., None]) -> None:
    with Arena([Page.READ_ONLY], DATA[:PAGE_SIZE]) as arena:
        call(arena.range(0, PAGE_SIZE))
        assert arena.image() == DATA[:PAGE_SIZE]


@every_call
def test_ranges_that_leave_the_buffer_are_refused(call: Callable[..., None]) -> None:
    buffer = bytearray(100)
    with pytest.raises(ValueError, match=r"offset is 101.*at most 100, the buffer's length"):
        call(buffer, 101)
    with pytest.raises(ValueError, match=r"length is 61.*at most 60, what the buffer has from offset 40"):
        call(buffer, 40, 61)
    with pytest.raises(ValueError, match=r"length is 1.*at most 0, what the buffer has from offset 100"):
        call(UserRange(1 << 20, 100), 100, 1)
    with pytest.raises(ValueError, match="offset is -1"):
        call(buffer, -1)
    with pytest.raises(ValueError, match="length is -1"):
        call(buffer, 0, -1)
    with pytest.raises(TypeError, match=r"buffer: .* is expected, not int"):
        call(5)
    with pytest.raises(BufferError, match="buffer: not C-contiguous"):
        call(memoryview(buffer)[::2])
