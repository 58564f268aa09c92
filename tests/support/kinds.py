"""Makes a real iterator of every kind and its oracle, over the same memory, from one description.

All memory of a pair lies in one mapping. Memory that no segment covers is a red zone, which must not change.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import iovec_rs
from iovec_rs import READ, WRITE, IovIter, UserRange

from support import oracle as model
from support import oracle_pages as page_model
from support import oracle_pipe as pipe_model
from support.oracle import PAGE, Memory, Oracle, Piece
from support.own_pages import OwnPages

CAN_MERGE = 0x10
RING_SLOTS = 8
XARRAY_FIRST = 3


@dataclass(frozen=True)
class Shape:
    lengths: tuple[int, ...]
    lead: int = 0
    """The offset of the first byte in its page."""
    cut: int = 0
    """By how many bytes count is less than the data. If negative, count is more, for kinds that allow that."""
    extra: int = 0
    """XARRAY: the pages before a hole, if any. FOLIOQ: the folios before the first slot. PIPE: the slots in use."""
    seed: int = 0

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def count(self, available: int, *, checked: bool = True) -> int:
        return max(available - (max(self.cut, 0) if checked else self.cut), 0)


class AddressSpace(OwnPages):
    """Pages of random bytes, a copy of their expected contents, and the address that the next segment gets."""

    def __init__(self, npages: int, seed: int = 0) -> None:
        super().__init__(npages)
        self.map[:] = random.Random(seed).randbytes(npages * PAGE)
        self.memory = Memory(self.base, bytearray(self.map))
        self.cursor = self.base + PAGE

    def view(self, address: int, length: int) -> memoryview:
        start = address - self.base
        assert 0 <= start <= start + length <= len(self.map)
        return self[start : start + length]

    def place(self, length: int, gap: int) -> Piece:
        piece = Piece(self.cursor, length)
        self.cursor += length + gap
        return piece

    def place_on_page(self, length: int, offset: int = 0) -> Piece:
        """Places bytes at `offset` of a page that no other segment uses."""
        page = self.base + model.ceil_pages(self.cursor - self.base) * PAGE
        self.cursor = page + offset + length + 1
        return Piece(page + offset, length, offset)

    def intact(self) -> bool:
        return self.map[:] == self.memory.content


@dataclass
class Pair:
    kind: str
    real: IovIter
    oracle: Oracle
    space: AddressSpace
    ring: Any = None
    """PIPE: the real ring."""
    raw: bool = False
    """Whether some of its segments are bare address ranges."""
    keep: list[object] = field(default_factory=list)

    def check(self) -> None:
        """Checks that the state, every byte of memory, and the remaining memory are those of the oracle."""
        real, oracle = self.real, self.oracle
        assert state_of(real) == oracle.state
        assert len(real) == real.count
        assert real.kind == oracle.kind
        assert real.direction == (WRITE if oracle.source else READ)
        assert real.ranges() == oracle.ranges()
        assert self.space.intact(), "memory differs"
        if isinstance(oracle, pipe_model.Pipe):
            found = [(bytes(page[at:][:n]), at, n, flags) for page, at, n, flags in self.ring.slots]
            assert found == [(slot.content(), slot.offset, slot.length, slot.flags) for slot in oracle.ring.slots]
            assert self.ring.used == len(oracle.ring.slots)
            assert self.ring.full == (oracle.ring.free == 0)


def state_of(real: IovIter) -> model.State:
    return model.State(real.iov_offset, real.count, real.nr_segs)


def direction(source: bool) -> iovec_rs.Direction:
    return WRITE if source else READ


def _pages_for(shape: Shape) -> int:
    """Pages enough for any layout: each segment on pages of its own, with red zones around."""
    return 4 + sum(model.ceil_pages(length) + 2 for length in shape.lengths) + 2 * shape.extra


def ubuf(source: bool, shape: Shape) -> Pair:
    space = AddressSpace(_pages_for(shape), shape.seed)
    space.cursor += shape.lead
    piece = space.place(shape.total, 1)
    count = shape.count(shape.total)
    raw = shape.seed % 2 == 1
    buffer = UserRange(piece.address, piece.length) if raw else space.view(piece.address, piece.length)
    real = IovIter.ubuf(direction(source), buffer, count)
    return Pair("ubuf", real, model.Ubuf(space.memory, source, piece, count), space, raw=raw)


def _in_a_row(space: AddressSpace, shape: Shape) -> list[Piece]:
    space.cursor += shape.lead
    return [space.place(length, 1 + 13 * index % 67) for index, length in enumerate(shape.lengths)]


def iovec(source: bool, shape: Shape) -> Pair:
    """If the seed is odd, every other segment is a bare address range."""
    space = AddressSpace(_pages_for(shape), shape.seed)
    pieces = _in_a_row(space, shape)
    count = shape.count(shape.total)
    bare = [shape.seed % 2 == 1 and index % 2 == 0 for index in range(len(pieces))]
    segments = [
        UserRange(piece.address, piece.length) if is_bare else space.view(piece.address, piece.length)
        for piece, is_bare in zip(pieces, bare, strict=True)
    ]
    real = IovIter.iovec(direction(source), segments, count)
    return Pair("iovec", real, model.Iovec(space.memory, source, pieces, count), space, raw=any(bare))


def kvec(source: bool, shape: Shape, *, writable: bool = True) -> Pair:
    space = AddressSpace(_pages_for(shape), shape.seed)
    pieces = _in_a_row(space, shape)
    count = shape.count(shape.total)
    segments = [space.view(piece.address, piece.length) for piece in pieces]
    if not writable:
        segments = [segment.toreadonly() for segment in segments]
    real = IovIter.kvec(direction(source), segments, count)
    return Pair("kvec", real, model.Kvec(space.memory, source, pieces, count, writable=writable), space)


def kvec_readonly(source: bool, shape: Shape) -> Pair:
    return kvec(source, shape, writable=False)


def bvec(source: bool, shape: Shape) -> Pair:
    """Without a lead every element begins at its page's start, so that neighbours may join. Otherwise their offsets
    differ.
    """
    space = AddressSpace(_pages_for(shape), shape.seed)
    offsets = [(shape.lead + 911 * index) % PAGE if shape.lead else 0 for index in range(len(shape.lengths))]
    pieces = [space.place_on_page(length, offset) for length, offset in zip(shape.lengths, offsets, strict=True)]
    count = shape.count(shape.total)
    elements = [
        (space.view(piece.address - piece.offset, piece.offset + piece.length), piece.offset, piece.length)
        for piece in pieces
    ]
    real = IovIter.bvec(direction(source), elements, count)
    return Pair("bvec", real, model.Bvec(space.memory, source, pieces, count), space)


def xarray(source: bool, shape: Shape) -> Pair:
    """The pages lie in memory in reverse order, a red zone after each."""
    space = AddressSpace(4 + 2 * (model.ceil_pages(PAGE + shape.total) + 1), shape.seed)
    npages = model.ceil_pages(shape.lead % PAGE + shape.total)
    pages = {XARRAY_FIRST + index: space.place_on_page(PAGE).address for index in reversed(range(npages))}
    if shape.extra:
        pages.pop(XARRAY_FIRST + shape.extra, None)
    start = XARRAY_FIRST * PAGE + shape.lead % PAGE
    count = shape.count(shape.total, checked=False)
    array = iovec_rs.XArray({index: space.view(address, PAGE) for index, address in pages.items()})
    real = IovIter.xarray(direction(source), array, start, count)
    return Pair("xarray", real, page_model.Xarray(space.memory, source, pages, start, count), space, keep=[array])


def _folioq(source: bool, shape: Shape, sizes: list[int]) -> Pair:
    space = AddressSpace(_pages_for(shape), shape.seed)
    folios = [space.place_on_page(size) for size in sizes]
    offset = shape.lead % (sizes[shape.extra] + 1) if shape.extra < len(sizes) else 0
    available = sum(sizes[shape.extra :]) - offset
    count = shape.count(available, checked=False)
    queue = iovec_rs.FolioQueue([space.view(folio.address, folio.length) for folio in folios], slots_per_node=2)
    real = IovIter.folioq(direction(source), queue, shape.extra, offset, count)
    oracle = page_model.Folioq(space.memory, source, folios, count, slot=shape.extra, offset=offset)
    return Pair("folioq", real, oracle, space, keep=[queue])


def folioq(source: bool, shape: Shape) -> Pair:
    """Folios consist of whole pages, as in the kernel."""
    whole = [max(model.ceil_pages(length), 1) * PAGE for length in shape.lengths]
    return _folioq(source, shape, [PAGE] * shape.extra + whole)


def folioq_odd(source: bool, shape: Shape) -> Pair:
    return _folioq(source, shape, [33] * shape.extra + [max(length, 1) for length in shape.lengths])


def pipe(source: bool, shape: Shape) -> Pair:
    """Some slots have data already, and an ordinary pipe write may still append to the newest."""
    space = AddressSpace(1, shape.seed)
    max_usage = RING_SLOTS - shape.lead % 2
    ring = iovec_rs.PipeRing(RING_SLOTS, max_usage)
    held = random.Random(shape.seed).randbytes(max(shape.extra * PAGE - 96, 0))
    assert ring.write(held) == len(held)
    slots = [
        pipe_model.Slot(bytearray(held[at : at + PAGE]), 0, len(held[at : at + PAGE]), CAN_MERGE)
        for at in range(0, len(held), PAGE)
    ]
    count = shape.count(shape.total, checked=False)
    real = IovIter.pipe(direction(source), ring, count)
    oracle = pipe_model.Pipe(space.memory, pipe_model.Ring(max_usage, slots), count)
    return Pair("pipe", real, oracle, space, ring=ring)


def discard(source: bool, shape: Shape) -> Pair:
    space = AddressSpace(1, shape.seed)
    count = shape.count(shape.total, checked=False)
    real = IovIter.discard(direction(source), count)
    return Pair("discard", real, page_model.Discard(space.memory, source, count), space)


Builder = Callable[[bool, Shape], Pair]

BUILDERS: dict[str, Builder] = {
    "ubuf": ubuf,
    "iovec": iovec,
    "kvec": kvec,
    "kvec_readonly": kvec_readonly,
    "bvec": bvec,
    "xarray": xarray,
    "folioq": folioq,
    "folioq_odd": folioq_odd,
    "pipe": pipe,
    "discard": discard,
}

DESTINATION_ONLY = ("pipe", "discard")
SOURCE_ONLY = ("kvec_readonly",)

CASES: list[tuple[str, bool]] = [
    (kind, source)
    for kind in BUILDERS
    for source in (False, True)
    if kind not in (DESTINATION_ONLY if source else SOURCE_ONLY)
]
"""Every kind, in every direction that it supports."""


def build(kind: str, source: bool, shape: Shape) -> Pair:
    pair = BUILDERS[kind](source, shape)
    pair.check()
    return pair
