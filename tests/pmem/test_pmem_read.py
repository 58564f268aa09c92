"""Reads from a region stop before memory that is known to be bad and at memory that faults."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, McResult, testing
from iovec_rs.pmem import PmemRegion
from support.kinds import CASES, Shape, build, state_of
from support.places import address

if TYPE_CHECKING:
    from pathlib import Path

TARGETS = [kind for kind, source in CASES if not source]
SIZE = 16 * PAGE_SIZE
FILL = random.Random(4).randbytes(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(FILL)
    return path


def test_a_buffer_is_filled_from_an_offset(path: Path) -> None:
    region = PmemRegion.open(path, writable=False)
    for offset, length in ((0, SIZE), (1, 100), (SIZE - 3, 3), (SIZE, 0), (4000, 9000)):
        out = bytearray(length)
        assert region.read_into(offset, out) == McResult(length, 0, None)
        assert out == FILL[offset : offset + length]


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("shape", [Shape((100,)), Shape((5, 0, 4097, 3, 8190), lead=13, extra=1, seed=1)])
def test_every_kind_of_iterator_is_filled(path: Path, kind: str, shape: Shape) -> None:
    subject = build(kind, False, shape)
    asked = subject.real.count
    copied = subject.oracle.fill(FILL[33 : 33 + asked])
    assert PmemRegion.open(path).read_into(33, subject.real) == McResult(copied, asked - copied, None)
    subject.oracle.settle(state_of(subject.real))
    subject.check()


@pytest.mark.parametrize("kind", ["buffer", "ubuf", "kvec", "bvec"])
def test_known_poison_is_not_accessed(path: Path, kind: str) -> None:
    region, out = PmemRegion.open(path), bytearray(4 * PAGE_SIZE)
    bad = address(region) + 2 * PAGE_SIZE + 100
    region.fault_map.add(bad, 64)
    i = {
        "ubuf": lambda: IovIter.ubuf(READ, out),
        "kvec": lambda: IovIter.kvec(READ, [out]),
        "bvec": lambda: IovIter.bvec(READ, [(out, 0, len(out))]),
    }.get(kind, lambda: None)()
    # From an aligned source words are copied: the last word before the poison is the last one copied.
    good = PAGE_SIZE + 96
    copied, remaining, fault = region.read_into(PAGE_SIZE, out if i is None else i)
    assert (copied, remaining) == (good, len(out) - good)
    assert fault is not None
    assert (fault.side, fault.offset, fault.address, fault.length) == ("source", good, bad, 64)
    assert (fault.cause, fault.origin) == ("poison", "map")
    assert out == FILL[PAGE_SIZE : PAGE_SIZE + good] + bytes(len(out) - good)
    if i is not None:
        assert i.count == len(out) - good
    assert region.read_into(2 * PAGE_SIZE + 164, bytearray(100)).remaining == 0


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", [None, *TARGETS])
def test_a_truncated_file_is_read_to_its_end_and_further_once_it_grows(path: Path, kind: str | None) -> None:
    region = PmemRegion.open(path)
    with path.open("r+b") as file:
        file.truncate(3 * PAGE_SIZE)
    if kind == "discard":
        # DISCARD does not read.
        assert region.read_into(0, IovIter.discard(READ, SIZE)) == McResult(SIZE, 0, None)
        return
    subject = None if kind is None else build(kind, False, Shape((4 * PAGE_SIZE,)))
    out = bytearray(4 * PAGE_SIZE)
    good, end = PAGE_SIZE, address(region) + 3 * PAGE_SIZE
    for first in (True, False):
        target = subject.real if subject else out
        copied, remaining, fault = region.read_into(2 * PAGE_SIZE if first else 3 * PAGE_SIZE, target)
        assert (copied, remaining) == (good if first else 0, (3 if first or subject else 4) * PAGE_SIZE)
        assert fault is not None
        assert (fault.side, fault.offset, fault.address) == ("source", copied, end)
        assert (fault.cause, fault.origin == "map") == ("gone", False)
        assert len(region.fault_map) == 0
    os.truncate(path, SIZE)
    assert region.read_into(0, bytearray(SIZE)).remaining == 0
    if subject:
        assert subject.oracle.fill(FILL[2 * PAGE_SIZE : 3 * PAGE_SIZE]) == good
        subject.oracle.settle(state_of(subject.real))
        subject.check()
    else:
        assert out == FILL[2 * PAGE_SIZE : 3 * PAGE_SIZE] + bytes(3 * PAGE_SIZE)


@pytest.mark.usefixtures("way")
def test_a_bad_destination_is_not_added_to_the_regions_map(path: Path) -> None:
    region = PmemRegion.open(path)
    with testing.truncated(4, keep=1) as memory:
        copied, remaining, fault = region.read_into(0, memory.buffer)
    assert (copied, remaining) == (PAGE_SIZE, 3 * PAGE_SIZE)
    assert fault is not None
    assert (fault.side, fault.cause) == ("destination", "gone")
    assert len(region.fault_map) == 0


def test_a_source_iterator_is_refused_as_a_destination(path: Path) -> None:
    i = IovIter.ubuf(WRITE, bytes(100))
    with pytest.raises(ValueError, match=r"^read_into:"):
        PmemRegion.open(path).read_into(0, i)
    assert (i.count, i.fault) == (100, None)
