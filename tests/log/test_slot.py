"""`Slot`: every publication is read whole or not at all, whatever a writer does meanwhile."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import pickle
import signal
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import READ, WRITE, FaultError, IovIter, Slot, TornError, pmem
from iovec_rs.testing import truncated
from support.forks import codes_of_children_beside
from support.sums import crc32c, crc64, self_summed

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("IOVEC_RS_SLOT_SECONDS", "2"))


def shared(capacity: int) -> mmap.mmap:
    return mmap.mmap(-1, Slot.size_for(capacity))


def publication(number: int, length: int) -> bytes:
    """Any two publications differ in every word, so that a mixture of two is detected."""
    return number.to_bytes(8, "little") * (length // 8)


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 64, 4096, 8192, 8193, 100_000])
def test_what_was_published_is_consumed_once(length: int) -> None:
    slot = Slot(shared(100_000), 0, 100_000)
    dst = bytearray(100_000)
    assert slot.consume(dst) == (0, 0)
    for n in range(1, 5):
        data = os.urandom(length)
        half = length // 2
        shapes: list[Any] = [data, [data[:half], data[half:]], IovIter.kvec(WRITE, [data]), memoryview(data)]
        assert slot.publish(shapes[n - 1]) == n
        assert slot.consume(dst, newer_than=n - 1) == (length, n)
        assert dst[:length] == data
        assert slot.consume(dst, newer_than=n) == (0, n)
        i = IovIter.iovec(READ, [bytearray(10), bytearray(100_000)])
        assert slot.consume(i) == (length, n)
        assert i.count == 100_010 - length


@pytest.mark.parametrize(
    "length", [0, 1, 31, 32, 33, 64, 1536, 1537, 6143, 6144, 6145, 6151, 6152, 7680, 7681, 12_288, 20_000]
)
def test_a_publication_has_both_sums_of_its_data_and_is_consumed_without_the_second(length: int) -> None:
    memory, data = bytearray(Slot.size_for(20_000)), os.urandom(length)
    Slot(memory, 0, 20_000).publish(data)
    line = bytes(memory[:64])
    first, second = crc32c(data), crc64(data) % (1 << 32) or 1

    def with_sums(first: int, second: int) -> bytes:
        return self_summed(line[:4] + struct.pack("<I", first) + line[8:56] + struct.pack("<I", second))

    def consume(line: bytes) -> bytes:
        memory[:64] = line
        buffer = bytearray(20_000)
        length, _ = Slot(memory, 0, 20_000).consume(buffer)
        return bytes(buffer[:length])

    assert line == with_sums(first, second)
    assert consume(with_sums(first, 0)) == data
    for sums in ((first ^ 1, second), (first, second ^ 2), (first ^ 1, 0)):
        with pytest.raises(TornError):
            consume(with_sums(*sums))


def test_the_space_of_a_slot() -> None:
    for capacity in (0, 1, 32, 33, 64, 65, 4096, 100_001):
        size = Slot.size_for(capacity)
        assert Slot(bytearray(size), 0, capacity).capacity == capacity
        assert Slot(bytearray(size)).capacity >= capacity
        with pytest.raises(ValueError, match=r"capacity|offset"):
            Slot(bytearray(size - 1), 0, max(capacity, 1))
        beside = bytearray(b"\xaa" * (size + 128))
        beside[64 : 64 + size] = bytes(size)
        slot = Slot(beside, 64, capacity)
        slot.publish(b"x" * capacity)
        slot.publish(b"y" * capacity)
        assert bytes(beside[:64]) + bytes(beside[64 + size :]) == b"\xaa" * 128
    for offset in (1, 63, 128, -64, 1 << 70):
        with pytest.raises(ValueError, match="offset"):
            Slot(bytearray(128), offset)
    with pytest.raises(ValueError, match="capacity"):
        Slot.size_for(1 << 63)


def test_what_is_refused_has_changed_nothing() -> None:
    memory = bytearray(Slot.size_for(100))
    slot = Slot(memory, 0, 100)
    slot.publish(b"x" * 100)
    before = bytes(memory)
    with pytest.raises(ValueError, match="at most 100"):
        slot.publish(bytes(101))
    dst = bytearray(b"." * 99)
    with pytest.raises(ValueError, match="100 or more"):
        slot.consume(dst)
    assert dst == b"." * 99
    reader = Slot(memoryview(memory).toreadonly(), 0, 100)
    with pytest.raises(BufferError, match="region: read-only memory cannot be published in"):
        reader.publish(b"y")
    assert memory == before
    assert reader.consume(bytearray(100)) == (100, 1)
    with pytest.raises(ValueError, match="direction"):
        slot.publish(IovIter.ubuf(READ, bytearray(4)))


def test_bad_data_leave_the_publication_before() -> None:
    slot = Slot(shared(1 << 16), 0, 1 << 16)
    slot.publish(b"before" * 1000)
    with truncated(8, 4) as memory:
        for source in (memory, IovIter.kvec(WRITE, [memory])):
            with pytest.raises(FaultError):
                slot.publish(source)
    dst = bytearray(1 << 16)
    assert slot.consume(dst) == (6000, 1)
    assert dst[:6000] == b"before" * 1000


def test_bad_data_behind_data_in_the_slot_itself_leave_the_publication_before() -> None:
    region = shared(1 << 16)
    slot = Slot(region, 0, 1 << 16)
    slot.publish(b"before" * 1000)
    with truncated(8, 4) as memory:
        # The next publication goes over this part of the source, which is therefore read ahead, as far as that goes: up
        # to the page that is gone.
        source = IovIter.kvec(WRITE, [memoryview(region)[30_000:60_000], memory])
        with pytest.raises(FaultError) as caught:
            slot.publish(source)
        assert caught.value.fault.offset == 30_000 + 4 * mmap.PAGESIZE
        assert source.count == 30_000 + 8 * mmap.PAGESIZE
    dst = bytearray(1 << 16)
    assert slot.consume(dst) == (6000, 1)
    assert dst[:6000] == b"before" * 1000


@pytest.mark.parametrize("length", [4096, 100_000, 1 << 20])
def test_whoever_changes_the_data_meanwhile_the_sums_are_of_what_was_published(length: int) -> None:
    data, slot = bytearray(length), Slot(shared(length), 0, length)
    over = threading.Event()

    def change() -> None:
        byte = 0
        while not over.is_set():
            byte = (byte + 1) % 256
            ctypes.memset(start, byte, length)

    start = ctypes.addressof((ctypes.c_char * length).from_buffer(data))
    changer = threading.Thread(target=change)
    changer.start()
    try:
        mixed, deadline = 0, time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            number, dst = slot.publish(data), bytearray(length)
            assert slot.consume(dst) == (length, number)
            mixed += dst.count(dst[:1]) != length
    finally:
        over.set()
        changer.join()
    assert mixed != 0 or length < 1 << 20, "the data never changed in the middle of a publication"


def test_memory_that_is_gone_is_a_fault() -> None:
    with truncated(8, 4) as memory:
        memory[:64] = bytes(64)
        slot = Slot(memory, 0, 200)
        assert slot.publish(b"x" * 100) == 1
        with pytest.raises(FaultError):
            Slot(memory, 4 * 4096, 32).publish(b"x")
        with pytest.raises(FaultError, match="the source of a copy") as caught:
            Slot(memory, 4 * 4096, 32).consume(bytearray(32))
        assert caught.value.fault.side == "source"


def test_the_numbers_go_on_behind_a_header_that_a_killed_writer_left_torn() -> None:
    memory = shared(100)
    slot = Slot(memory, 0, 100)
    for number in range(1, 8):
        before = memory[:64]
        assert slot.publish(publication(number, 96)) == number
    # The first half of the line is that of the new header.
    memory[32:64] = before[32:]
    with pytest.raises(TornError):
        slot.consume(bytearray(100), newer_than=5)
    assert slot.publish(b"next") == 8
    assert slot.consume(bytearray(100), newer_than=7) == (4, 8)


@pytest.mark.parametrize("is_new", [False, True])
def test_no_flipped_bit_of_the_header_takes_the_numbers_back(is_new: bool) -> None:
    for bit in range(512):
        memory = bytearray(Slot.size_for(100))
        slot = Slot(memory, 0, 100)
        for number in range(1, 8):
            slot.publish(publication(number, 96))
        memory[bit // 8] ^= 1 << (bit % 8)
        writer = Slot(memory, 0, 100) if is_new else slot
        assert writer.publish(b"next") == 8, bit
        assert Slot(memory, 0, 100).consume(bytearray(100), newer_than=7) == (4, 8)


def test_a_header_that_tells_no_number_is_refused_by_a_new_writer_and_passed_by_the_last() -> None:
    memory, dst = bytearray(Slot.size_for(100)), bytearray(100)
    last = Slot(memory, 0, 100)
    for number in range(1, 8):
        last.publish(publication(number, 96))
    memory[:64] = bytes(range(64))
    damaged = bytes(memory)
    with pytest.raises(OSError, match="header") as refused:
        Slot(memory, 0, 100).publish(b"next")
    assert (refused.value.errno, bytes(memory)) == (errno.EBADMSG, damaged)
    memory[:64] = bytes(64)
    assert last.publish(b"next") == 8
    assert last.consume(dst, newer_than=7) == (4, 8)


@pytest.mark.parametrize("damage", [b"scribble", bytes(8), b"\xff" * 8])
@pytest.mark.parametrize("at", range(0, 64, 8))
def test_whatever_becomes_of_the_header_the_last_writer_goes_on_behind_its_number(at: int, damage: bytes) -> None:
    memory, dst = bytearray(Slot.size_for(100)), bytearray(100)
    slot = Slot(memory, 0, 100)
    for number in range(1, 8):
        slot.publish(publication(number, 96))
    memory[at : at + 8] = damage
    number = slot.publish(b"next")
    assert 8 <= number < 1 << 62
    assert slot.consume(dst, newer_than=7) == (4, number)
    assert slot.publish(b"then") == number + 1


def test_a_reader_with_another_capacity_gets_the_data_or_is_told() -> None:
    memory, dst = bytearray(1 << 16), bytearray(1 << 16)
    writer, longer, shorter, line = (Slot(memory, 0, capacity) for capacity in (1000, None, 500, 32))
    for number in range(1, 9):
        data = publication(number, 16 if number % 4 == 0 else 960)
        assert writer.publish(data) == number
        assert (longer.consume(dst), bytes(dst[: len(data)])) == ((len(data), number), data)
        for reader in (shorter, line):
            if len(data) <= 32:
                assert (reader.consume(dst), bytes(dst[: len(data)])) == ((len(data), number), data)
            elif number % 2 or reader is line:
                with pytest.raises(
                    ValueError,
                    match=f"capacity is {reader.capacity}.*publication {number} of 960 bytes ends beyond this slot",
                ):
                    reader.consume(dst)
            else:
                assert reader.consume(dst) == (960, number)


def test_a_source_in_the_slot_itself_is_published_as_it_was() -> None:
    memory, dst = bytearray(Slot.size_for(20_000)), bytearray(20_000)
    slot = Slot(memory, 0, 20_000)
    for number in range(2):
        slot.publish(bytes((index * 7 + number) % 251 for index in range(20_000)))
    for _ in range(4):  # The publications go to the lower and to the upper buffer in turn.
        across = slice(10_000, 30_000)
        expected = bytes(memory[across])
        slot.publish(memoryview(memory)[across])
        assert (slot.consume(dst)[0], bytes(dst)) == (20_000, expected)


def test_a_child_forked_in_the_middle_of_a_publication_does_not_wait_for_it() -> None:
    slot, data = Slot(bytearray(Slot.size_for(1 << 20)), 0, 1 << 20), bytes(1 << 20)

    def child() -> int:
        try:
            slot.publish(b"child")
        except BlockingIOError:
            return 3
        return 0

    assert set(codes_of_children_beside(lambda: slot.publish(data), child)) <= {0, 3}


def test_a_header_that_stays_torn_is_told() -> None:
    memory = bytearray(Slot.size_for(100))
    slot = Slot(memory, 0, 100)
    slot.publish(b"x" * 100)
    memory[9] ^= 1
    i = IovIter.ubuf(READ, bytearray(100))
    with pytest.raises(TornError) as torn:
        slot.consume(i)
    assert (torn.value.errno, i.count) == (errno.EAGAIN, 100)
    assert pickle.loads(pickle.dumps(torn.value)).errno == errno.EAGAIN
    memory[9] ^= 1
    data = memory.index(b"x" * 100)
    memory[data + 50] ^= 1
    with pytest.raises(TornError):
        slot.consume(i)
    slot.publish(b"y" * 100)
    assert slot.consume(i)[0] == 100


def test_slots_of_a_region(tmp_path: Path) -> None:
    path = tmp_path / "region"
    with pmem.PmemRegion.open(path, size=1 << 16, create=True) as region:
        slot = Slot(region, 4096, 1000)
        slot.publish(b"kept" * 100)
        with pytest.raises(BufferError, match="views, iterators and slots over it: 1, running calls: 0"):
            region.close()
        del slot
    with pmem.PmemRegion.open(path, writable=False) as region:
        dst = bytearray(1000)
        assert Slot(region, 4096, 1000).consume(dst) == (400, 1)
        assert dst[:400] == b"kept" * 100


def consume_whole(memory: mmap.mmap, capacity: int, end: float, least: int) -> None:
    """Consumes until the time is over and at least `least` publications were seen."""
    slot = Slot(memory, 0, capacity)
    dst, newest, seen = bytearray(capacity), 0, 0
    while time.monotonic() < end or seen < least:
        try:
            length, number = slot.consume(dst, newer_than=newest)
        except TornError:
            continue
        if number == newest:
            continue
        assert number > newest
        assert dst[:length] == publication(number, length), f"publication {number} is a mix"
        newest, seen = number, seen + 1


def publish_until(memory: mmap.mmap, capacity: int, over: threading.Event) -> None:
    slot = Slot(memory, 0, capacity)
    lengths = (capacity, capacity // 16 * 8, 16, capacity)
    number = 0
    while not over.is_set():
        number += 1
        assert slot.publish(publication(number, lengths[number % 4])) == number


@pytest.mark.parametrize("capacity", [64, 4096, 1 << 18])
def test_readers_in_threads_never_see_a_mix(capacity: int) -> None:
    memory = shared(capacity)
    over, failures = threading.Event(), []

    def read() -> None:
        try:
            consume_whole(memory, capacity, time.monotonic() + SECONDS, 3)
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=publish_until, args=(memory, capacity, over))
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (writer, *readers):
        thread.start()
    for thread in readers:
        thread.join()
    over.set()
    writer.join()
    assert not failures


@pytest.mark.parametrize("capacity", [64, 4096, 1 << 18])
def test_readers_in_processes_never_see_a_mix(capacity: int) -> None:
    memory = shared(capacity)
    readers = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                signal.alarm(120)
                consume_whole(memory, capacity, time.monotonic() + SECONDS, 3)
                code = 0
            finally:
                os._exit(code)
        readers.append(child)
    over = threading.Event()
    writer = threading.Thread(target=publish_until, args=(memory, capacity, over))
    writer.start()
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in readers]
    over.set()
    writer.join()
    assert codes == [0, 0]
