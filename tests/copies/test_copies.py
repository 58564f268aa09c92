"""What the copy functions guarantee besides moving bytes: checksums, hashes, overlap, lifetime of memory, threads."""

from __future__ import annotations

import array
import ctypes
import gc
import hashlib
import mmap
import os
import pickle
import random
import socket
import tempfile
import threading
from multiprocessing.shared_memory import SharedMemory
from typing import TYPE_CHECKING

import numpy as np
import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    IovIter,
    PipeRing,
    XArray,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    csum_and_copy_from_iter,
    csum_and_copy_from_iter_full,
    csum_and_copy_to_iter,
    hash_and_copy_to_iter,
)
from support.arena import Arena, Page, window
from support.checksum import internet_checksum

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer


DATA = random.Random(5).randbytes(20_001)


@pytest.mark.parametrize("lengths", [[20_001], [1, 4096, 3, 9000, 6901], [7] * 2857 + [2]])
def test_a_sum_is_that_of_the_bytes_however_they_are_scattered(isa: str, lengths: list[int]) -> None:
    del isa
    blocks = [bytearray(length) for length in lengths]
    assert csum_and_copy_to_iter(DATA, IovIter.kvec(READ, blocks)) == (len(DATA), internet_checksum(DATA))
    assert b"".join(blocks) == DATA
    flat = bytearray(len(DATA))
    assert csum_and_copy_from_iter(flat, IovIter.iovec(WRITE, blocks)) == (len(DATA), internet_checksum(DATA))
    assert flat == DATA


def test_a_sum_goes_on_where_the_last_one_ended() -> None:
    block = bytearray(len(DATA))
    i = IovIter.ubuf(READ, block)
    csum = done = 0
    for part in (1, 2, 997, 4096, 1, 14_904):
        copied, csum = csum_and_copy_to_iter(DATA[done : done + part], i, csum=csum, offset=done)
        done += copied
    assert (done, csum) == (len(DATA), internet_checksum(DATA))


def test_a_sum_of_nothing_is_what_it_was() -> None:
    assert csum_and_copy_to_iter(b"data", IovIter.kvec(READ, []), csum=0xFFFF_FFFF) == (0, 0xFFFF_FFFF)
    discard = IovIter.discard(READ, 10)
    assert csum_and_copy_to_iter(b"data", discard, csum=7) == (0, 7)
    assert discard.count == 10


def test_all_or_nothing_with_a_sum_takes_the_copy_back() -> None:
    i = IovIter.kvec(WRITE, [b"abc", b"de"])
    flat = bytearray(6)
    assert csum_and_copy_from_iter_full(flat, i) == (False, internet_checksum(b"abcde"))
    assert i.count == 5
    assert csum_and_copy_from_iter_full(flat, i, 5) == (True, internet_checksum(b"abcde"))
    assert i.count == 0
    assert flat == b"abcde\0"


def test_a_hash_gets_exactly_what_was_copied() -> None:
    digest = hashlib.sha256()
    i = IovIter.kvec(READ, [bytearray(5), bytearray(6)])
    assert hash_and_copy_to_iter(DATA, i, digest, 4) == 4
    assert hash_and_copy_to_iter(memoryview(DATA)[4:], i, digest) == 7
    assert digest.digest() == hashlib.sha256(DATA[:11]).digest()
    counted = IovIter.discard(READ, 3)
    assert hash_and_copy_to_iter(array.array("d", [1.0]), counted, digest) == 3


class Fed:
    """A stand-in for a hash: `update` keeps the objects that it is called with."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []

    def update(self, data: bytes) -> None:
        self.blocks.append(data)


def test_a_hash_gets_what_was_copied_however_the_source_changes() -> None:
    """The source is changed by the copy itself, where the two sides overlap, and by `update`."""
    memory = bytearray(b"abcdefghijklmnop")
    fed = Fed()
    assert hash_and_copy_to_iter(memoryview(memory)[:12], IovIter.ubuf(READ, memoryview(memory)[4:]), fed) == 12
    assert (b"".join(fed.blocks), bytes(memory)) == (b"abcdefghijkl", b"abcdabcdefghijkl")

    source, target = bytearray(DATA * 20), bytearray(20 * len(DATA))

    class Spoils(Fed):
        def update(self, data: bytes) -> None:
            super().update(data)
            source[:] = bytes(len(source))

    spoils = Spoils()
    assert hash_and_copy_to_iter(source, IovIter.kvec(READ, [target]), spoils) == len(target)
    assert len(spoils.blocks) > 1
    assert b"".join(spoils.blocks) == target != DATA * 20


def test_a_hash_of_what_a_pipe_has_room_for() -> None:
    ring, digest = PipeRing(4), hashlib.sha256()
    assert hash_and_copy_to_iter(DATA, IovIter.pipe(READ, ring, len(DATA)), digest) == 4 * PAGE_SIZE
    assert digest.digest() == hashlib.sha256(DATA[: 4 * PAGE_SIZE]).digest()
    assert ring.read() == DATA[: 4 * PAGE_SIZE]


@pytest.mark.parametrize("trusted", [False, True])
def test_a_hash_is_fed_what_counts_before_a_fault(trusted: bool) -> None:
    """The hash gets exactly `copied` bytes, with the fault on either side, after several blocks, and with overlap."""
    with Arena([*[Page.GOOD] * 40, Page.PROTECTED], random.Random(7).randbytes(40 * PAGE_SIZE)) as arena:
        good, bad = window(arena.address, arena.length), arena.length - PAGE_SIZE
        view = memoryview(good).cast("B")
        make = IovIter.kvec if trusted else IovIter.iovec
        for source, target, copied in (
            (view[100:], bytearray(arena.length - 100), bad - 100),
            (DATA * 9, view[100 : 100 + 9 * len(DATA)], min(9 * len(DATA), bad - 100)),
            (view[bad - 5000 :], view[bad - 6000 : bad], 5000),
        ):
            fed, before, i = Fed(), bytes(source[:copied]), make(READ, [target])
            if trusted and copied < i.count:
                with pytest.raises(FaultError) as caught:
                    hash_and_copy_to_iter(source[: i.count], i, fed)
                assert caught.value.copied == copied
            else:
                assert hash_and_copy_to_iter(source[: i.count], i, fed) == copied
            assert i.count == len(target) - copied
            assert b"".join(fed.blocks) == before == bytes(target[:copied])
            if copied < len(target):
                assert i.fault is not None
                assert (i.fault.offset, i.fault.cause) == (copied, "protection")


def test_a_hash_survives_a_source_that_is_cut_while_it_is_hashed() -> None:
    """`update` gets copies of the bytes, in memory that no truncation takes away."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(40 * PAGE_SIZE)
        mapping = mmap.mmap(file.fileno(), 40 * PAGE_SIZE)

        class Cuts(Fed):
            def update(self, data: bytes) -> None:
                file.truncate(PAGE_SIZE)
                super().update(data)

        cuts = Cuts()
        i = IovIter.iovec(READ, [bytearray(40 * PAGE_SIZE)])
        copied = hash_and_copy_to_iter(mapping, i, cuts)
        assert 0 < copied < 40 * PAGE_SIZE
        assert b"".join(cuts.blocks) == bytes(copied)
        assert i.fault is not None
        assert (i.fault.offset, i.fault.cause) == (copied, "gone")


def test_a_hash_that_raises_puts_the_iterator_back() -> None:
    class Broken:
        def update(self, data: memoryview) -> None:
            raise ZeroDivisionError(len(data))

    i = IovIter.kvec(READ, [bytearray(4), bytearray(4)])
    copy_to_iter(b"ab", i)
    with pytest.raises(ZeroDivisionError, match="6"):
        hash_and_copy_to_iter(b"cdefghij", i, Broken())
    assert (i.count, i.nr_segs, i.iov_offset) == (6, 2, 2)
    with pytest.raises(TypeError, match="hash"):
        hash_and_copy_to_iter(b"x", i, object())
    assert i.count == 6


def test_a_hash_cannot_move_the_iterator_it_is_fed_from() -> None:
    i = IovIter.kvec(READ, [bytearray(8)])

    class Meddling:
        def update(self, data: memoryview) -> None:
            i.advance(len(data))

    with pytest.raises(RuntimeError):
        hash_and_copy_to_iter(b"abcd", i, Meddling())
    assert (i.count, i.iov_offset) == (8, 0)


@pytest.mark.parametrize("make", [IovIter.kvec, IovIter.iovec])
@pytest.mark.parametrize("shift", [-5000, -64, -3, -1, 0, 1, 2, 63, 64, 5000])
@pytest.mark.parametrize("pieces", [1, 3, 40])
def test_overlapping_memory_is_read_before_it_is_written(
    make: Callable[..., IovIter], shift: int, pieces: int, isa: str
) -> None:
    del isa
    length, base = 12_000, 6_000

    def cut(view: memoryview) -> list[memoryview]:
        size = length // pieces
        return [view[at : at + size] for at in range(0, length, size)]

    flavours: dict[str, Callable[..., int]] = {
        "to": copy_to_iter,
        "to, flushed": copy_to_iter_flushcache,
        "from": copy_from_iter,
        "from, past the caches": copy_from_iter_nocache,
        "from, flushed": copy_from_iter_flushcache,
        "across": copy_iter,
    }
    for name, copy in flavours.items():
        memory = bytearray(random.Random(1).randbytes(24_000))
        expected = bytearray(memory)
        expected[base + shift : base + shift + length] = memory[base : base + length]
        view = memoryview(memory)
        source, target = view[base : base + length], view[base + shift : base + shift + length]
        if name.startswith("to"):
            assert copy(source, make(READ, cut(target))) == length
        elif name.startswith("from"):
            assert copy(target, make(WRITE, cut(source))) == length
        else:
            assert copy(make(READ, cut(target)), make(WRITE, cut(source))) == length
        assert memory == expected, name


@pytest.mark.parametrize(
    "exporter",
    [
        bytearray(b"01234567"),
        array.array("d", [1.5]),
        array.array("h", [1, 2, 3, 4]),
        np.arange(8, dtype=np.uint8),
        np.arange(4, dtype=np.float32).reshape(2, 2)[:1],
        (ctypes.c_uint32 * 2)(1, 2),
        memoryview(bytearray(32))[8:16],
        memoryview(bytearray(16)).cast("Q")[1:],
        pickle.PickleBuffer(bytearray(8)),
    ],
    ids=lambda exporter: type(exporter).__name__,
)
def test_every_exporter_is_source_and_destination(exporter: Buffer) -> None:
    before = bytes(exporter)
    assert len(before) == 8
    out = bytearray(8)
    assert copy_from_iter(out, IovIter.ubuf(WRITE, exporter)) == 8
    assert out == before
    assert copy_to_iter(b"abcdefgh", IovIter.kvec(READ, [exporter])) == 8
    assert bytes(exporter) == b"abcdefgh"
    assert copy_from_iter(exporter, IovIter.ubuf(WRITE, b"ABCDEFGH")) == 8
    assert bytes(exporter) == b"ABCDEFGH"


def test_shared_memory_and_mappings_cannot_be_closed_under_an_iterator() -> None:
    shared = SharedMemory(create=True, size=PAGE_SIZE)
    try:
        assert shared.buf is not None
        i = IovIter.ubuf(READ, shared.buf)
        assert copy_to_iter(b"shared", i) == 6
        assert bytes(shared.buf[:6]) == b"shared"
        del i
    finally:
        shared.close()
        shared.unlink()
    mapping = mmap.mmap(-1, PAGE_SIZE)
    i = IovIter.ubuf(READ, mapping)
    with pytest.raises(BufferError):
        mapping.close()
    del i
    mapping.close()
    with pytest.raises(ValueError, match="closed"):
        IovIter.ubuf(READ, mapping)


def test_views_hold_the_memory_after_the_iterator_is_gone() -> None:
    block = bytearray(b"0123456789")
    i = IovIter.kvec(READ, [memoryview(block)[2:5], memoryview(block)[5:9]], count=5)
    i.advance(1)
    first, second = i.views()
    del i
    gc.collect()
    assert (bytes(first), bytes(second), first.readonly) == (b"34", b"56", False)
    first[:] = b"xy"
    assert block == b"012xy56789"
    with pytest.raises(BufferError):
        block.append(0)
    del first, second
    block.append(0)
    (readonly,) = IovIter.ubuf(WRITE, block).views()
    assert readonly.readonly


def test_a_structure_keeps_a_page_as_long_as_somebody_shows_it() -> None:
    page = bytearray(b"p" * PAGE_SIZE)
    pages = XArray({3: page})
    shown = pages.load(3)
    assert shown is not None
    pages.erase(3)
    assert pages.load(3) is None
    with pytest.raises(BufferError):
        page.append(0)
    assert bytes(shown[:2]) == b"pp"
    del shown
    page.append(0)


def test_splice_moves_a_ring_into_a_socket() -> None:
    ring = PipeRing(8)
    assert copy_to_iter(DATA, IovIter.pipe(READ, ring, len(DATA))) == len(DATA)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert ring.splice(ours, 5_000) == 5_000
        assert ring.splice(ours) == len(DATA) - 5_000
        ours.shutdown(socket.SHUT_WR)
        received = b"".join(iter(lambda: theirs.recv(PAGE_SIZE), b""))
    assert (ring.used, received) == (0, DATA)


def test_splice_into_a_full_pipe_says_how_far_it_got() -> None:
    ring = PipeRing(64)
    data = random.Random(6).randbytes(64 * PAGE_SIZE)
    copy_to_iter(data, IovIter.pipe(READ, ring, len(data)))
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        moved = ring.splice(writer)
        assert 0 < moved < len(data)
        with pytest.raises(BlockingIOError):
            ring.splice(writer)
        assert os.read(reader, moved) + ring.read() == data
    finally:
        os.close(reader)
        os.close(writer)


def test_one_iterator_in_two_threads_is_refused_in_one_of_them() -> None:
    source = bytearray(64 << 20)
    i = IovIter.ubuf(READ, bytearray(len(source)))
    refused: list[BaseException] = []
    started = threading.Event()

    def poke() -> None:
        started.set()
        while i_busy.is_set():
            try:
                i.save_state()
            except RuntimeError as error:
                refused.append(error)
                return

    i_busy = threading.Event()
    i_busy.set()
    thread = threading.Thread(target=poke)
    thread.start()
    started.wait()
    for _ in range(20):
        assert copy_to_iter(source, i) == len(source)
        i.revert(len(source))
        if refused:
            break
    i_busy.clear()
    thread.join()
    assert len(refused) == 1


def test_other_threads_run_during_a_large_copy() -> None:
    source, target = bytearray(256 << 20), bytearray(256 << 20)
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.is_set():
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before = ticks
        assert copy_to_iter(source, IovIter.ubuf(READ, target)) == len(source)
        assert ticks > before
    finally:
        stop.set()
        thread.join()
