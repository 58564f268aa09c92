"""The properties that the iovec tests of QEMU and SPDK check, tested by our own code.

Gathering and scattering over every pair of shapes, discarding at the front and at the back, sub-ranges, and sending and
receiving through sockets that take a part only.
"""

from __future__ import annotations

import random
import socket

import pytest
from iovec_rs import READ, WRITE, IovIter, copy_from_iter, copy_iter, copy_to_iter, io

SHAPES = {
    "one": [64],
    "the same": [16, 16, 16, 16],
    "source in small pieces": [1] * 64,
    "uneven": [1, 31, 0, 2, 30],
    "with empty ones at both ends": [0, 0, 60, 4, 0],
}


def shaped(data: bytearray, lengths: list[int]) -> list[memoryview]:
    view, segments = memoryview(data), []
    for length in lengths:
        segments.append(view[:length])
        view = view[length:]
    assert not view
    return segments


def random_lengths(choose: random.Random, total: int) -> list[int]:
    lengths = []
    while total:
        length = min(choose.randrange(0, 20), total)
        lengths.append(length)
        total -= length
    return lengths


class TestSpdk:
    """`iovcpy`: equal sizes, a smaller source, a smaller destination, four vectors, a complex case."""

    @pytest.mark.parametrize("source", SHAPES)
    @pytest.mark.parametrize("to", SHAPES)
    def test_the_same_size(self, source: str, to: str) -> None:
        data, back = bytearray(range(64)), bytearray(64)
        i, j = IovIter.iovec(WRITE, shaped(data, SHAPES[source])), IovIter.iovec(READ, shaped(back, SHAPES[to]))
        assert copy_iter(j, i) == 64
        assert back == data

    @pytest.mark.parametrize(("from_bytes", "to_bytes"), [(48, 64), (64, 48), (1, 64), (64, 1), (0, 64)])
    def test_one_side_smaller(self, from_bytes: int, to_bytes: int) -> None:
        data, back = bytearray(range(1, from_bytes + 1)), bytearray(to_bytes)
        i = IovIter.iovec(WRITE, shaped(data, random_lengths(random.Random(from_bytes), from_bytes)))
        j = IovIter.iovec(READ, shaped(back, random_lengths(random.Random(to_bytes), to_bytes)))
        moved = min(from_bytes, to_bytes)
        assert copy_iter(j, i) == moved
        assert back == data[:moved] + bytes(to_bytes - moved)
        assert (i.count, j.count) == (from_bytes - moved, to_bytes - moved)


class TestQemu:
    @pytest.mark.parametrize("seed", range(20))
    def test_from_and_to_a_flat_buffer_at_every_offset(self, seed: int) -> None:
        """`iov_from_buf`, `iov_to_buf`."""
        choose = random.Random(seed)
        total = choose.randrange(1, 200)
        lengths = random_lengths(choose, total)
        for offset in range(total):
            for nbytes in (0, 1, total // 2, total - offset):
                memory = bytearray(total)
                i = IovIter.iovec(READ, shaped(memory, lengths))
                i.advance(offset)
                taken = min(nbytes, total - offset)
                assert copy_to_iter(bytes(range(1, 201))[:nbytes], i) == taken
                expected = bytearray(total)
                expected[offset : offset + taken] = bytes(range(1, 201))[:taken]
                assert memory == expected
                j = IovIter.iovec(WRITE, shaped(memory, lengths))
                j.advance(offset)
                back = bytearray(taken)
                assert copy_from_iter(back, j) == taken
                assert back == expected[offset : offset + taken]

    @pytest.mark.parametrize("seed", range(20))
    def test_discarded_at_the_front_and_at_the_back_and_undone(self, seed: int) -> None:
        """`iov_discard_front`, `iov_discard_back` and their undo, which is a saved state here."""
        choose = random.Random(seed)
        total = choose.randrange(1, 200)
        data = bytearray(choose.randbytes(total))
        i = IovIter.iovec(WRITE, shaped(data, random_lengths(choose, total)))
        state = i.save_state()
        for _ in range(10):
            front = choose.randrange(total + 1)
            back = choose.randrange(total - front + 1)
            i.advance(front)
            i.truncate(total - front - back)
            assert b"".join(i.views()) == data[front : total - back]
            i.restore(state)
            assert b"".join(i.views()) == data
        i.advance(total + 5)
        assert not i, "more than there is: all of it"

    @pytest.mark.parametrize("seed", range(5))
    def test_sent_and_received_in_parts_at_every_offset(self, seed: int) -> None:
        """`iov_send_recv` over a pair of non-blocking sockets with small buffers."""
        choose = random.Random(seed)
        total = 30_000
        data = bytearray(choose.randbytes(total))
        left, right = socket.socketpair()
        with left, right:
            for sock in (left, right):
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            for start in range(0, total, total // 7):
                end = choose.randrange(start, total + 1)
                back = bytearray(total)
                i = IovIter.iovec(WRITE, shaped(data, random_lengths(choose, total)))
                j = IovIter.iovec(READ, shaped(back, random_lengths(choose, total)))
                for iterator in (i, j):
                    iterator.advance(start)
                    iterator.truncate(end - start)
                while j:
                    for function, sock, iterator in ((io.sendmsg_all, left, i), (io.recvmsg_all, right, j)):
                        try:
                            function(sock, iterator)
                        except BlockingIOError as error:
                            assert error.characters_written >= 0  # noqa: PT017
                assert back == bytes(start) + data[start:end] + bytes(total - end)
