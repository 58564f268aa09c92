"""Writing back and evicting cache lines: their contents do not change, and bad memory ends the call at its page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs import FaultError, UserRange, fault_handler, pmem
from support.arena import PAGE_SIZE, Arena, Page
from support.damage import Damage
from support.damaged_kinds import DATA, ERRNO, PAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CALLS: dict[str, Callable[..., None]] = {"flush": pmem.flush, "persist": pmem.persist, "invalidate": pmem.invalidate}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
ROLES = {
    pmem.flush: ("destination", "to be written back"),
    pmem.persist: ("destination", "to be made durable"),
    pmem.invalidate: ("source", "to be evicted"),
}
"""The side of a fault, and what its error says of the memory."""


@pytest.fixture
def arena() -> Iterator[Arena]:
    with Arena.good(PAGES, DATA) as made:
        yield made


@every_call
@pytest.mark.usefixtures("flush_instruction", "way")
@pytest.mark.parametrize("how", Damage, ids=lambda how: how.name)
def test_bad_memory_ends_the_call_at_its_page(arena: Arena, call: Callable[..., None], how: Damage) -> None:
    arena.damage(2, how)
    edge = 2 * PAGE_SIZE
    for offset in (0, 1, 63, 64, PAGE_SIZE - 1, PAGE_SIZE + 17, edge - 65, edge - 1, edge, edge + 1, edge + 100):
        for length in (None, 1, 64, 130, PAGE_SIZE, 2 * PAGE_SIZE):
            end = PAGES * PAGE_SIZE if length is None else offset + length
            if end > PAGES * PAGE_SIZE:
                continue
            if end <= edge:
                call(arena.buffer, offset, length)
                continue
            for buffer, start in (
                (arena.buffer, 0),
                (arena.range(0, PAGES * PAGE_SIZE), 0),
                (arena.buffer[offset:], offset),
            ):
                with pytest.raises(FaultError) as caught:
                    call(buffer, offset - start, length)
                good = max(edge - offset, 0)
                error, fault = caught.value, caught.value.fault
                side, role = ROLES[call]
                assert (error.copied, fault.offset, fault.side) == (good, good, side), (offset, length)
                assert f"({fault.cause}), {role}, after {good} bytes" in str(error)
                assert (fault.address, fault.length) == (arena.start(2), PAGE_SIZE)
                assert how.explains(fault)
                assert error.errno == ERRNO[fault.cause]
    arena.mend(2)
    call(arena.buffer)
    assert arena.image() == DATA


@every_call
@pytest.mark.usefixtures("flush_instruction", "way")
def test_length_0_accesses_nothing(arena: Arena, call: Callable[..., None]) -> None:
    """Not even the bad page at the offset, which is a fault as soon as the length is 1."""
    arena.damage(1, Damage.UNMAPPED)
    recovered = fault_handler.status().recovered
    for offset in (PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE - 1):
        call(arena.buffer, offset, 0)
        call(arena.range(offset, 0))
    for offset in (0, PAGE_SIZE - 1, 2 * PAGE_SIZE, PAGES * PAGE_SIZE):
        call(arena.buffer, offset, 0)
    call(arena.buffer, PAGES * PAGE_SIZE)
    call(b"")
    call(UserRange(0, 0))
    assert fault_handler.status().recovered == recovered
    for offset in (PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE - 1):
        with pytest.raises(FaultError) as caught:
            call(arena.buffer, offset, 1)
        assert (caught.value.copied, caught.value.fault.address) == (0, arena.start(1))
    arena.mend(1)
    assert arena.image() == DATA


@every_call
@pytest.mark.usefixtures("flush_instruction")
def test_the_contents_of_memory_do_not_change(arena: Arena, call: Callable[..., None]) -> None:
    for offset in range(0, 200, 7):
        for length in (1, 7, 64, 65, 200):
            arena.buffer[offset : offset + length] = DATA[:length]
            call(arena.buffer, offset, length)
            assert arena.buffer[offset : offset + length] == DATA[:length]
            arena.buffer[offset : offset + length] = DATA[offset : offset + length]
    call(memoryview(DATA)[5:])
    assert arena.image() == DATA


@every_call
@pytest.mark.usefixtures("flush_instruction", "way")
def test_read_only_memory_is_accepted(call: Callable[..., None]) -> None:
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
