"""A copy with a FaultMap stops where the kernel's machine-check-safe copy would stop if the bytes in the map failed.

The kernel copies byte by byte until the source is aligned to 8, then word by word, then the rest byte by byte. If the
source of a word fails, the whole word is not copied; if its destination fails, the word is retried byte by byte. This
starts again in every segment of the destination.
"""

from __future__ import annotations

import mmap
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    FaultMap,
    IovIter,
    PipeRing,
    UserRange,
    copy_to_iter_mcsafe,
    fault_handler,
    memcpy_mcsafe,
)
from support.kinds import BUILDERS, Shape, build, state_of

if TYPE_CHECKING:
    from support.oracle import Oracle

FOR_EVER = 1 << 20
Touch = Callable[[int, int], bool]


class Stop(NamedTuple):
    copied: int
    side: str | None


def careful(src: int, dst: int, n: int, unreadable: Touch, unwritable: Touch) -> Stop:
    """A model of the kernel's copy of one chunk: it reads a unit, then writes it."""
    done = 0

    def bytewise(end: int) -> str | None:
        nonlocal done
        while done < end:
            if unreadable(src + done, 1):
                return "source"
            if unwritable(dst + done, 1):
                return "destination"
            done += 1
        return None

    if n >= 8:
        side = bytewise(-src % 8)
        if side:
            return Stop(done, side)
        while n - done >= 8:
            if unreadable(src + done, 8):
                return Stop(done, "source")
            if unwritable(dst + done, 8):
                side = bytewise(n)
                return Stop(done, side)
            done += 8
    side = bytewise(n)
    return Stop(done, side)


def careful_chunks(src: int, chunks: list[tuple[int, int]], unreadable: Touch, unwritable: Touch) -> Stop:
    done = 0
    for address, length in chunks:
        copied, side = careful(src + done, address, length, unreadable, unwritable)
        done += copied
        if side:
            return Stop(done, side)
    return Stop(done, None)


def chunks_of(oracle: Oracle, nbytes: int, spare: int) -> list[tuple[int, int]]:
    """The chunks of a copy: whole segments, or their pages for kinds over pages."""
    if oracle.kind == "pipe":
        pieces = [(0, length) for length in (spare, *[PAGE_SIZE] * (nbytes // PAGE_SIZE + 1))]
    elif oracle.kind in ("bvec", "xarray", "folioq"):
        pieces = [(page.address, page.length) for piece in oracle.clipped() for page in piece.pages()]
    else:
        pieces = [(piece.address, piece.length) for piece in oracle.clipped()]
    found, left = [], nbytes
    for address, length in pieces:
        found.append((address, min(length, left)))
        left -= found[-1][1]
    return found


def touch(ranges: FaultMap, access: str) -> Touch:
    known = [(found.start, found.start + found.length) for found in ranges if found.access in (access, "both")]
    return lambda address, width: any(start < address + width and address < end for start, end in known)


def lines(npages: int, seed: int = 0) -> memoryview:
    """Page-aligned memory with random bytes other than 0xff."""
    view = memoryview(mmap.mmap(-1, npages * PAGE_SIZE))
    view[:] = random.Random(seed).randbytes(len(view)).replace(b"\xff", b"\x7f")
    return view


def address_of(view: memoryview) -> int:
    return IovIter.ubuf(READ, view).ranges()[0].address


# Source modulo 64, destination modulo 8, length, offset of the first bad byte (of source and destination), bytes
# copied.
EXAMPLES = {
    "S1": (0, 0, 4096, 100, None, 96),
    "S2": (3, 0, 4096, 100, None, 93),
    "S2line": (3, 0, 4096, 61, None, 61),
    "S2line2": (3, 0, 4096, 125, None, 125),
    "S4": (3, 0, 7, 4, None, 4),
    "S5": (5, 0, 8, 5, None, 5),
    "S6": (5, 0, 8, 2, None, 2),
    "S7": (0, 0, 20, 18, None, 18),
    "S8": (0, 0, 20, 12, None, 8),
    "S9": (3, 0, 4096, 4093, None, 4093),
    "W1": (0, 3, 4096, None, 100, 100),
    "W2": (3, 0, 4096, None, 100, 100),
}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
@pytest.mark.parametrize("raw", [False, True])
def test_worked_examples(example: tuple[int, int, int, int | None, int | None, int], raw: bool) -> None:
    source_at, target_at, n, bad_source, bad_target, copied = example
    memory, blank = lines(4), b"\xff" * (n + 64)
    src, dst = memory[source_at:][:n], memory[2 * PAGE_SIZE - 64 + target_at :][: n + 64]
    dst[:] = blank
    ranges = FaultMap()
    if bad_source is not None:
        ranges.add(address_of(src) + bad_source, FOR_EVER, "read")
    if bad_target is not None:
        ranges.add(address_of(dst) + bad_target, FOR_EVER, "write")
    side = "source" if bad_target is None else "destination"
    model = careful(address_of(src), address_of(dst), n, touch(ranges, "read"), touch(ranges, "write"))
    assert model == (copied, side)
    before = fault_handler.status().recovered
    if raw:
        target, origin = UserRange(address_of(dst), n), UserRange(address_of(src), n)
        result = memcpy_mcsafe(target, origin, fault_map=ranges)
    else:
        result = memcpy_mcsafe(dst[:n], src, fault_map=ranges)
    assert result[:2] == (copied, n - copied)
    assert result.fault is not None
    assert (result.fault.side, result.fault.offset, result.fault.origin) == (side, copied, "map")
    assert [(result.fault.address, result.fault.length)] == [(found.start, found.length) for found in ranges]
    assert dst[:copied] == src[:copied]
    assert dst[copied:] == blank[copied:]
    assert fault_handler.status().recovered == before


VECTORS: dict[str, Callable[[list[memoryview]], IovIter]] = {
    "iovec": lambda parts: IovIter.iovec(READ, parts),
    "iovec ranges": lambda parts: IovIter.iovec(READ, [UserRange(address_of(part), len(part)) for part in parts]),
    "kvec": lambda parts: IovIter.kvec(READ, parts),
    "bvec": lambda parts: IovIter.bvec(READ, [(part, 0, len(part)) for part in parts]),
}


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("make", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize(
    ("lengths", "copied", "state"),
    [
        ([4096], 96, (4000, 96, 1)),
        ([10, 4086], 96, (4000, 86, 1)),
        ([64, 64, 3968], 96, (4000, 32, 2)),
        ([97, 3999], 100, (3996, 3, 1)),
    ],
)
def test_each_segment_begins_anew_at_its_own_source_address(
    make: Callable[[list[memoryview]], IovIter], lengths: list[int], copied: int, state: tuple[int, int, int]
) -> None:
    source, target = lines(1, 1), lines(len(lengths))
    parts = [target[index * PAGE_SIZE :][:length] for index, length in enumerate(lengths)]
    target[:] = b"\xff" * len(target)
    i = make(parts)
    ranges = FaultMap([(address_of(source) + 100, FOR_EVER)])
    assert copy_to_iter_mcsafe(source, i, fault_map=ranges) == copied
    assert (i.count, i.iov_offset, i.nr_segs) == state
    assert b"".join(parts) == bytes(source[:copied]) + b"\xff" * (4096 - copied)
    assert target.tobytes().count(b"\xff") == len(target) - copied
    assert i.fault is not None
    assert (i.fault.side, i.fault.offset, i.fault.origin) == ("source", copied, "map")
    assert copy_to_iter_mcsafe(source[copied:], i) == 4096 - copied
    assert b"".join(parts) == source


def test_one_page_five_hundred_and_twelve_ways_good_or_bad_on_either_side() -> None:
    """This is the self-test that the kernel once had for its copy."""
    buf, cases = lines(1), 0
    base = address_of(buf)
    numbers = bytes(k % 256 for k in range(512))
    for mode in ("none", "source", "destination"):
        for back in range(512):
            to, at = (2048 - back, 1024) if mode == "destination" else (2048, 1024 - back)
            bad = {"none": [], "source": [(base + 1024, FOR_EVER, "read")]}.get(
                mode, [(base + 2048, FOR_EVER, "write")]
            )
            buf[to : to + 512] = b"\xff" * 512
            buf[at : at + 512] = numbers
            ranges = FaultMap()
            for extent in bad:
                ranges.add(*extent)
            copied, remaining, fault = memcpy_mcsafe(buf[to : to + 512], buf[at : at + 512], fault_map=ranges)
            assert remaining == (0 if mode == "none" else 512 - back), (mode, back)
            assert copied + remaining == 512
            assert (fault is None) == (remaining == 0)
            assert buf[to : to + 512] == numbers[:copied] + b"\xff" * remaining
            cases += 1
    assert cases == 1536


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind != "kvec_readonly"])
def test_every_kind_stops_where_the_model_does(kind: str, seed: int) -> None:
    """Maps, alignments and shapes are random. Each copy continues where the last one stopped, with another map."""
    rng = random.Random(f"{kind} {seed}")
    lengths = tuple(rng.choice((0, 1, 7, 8, 9, 63, 200, 4096, 5000)) for _ in range(rng.randint(1, 7)))
    shape = Shape(lengths, lead=rng.choice((0, 1, 5, 64, 4090)), seed=rng.randrange(1000))
    subject = build(kind, False, shape)
    source = lines(10, seed)
    skip = rng.randrange(70)
    for _ in range(4):
        src = source[skip : skip + max(0, min(subject.real.count, 9 * PAGE_SIZE))]
        n, start = len(src), address_of(source) + skip
        ranges = FaultMap()
        for _ in range(rng.choice((0, 1, 1, 3))):
            ranges.add(start + rng.randrange(-20, n + 20), rng.choice((1, 3, 64, 512)), rng.choice(("read", "both")))
        for address, length in subject.real.ranges()[: rng.choice((0, 0, 3))]:
            access = rng.choice(("write", "both", "read"))
            ranges.add(address + rng.randrange(length), rng.choice((1, 3, 64)), access)
        spare = -subject.real.iov_offset % PAGE_SIZE if kind == "pipe" else 0
        unreadable, unwritable = touch(ranges, "read"), touch(ranges, "write")
        room = min(n, subject.oracle.room())
        chunks = [(start, 0)] if kind == "discard" else chunks_of(subject.oracle, room, spare)
        model = careful_chunks(start, chunks, unreadable, unwritable)
        wanted = room if kind == "discard" else model.copied
        assert copy_to_iter_mcsafe(src, subject.real, fault_map=ranges) == wanted
        assert subject.oracle.fill(bytes(src[:wanted])) == wanted
        subject.oracle.settle(state_of(subject.real))
        subject.check()
        fault = subject.real.fault
        assert (None if fault is None else fault.side) == model.side
        if fault is not None:
            assert (fault.offset, fault.origin) == (wanted, "map")
            assert (fault.address, fault.length) in [(found.start, found.length) for found in ranges]
        skip += rng.randrange(9)


def test_a_pipe_keeps_only_what_was_copied() -> None:
    source, ring = lines(4, 5), PipeRing(4)
    i = IovIter.pipe(READ, ring, 4 * PAGE_SIZE)
    ranges = FaultMap([(address_of(source) + PAGE_SIZE + 100, 1)])
    assert copy_to_iter_mcsafe(source, i, fault_map=ranges) == PAGE_SIZE + 96
    assert (i.count, ring.used) == (3 * PAGE_SIZE - 96, 2)
    ranges.clear(address_of(source), FOR_EVER)
    assert copy_to_iter_mcsafe(source[PAGE_SIZE + 96 :], i, fault_map=ranges) == 3 * PAGE_SIZE - 96
    assert ring.read() == source
