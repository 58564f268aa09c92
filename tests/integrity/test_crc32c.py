"""CRC-32C of memory and iterators, and of copies, which sum in the same pass.

Every copy with a sum behaves like the copy without one, and the sum is that of exactly the bytes counted.
"""

from __future__ import annotations

import mmap
import threading
from typing import TYPE_CHECKING

import iovec_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    FaultMap,
    FolioQueue,
    IovIter,
    PipeRing,
    UserRange,
    XArray,
    crc32c,
    crc32c_and_copy_from_iter,
    crc32c_and_copy_from_iter_flushcache,
    crc32c_and_copy_to_iter,
    crc32c_and_copy_to_iter_mcsafe,
    crc32c_and_memcpy_flushcache,
    crc32c_and_memcpy_mcsafe,
    crc32c_combine,
    testing,
)
from support import sums
from support.kinds import CASES, Shape, build

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.kinds import Pair

# The examples of RFC 3720, B.4, whose table shows the bytes in the order of transmission, and the usual check value.
VECTORS = [
    (bytes(32), 0x8A9136AA),
    (b"\xff" * 32, 0x62A8AB43),
    (bytes(range(32)), 0x46DD794E),
    (bytes(reversed(range(32))), 0x113FDB5C),
    (
        bytes.fromhex(
            "01c000000000000000000000000000001400000000000400000000140000001828000000000000000200000000000000"
        ),
        0xD9963A56,
    ),
    (b"123456789", 0xE3069283),
    (b"", 0),
]


@pytest.mark.parametrize(("data", "crc"), VECTORS)
def test_the_vectors_of_the_rfc(data: bytes, crc: int) -> None:
    assert crc32c(data) == sums.bit_by_bit(data) == sums.crc32c(data) == crc
    for split in range(len(data) + 1):
        head, tail = data[:split], data[split:]
        assert crc32c(tail, crc32c(head)) == crc
        assert crc32c_combine(crc32c(head), crc32c(tail), len(tail)) == crc


@given(st.binary(max_size=3000), st.integers(0, 2**32 - 1), st.data())
def test_any_split_goes_on_and_combines(data: bytes, before: int, draw: st.DataObject) -> None:
    whole = sums.crc32c(data, before)
    at = draw.draw(st.integers(0, len(data)))
    assert crc32c(data[at:], crc32c(data[:at], before)) == whole
    assert crc32c_combine(crc32c(data[:at], before), crc32c(data[at:]), len(data) - at) == whole


@pytest.mark.parametrize("length", [8191, 8192, 8193, 3 * 8192 + 64, 1 << 20])
@pytest.mark.parametrize("start", [0, 1, 63])
def test_long_memory_at_any_start(length: int, start: int) -> None:
    data = bytes(range(251)) * (length // 251 + 2)
    view = memoryview(data)[start : start + length]
    assert crc32c(view) == sums.crc32c(view)


def lengths() -> st.SearchStrategy[tuple[int, ...]]:
    some = st.one_of(st.integers(0, 100), st.sampled_from([0, 64, 4096, 8192, 8129, 20_000]))
    return st.lists(some, min_size=1, max_size=6).map(tuple)


def shapes() -> st.SearchStrategy[Shape]:
    return st.builds(
        Shape, lengths(), st.integers(0, 130), st.integers(-5, 90), st.integers(0, 1), st.integers(0, 1000)
    )


def twins(kind: str, source: bool, shape: Shape) -> tuple[Pair, Pair]:
    return build(kind, source, shape), build(kind, source, shape)


def same(plain: Pair, summed: Pair) -> None:
    """Checks that both iterators are at the same position and have the same memory."""
    position = [(pair.real.count, pair.real.iov_offset, pair.real.nr_segs) for pair in (plain, summed)]
    assert position[0] == position[1]
    assert plain.space.map[:] == summed.space.map[:]
    if plain.ring is not None:
        shown = [[(bytes(page), *rest) for page, *rest in pair.ring.slots] for pair in (plain, summed)]
        assert shown[0] == shown[1]


TO_ITER = [kind for kind, source in CASES if not source]
FROM_ITER = [kind for kind, source in CASES if source]


@pytest.mark.parametrize("kind", TO_ITER)
@settings(max_examples=60, deadline=None)
@given(shape=shapes(), before=st.integers(0, 2**32 - 1), spare=st.integers(-50, 50))
def test_into_every_kind(kind: str, shape: Shape, before: int, spare: int) -> None:
    plain, summed = twins(kind, False, shape)
    data = bytes(i * 7 % 253 for i in range(max(plain.real.count + spare, 0)))
    copied = iovec_rs.copy_to_iter(data, plain.real)
    assert crc32c_and_copy_to_iter(data, summed.real, None, before) == (copied, sums.crc32c(data[:copied], before))
    same(plain, summed)


@pytest.mark.parametrize(
    "copies",
    [
        (iovec_rs.copy_from_iter, crc32c_and_copy_from_iter),
        (iovec_rs.copy_from_iter_flushcache, crc32c_and_copy_from_iter_flushcache),
    ],
    ids=["plain", "flushcache"],
)
@pytest.mark.parametrize("kind", FROM_ITER)
@settings(max_examples=40, deadline=None)
@given(shape=shapes(), spare=st.integers(-50, 50), start=st.integers(0, 70))
def test_out_of_every_kind(
    kind: str,
    copies: tuple[Callable[..., int], Callable[..., tuple[int, int]]],
    shape: Shape,
    spare: int,
    start: int,
) -> None:
    (copy, with_sum), before = copies, 0xABCDEF01
    plain, summed = twins(kind, True, shape)
    expected, found = (bytearray(start + max(plain.real.count + spare, 0)) for _ in range(2))
    copied = copy(memoryview(expected)[start:], plain.real)
    crc = sums.crc32c(expected[start : start + copied], before)
    assert with_sum(memoryview(found)[start:], summed.real, None, before) == (copied, crc)
    assert found == expected
    same(plain, summed)


@pytest.mark.parametrize("kind", TO_ITER)
@settings(max_examples=60, deadline=None)
@given(
    shape=shapes(),
    start=st.integers(0, 9),
    bad=st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 40)), min_size=1, max_size=3),
    bad_destination=st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 40)), max_size=2),
)
def test_a_map_stops_it_where_it_stops_the_copy_without_a_sum(
    kind: str, shape: Shape, start: int, bad: list[tuple[int, int]], bad_destination: list[tuple[int, int]]
) -> None:
    plain, summed = twins(kind, False, shape)
    data = mmap.mmap(-1, start + plain.real.count + PAGE_SIZE)
    data[:] = bytes(i * 11 % 251 for i in range(len(data)))
    source = memoryview(data)[start : start + plain.real.count]
    maps = []
    for pair in (plain, summed):
        fault_map = FaultMap()
        for at, length in bad:
            fault_map.poison(data, min(at, len(data) - 1), min(length, len(data) - min(at, len(data) - 1)))
        for at, length in bad_destination:
            fault_map.add(pair.space.base + at, length, "write")
        maps.append(fault_map)
    copied = iovec_rs.copy_to_iter_mcsafe(source, plain.real, fault_map=maps[0])
    found, crc = crc32c_and_copy_to_iter_mcsafe(source, summed.real, fault_map=maps[1])
    assert crc == sums.crc32c(source[:found])
    if kind == "discard":
        # The copy with a sum reads the source, which the copy without one does not.
        assert found <= copied
    else:
        assert found == copied
        same(plain, summed)
        faults = [pair.real.fault and (pair.real.fault.side, pair.real.fault.offset) for pair in (plain, summed)]
        assert faults[0] == faults[1]


def test_what_is_discarded_is_read_up_to_bad_memory() -> None:
    data = mmap.mmap(-1, 3 * PAGE_SIZE)
    data[:] = b"discarded..." * 1024
    fault_map = FaultMap()
    fault_map.poison(data, 9000, 1)
    i = IovIter.discard(READ, len(data))
    assert crc32c_and_copy_to_iter_mcsafe(data, i, fault_map=fault_map) == (9000, sums.crc32c(data[:9000]))
    assert i.count == len(data) - 9000
    assert i.fault is not None
    assert (i.fault.side, i.fault.offset, i.fault.origin) == ("source", 9000, "map")


@pytest.mark.parametrize("kind", FROM_ITER)
@settings(max_examples=40, deadline=None)
@given(shape=shapes())
def test_an_iterator_that_is_summed_stays_where_it_is(kind: str, shape: Shape) -> None:
    for source in (False, True) if kind != "kvec_readonly" else (True,):
        pair = build(kind, source, shape)
        holds = b"".join(bytes(pair.space.view(at, length)) for at, length in pair.real.ranges())
        if len(holds) == pair.real.count:
            assert crc32c(pair.real) == sums.crc32c(holds)
        else:
            with pytest.raises(
                ValueError, match=f"a hole at byte {len(holds)}: expected all of its {pair.real.count} "
            ):
                crc32c(pair.real)
        pair.check()


def test_a_destination_of_read_only_pages_is_summed_all_the_same() -> None:
    page = bytes(range(256)) * 16
    array = XArray({0: bytearray(page)})
    i = IovIter.xarray(READ, array, 0, PAGE_SIZE)
    array.store(0, page)
    assert crc32c(i) == sums.crc32c(page)
    queue = FolioQueue([page])
    assert crc32c(IovIter.folioq(WRITE, queue, 0, 0, PAGE_SIZE)) == sums.crc32c(page)


def test_what_cannot_be_read_is_refused() -> None:
    for i in (IovIter.discard(READ, 4), IovIter.pipe(READ, PipeRing(), 4)):
        with pytest.raises(ValueError, match=f"crc32c: not possible on an iterator of kind {i.kind}"):
            crc32c(i)
        assert i.count == 4
    with pytest.raises(TypeError, match="data: a buffer is expected, not int"):
        crc32c(7)  # type: ignore[arg-type]
    for crc in (-1, 2**32):
        with pytest.raises(ValueError, match="crc is"):
            crc32c(b"", crc)
        with pytest.raises(ValueError, match="crc is"):
            crc32c_and_copy_to_iter(b"1", IovIter.discard(READ, 4), crc=crc)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.sampled_from(["mcsafe", "flushcache", "to", "from"]),
)
def test_overlapping_sides(dst: int, src: int, length: int, how: str) -> None:
    memory = bytearray(i * 13 % 257 % 256 for i in range(40_000))
    before = bytes(memory)
    view = memoryview(memory)
    to, source = view[dst : dst + length], view[src : src + length]
    expected = sums.crc32c(before[src : src + length])
    match how:
        case "mcsafe":
            result, crc = crc32c_and_memcpy_mcsafe(to, source)
            copied = result.copied
        case "flushcache":
            result, crc = crc32c_and_memcpy_flushcache(to, source)
            copied = result.copied
        case "to":
            copied, crc = crc32c_and_copy_to_iter(source, IovIter.kvec(READ, [to[: length // 2], to[length // 2 :]]))
        case _:
            i = IovIter.kvec(WRITE, [source[: length // 3], source[length // 3 :]])
            copied, crc = crc32c_and_copy_from_iter(to, i)
    assert (copied, crc) == (length, expected)
    assert memory[dst : dst + length] == before[src : src + length]


def test_where_trusted_memory_raises_the_error_has_the_sum() -> None:
    with testing.truncated(6, keep=3) as memory:
        held = 3 * PAGE_SIZE
        memory.buffer[:held] = bytes(i % 241 for i in range(held))
        good = bytearray(6 * PAGE_SIZE)
        calls: list[Callable[[], object]] = [
            lambda: crc32c(memory.buffer, 5),
            lambda: crc32c(UserRange(*IovIter.ubuf(WRITE, memory.buffer).ranges()[0]), 5),
            lambda: crc32c(IovIter.iovec(WRITE, [memory.buffer[:100], memory.buffer[100:]]), 5),
            lambda: crc32c_and_copy_from_iter(good, IovIter.kvec(WRITE, [memory.buffer]), crc=5),
            lambda: crc32c_and_copy_from_iter_flushcache(good, IovIter.kvec(WRITE, [memory.buffer]), crc=5),
            lambda: crc32c_and_copy_to_iter(memory.buffer, IovIter.kvec(READ, [good]), crc=5),
        ]
        roles = ["to be summed"] * 3 + ["the source of a copy"] * 3
        for call, role in zip(calls, roles, strict=True):
            with pytest.raises(FaultError, match=role) as caught:
                call()
            assert (caught.value.copied, caught.value.crc32c) == (held, sums.crc32c(memory.buffer[:held], 5))


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("length", [1535, 1536, 1537, 3071, 3072, 3073, 8191, 8193, 9727, 9728, 9729])
@pytest.mark.parametrize("skew", [0, 1, 63])
def test_the_sum_ends_where_memory_ends_within_a_block_and_between_two(side: str, length: int, skew: int) -> None:
    """Copies go in blocks of 1536 bytes, and prefetch 8 KiB ahead: also what is no longer there."""
    with testing.truncated(6, keep=3) as memory:
        held, wanted = 3 * PAGE_SIZE, length + PAGE_SIZE
        data = bytes(i % 241 for i in range(held))
        memory.buffer[:held] = data
        cut = memoryview(memory.buffer)[held - length :][:wanted]
        whole = memoryview(bytearray(i % 239 for i in range(wanted + skew)))[skew:]
        expected = sums.crc32c(data[-length:] if side == "source" else whole[:length], 5)
        to, source = (whole, cut) if side == "source" else (cut, whole)
        calls: list[Callable[[], tuple[int, int]]] = [
            lambda: crc32c_and_copy_from_iter(to, IovIter.ubuf(WRITE, source), crc=5),
            lambda: crc32c_and_copy_from_iter(to, IovIter.kvec(WRITE, [source[:700], source[700:]]), crc=5),
            lambda: crc32c_and_copy_from_iter_flushcache(to, IovIter.ubuf(WRITE, source), crc=5),
            lambda: crc32c_and_copy_to_iter(source, IovIter.ubuf(READ, to), crc=5),
            lambda: crc32c_and_copy_to_iter(source, IovIter.kvec(READ, [to[:700], to[700:]]), crc=5),
        ]
        for number, call in enumerate(calls):
            try:
                copied, crc = call()
            except FaultError as error:
                copied, crc = error.copied, error.crc32c or 0
            assert (copied, crc) == (length, expected), f"call {number}"
        result, crc = crc32c_and_memcpy_mcsafe(to, source, crc=5)
        assert (result.copied, crc) == (length, expected)


def test_two_threads_that_write_while_it_is_copied_do_not_part_sum_and_copy() -> None:
    """The sum is that of the bytes written, even if somebody changes the source meanwhile."""
    source = bytearray(1 << 20)
    stop = False

    def scribble() -> None:
        n = 0
        while not stop:
            n = (n + 1) % 256
            source[::4096] = bytes([n]) * 256

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        for _ in range(50):
            target = bytearray(len(source))
            result, crc = crc32c_and_memcpy_mcsafe(target, source)
            assert (result.copied, crc) == (len(source), sums.crc32c(target))
    finally:
        stop = True
        thread.join()


def test_an_iterator_with_a_hole_has_no_sum() -> None:
    page = bytes(range(256)) * (PAGE_SIZE // 256)
    pages = XArray({0: page, 2: page})
    i = IovIter.xarray(WRITE, pages, 100, 3 * PAGE_SIZE - 100)
    with pytest.raises(
        ValueError, match=f"data is an iterator with a hole at byte {PAGE_SIZE - 100}: expected all of its"
    ):
        crc32c(i)
    assert i.count == 3 * PAGE_SIZE - 100
    i.truncate(PAGE_SIZE - 100)
    assert crc32c(i) == sums.crc32c(page[100:])
    behind = IovIter.folioq(WRITE, FolioQueue([page]), 0, 0, PAGE_SIZE)
    pages.erase(0)
    with pytest.raises(ValueError, match="a hole at byte 0"):
        crc32c(i)
    assert crc32c(behind) == sums.crc32c(page)
