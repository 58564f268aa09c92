"""Another thread takes the handler away while a copy runs. The copy installs it again after 4 MiB at the latest, also
if it copies many segments: memory that is bad behind that makes it short, and does not end the process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import threading
import time
from collections.abc import Callable
from itertools import cycle, islice

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultMap,
    IovIter,
    UserRange,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_ranges,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_mcsafe,
    crc32c_and_copy_from_iter,
    crc32c_and_copy_to_iter,
    csum_and_copy_from_iter,
    csum_and_copy_to_iter,
)
from support.arena import window
from support.own_process import survives
from support.places import address

BODY = 1 << 20
"""Bytes that most segments share, so that a long copy needs little memory. No segment has the last page of them."""
TAIL = 16 << 20
"""Bytes that only the last segments have: while the first of them is untouched, the copy has that much before it."""
TOTAL = 256 << 20
"""Bytes of a copy, of which the tail is the last part. Behind them is a page that raises SIGBUS."""
TRIES = 50

Copy = Callable[[UserRange, "list[UserRange]"], int]
"""Copies between a range and segments, of which the last is bad; returns the bytes copied."""


def gather(copy: Callable[[UserRange, IovIter], int]) -> Copy:
    return lambda flat, segments: copy(flat, IovIter.iovec(WRITE, segments))


def scatter(copy: Callable[[UserRange, IovIter], int]) -> Copy:
    return lambda flat, segments: copy(flat, IovIter.iovec(READ, segments))


def parts(flat: UserRange, segments: list[UserRange]) -> list[UserRange]:
    """The range in parts as long as the segments."""
    length = segments[0].length
    return [UserRange(flat.address + at, length) for at in range(0, flat.length, length)]


def carefully(flat: UserRange, i: IovIter) -> int:
    """With a map of the page between the segments, so that each of them is looked up."""
    between = i.ranges()[0].address + BODY - PAGE_SIZE
    return copy_to_iter_mcsafe(flat, i, fault_map=FaultMap([(between, PAGE_SIZE)]))


def buffer(flat: UserRange) -> memoryview:
    return memoryview(window(flat.address, flat.length))


GATHERS: dict[str, Copy] = {
    "copy_from_iter": gather(copy_from_iter),
    "copy_from_iter_nocache": gather(copy_from_iter_nocache),
    "copy_from_iter_flushcache": gather(copy_from_iter_flushcache),
    "crc32c_and_copy_from_iter": gather(lambda flat, i: crc32c_and_copy_from_iter(flat, i)[0]),
    "csum_and_copy_from_iter": gather(lambda flat, i: csum_and_copy_from_iter(buffer(flat), i)[0]),
    "copy_iter": gather(lambda flat, i: copy_iter(IovIter.ubuf(READ, flat), i)),
    "copy_ranges": lambda flat, segments: copy_ranges(parts(flat, segments), segments).copied,
    "copy_ranges, flush": lambda flat, segments: copy_ranges(parts(flat, segments), segments, flush=True).copied,
}
SCATTERS: dict[str, Copy] = {
    "copy_to_iter": scatter(copy_to_iter),
    "copy_to_iter_flushcache": scatter(copy_to_iter_flushcache),
    "copy_to_iter_mcsafe": scatter(carefully),
    "crc32c_and_copy_to_iter": scatter(lambda flat, i: crc32c_and_copy_to_iter(flat, i)[0]),
    "csum_and_copy_to_iter": scatter(lambda flat, i: csum_and_copy_to_iter(buffer(flat), i)[0]),
    "copy_iter": scatter(lambda flat, i: copy_iter(i, IovIter.ubuf(WRITE, flat))),
    "copy_ranges": lambda flat, segments: copy_ranges(segments, parts(flat, segments)).copied,
    "copy_ranges, flush": lambda flat, segments: copy_ranges(segments, parts(flat, segments), flush=True).copied,
    "zero": scatter(lambda _, i: i.zero()),
}


class Scattered:
    """The body, the tail, and a page behind the end of the file."""

    def __init__(self, fill: bytes) -> None:
        descriptor = os.memfd_create("scattered")
        os.ftruncate(descriptor, BODY + TAIL + PAGE_SIZE)
        self.map = mmap.mmap(descriptor, BODY + TAIL + PAGE_SIZE)
        os.ftruncate(descriptor, BODY + TAIL)
        os.close(descriptor)
        self.start = address(self.map)
        ctypes.memset(self.start, fill[0], BODY + TAIL)

    def segments(self, length: int) -> list[UserRange]:
        """Segments of that length, of which all but the last are good."""
        body = cycle([UserRange(self.start + at, length) for at in range(0, BODY - PAGE_SIZE, length)])
        tail = [UserRange(self.start + at, length) for at in range(BODY, BODY + TAIL + 1, length)]
        return [*islice(body, (TOTAL - TAIL) // length), *tail]


def loses_its_handler(way: str, name: str, length: int) -> None:
    """Copies in another thread, again and again, until this thread has taken the handler away before the tail of a copy
    was reached. Every copy must end right before the bad segment.
    """
    is_gather = way == "gather"
    flat = mmap.mmap(-1, TOTAL + PAGE_SIZE)
    whole = UserRange(address(flat), TOTAL + length)
    scattered = Scattered(b"s" if is_gather else b"d")
    segments = scattered.segments(length)
    written, tail, before = (flat, TOTAL - TAIL, 0) if is_gather else (scattered.map, BODY, ord("d"))
    copy = (GATHERS if is_gather else SCATTERS)[name]
    copied: list[int] = []
    for _ in range(TRIES):
        written[0] = written[tail] = before
        copying = threading.Thread(target=lambda: copied.append(copy(whole, segments)))
        copying.start()
        while copying.is_alive() and written[0] == before:
            time.sleep(0.0005)
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        was_in_time = written[tail] == before
        copying.join()
        assert copied.pop() == TOTAL
        if was_in_time:
            return
    pytest.fail(f"none of {TRIES} copies was seen before its last {TAIL} bytes")


@pytest.mark.parametrize("length", [512, PAGE_SIZE])
@pytest.mark.parametrize(
    ("way", "name"), [*(("gather", name) for name in GATHERS), *(("scatter", name) for name in SCATTERS)]
)
def test_a_copy_of_many_segments_installs_a_lost_handler_again(way: str, name: str, length: int) -> None:
    survives(loses_its_handler, way, name, length)
