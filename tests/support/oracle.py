"""A naive model of an iov_iter, the specification of the compiled one. It is simple enough to be checked by reading.

An oracle works on a `Memory`, a copy of the real bytes by address, so that it never touches real memory. A call that
breaks a rule raises the exception that the real iterator documents, before anything has changed.
"""

from __future__ import annotations

import copy
import errno
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, Self

PAGE = 4096
MAX_RW = 0x7FFF_F000
MAX_COUNT = 2**64 - 1
NO_GAP_ALIGNMENT = 0xFFFF_FFFF


@dataclass(frozen=True)
class State:
    offset: int
    count: int
    nr_segs: int


class Piece(NamedTuple):
    """Consecutive bytes. `offset` is the offset of the first in the page by which its owner describes it."""

    address: int
    length: int
    offset: int = 0

    def skip(self, nbytes: int) -> Piece:
        return Piece(self.address + nbytes, self.length - nbytes, self.offset + nbytes)

    def pages(self) -> list[Piece]:
        """The same bytes, cut at every page boundary."""
        found, rest = [], self
        while rest.length:
            part = min(rest.length, PAGE - rest.offset % PAGE)
            found.append(Piece(rest.address, part, rest.offset))
            rest = rest.skip(part)
        return found


class Span(NamedTuple):
    """The answer of a page getter: the addresses of the pages, the offset of the first byte in the first, and the
    number of bytes.
    """

    pages: tuple[int, ...] = ()
    offset0: int = 0
    nbytes: int = 0


class Bytes(Protocol):
    def read(self, address: int, length: int) -> bytes: ...
    def write(self, address: int, data: bytes) -> None: ...


@dataclass
class Memory:
    base: int
    content: bytearray

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.content[address - self.base :][:length])

    def write(self, address: int, data: bytes) -> None:
        assert self.base <= address <= address + len(data) <= self.base + len(self.content)
        self.content[address - self.base : address - self.base + len(data)] = data


def ceil_pages(nbytes: int) -> int:
    return (nbytes + PAGE - 1) // PAGE


def need(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def list_pages(pieces: list[Piece], size: int, maxpages: int) -> Span:
    """The first `size` bytes, or as many of them as lie in `maxpages` pages without a gap inside a page."""
    pages: list[Piece] = []
    nbytes = 0
    for page in (page for piece in pieces for page in piece.pages()):
        gap = pages and (page.offset % PAGE or (pages[-1].offset + pages[-1].length) % PAGE)
        if gap or len(pages) == maxpages or nbytes == size:
            break
        pages.append(page)
        nbytes += min(page.length, size - nbytes)
    if not nbytes:
        return Span()
    return Span(tuple(p.address - p.offset % PAGE for p in pages), pages[0].offset % PAGE, nbytes)


class Oracle(ABC):
    """The behaviour that all kinds share. The subclasses define where the bytes are and how the position moves."""

    kind: ClassVar[str]
    nr_segs: int = 0

    def __init__(self, memory: Bytes, source: bool, count: int, *, writable: bool = True) -> None:
        self.memory, self.source, self.count, self.writable = memory, source, count, writable
        self.offset = 0

    @property
    def state(self) -> State:
        return State(self.offset, self.count, self.nr_segs)

    @abstractmethod
    def rest(self) -> list[Piece]:
        """All memory from the position on, including empty segments, not clipped to count."""

    @abstractmethod
    def take(self, nbytes: int) -> list[Piece]:
        """Moves over this many bytes, or as many as there are, as a copy does, and returns them."""

    def clipped(self) -> list[Piece]:
        left, found = self.count, []
        for piece in self.rest():
            found.append(piece._replace(length=min(piece.length, left)))
            left -= found[-1].length
        return found

    def room(self) -> int:
        """The number of bytes that a copy can move from here."""
        return sum(piece.length for piece in self.clipped())

    def ranges(self) -> list[tuple[int, int]]:
        return [(piece.address, piece.length) for piece in self.clipped() if piece.length]

    def copy_to(self, data: bytes) -> int:
        need(not self.source, "a source cannot be filled")
        return self.fill(data)

    def fill(self, data: bytes) -> int:
        done = 0
        for piece in self.take(min(len(data), self.count)):
            self.memory.write(piece.address, data[done : done + piece.length])
            done += piece.length
        return done

    def copy_from(self, nbytes: int) -> bytes:
        need(self.source, "a destination cannot be drained")
        return b"".join(self.memory.read(p.address, p.length) for p in self.take(min(nbytes, self.count)))

    def copy_to_full(self, data: bytes) -> bool:
        copied = self.copy_to(data)
        if copied < len(data):
            self.revert(copied)
        return copied == len(data)

    def copy_from_full(self, nbytes: int) -> tuple[bool, bytes]:
        data = self.copy_from(nbytes)
        if len(data) < nbytes:
            self.revert(len(data))
        return len(data) == nbytes, data

    def copy_page_to(self, page: bytearray, offset: int, nbytes: int) -> int:
        return self.copy_to(bytes(page[offset : offset + nbytes]))

    def zero(self, nbytes: int | None = None) -> int:
        if not self.writable:
            raise BufferError("read-only memory")
        return self.fill(bytes(self.count if nbytes is None else min(nbytes, self.count)))

    def settle(self, seen: State) -> None:
        """Takes one of several equivalent positions. In a copy between two iterators, the side that has more memory may
        or may not have stepped over an empty segment; both are right.
        """
        assert seen == self.state, "this kind has no two of them"

    def advance(self, nbytes: int) -> None:
        self.take(min(nbytes, self.count))

    @property
    @abstractmethod
    def behind(self) -> int:
        """The number of bytes that it can be moved back."""

    def revert(self, nbytes: int) -> None:
        need(nbytes <= MAX_RW, "more than one call can have moved")
        need(nbytes <= self.behind, "before the start")
        if nbytes:
            self.step_back(nbytes)
            self.count += nbytes

    def step_back(self, nbytes: int) -> None:
        self.offset -= nbytes

    def truncate(self, count: int) -> None:
        self.count = min(self.count, count)

    def reexpand(self, count: int) -> None:
        self.count = count

    def restore(self, state: State) -> None:  # noqa: ARG002
        raise ValueError("this kind has no saved states")

    def dup(self) -> Self:
        return copy.copy(self)

    @property
    def where(self) -> int:
        """The number whose low bits decide the alignment, for kinds over one contiguous range."""
        return self.offset

    def single_seg_count(self) -> int:
        return self.count

    def alignment(self) -> int:
        return self.where | self.count

    def is_aligned(self, addr_mask: int, len_mask: int) -> bool:
        return not (self.count & len_mask or self.where & addr_mask)

    def gap_alignment(self) -> int:
        return NO_GAP_ALIGNMENT

    def npages(self, maxpages: int) -> int:
        return min(ceil_pages(self.where % PAGE + self.count), maxpages) if self.count else 0

    def fault_in(self, nbytes: int) -> int:  # noqa: ARG002 - the answer for memory that cannot fault
        return 0

    def get_pages(self, maxsize: int, maxpages: int) -> Span:
        size = min(maxsize, self.count, MAX_RW)
        return self.get(size, maxpages) if size and maxpages else Span()

    def extract_pages(self, maxsize: int, maxpages: int) -> Span:
        size = min(maxsize, self.count, MAX_RW)
        return self.extract(size, maxpages) if size else Span()

    def get(self, size: int, maxpages: int) -> Span:  # noqa: ARG002
        raise OSError(errno.EFAULT, "no pages to hold")

    extract = get

    def list_rest(self, size: int, maxpages: int) -> Span:
        span = list_pages(self.rest(), size, maxpages)
        self.advance(span.nbytes)
        return span

    def each_range(self, nbytes: int) -> list[bytes]:
        """The ranges that for_each_range passes to its callback."""
        pieces = self.rest()
        need(nbytes <= sum(piece.length for piece in pieces), "beyond the segments")
        found = []
        for piece in pieces:
            for part in self.parts(piece._replace(length=min(piece.length, nbytes))):
                found.append(self.memory.read(part.address, part.length))
                nbytes -= part.length
        return found

    def parts(self, piece: Piece) -> list[Piece]:
        return piece.pages()


class User:
    """A mixin for user memory, which may fault: fault_in does something for it only, and for_each_range refuses it."""

    count: int

    def fault_in(self, nbytes: int) -> int:
        return nbytes - min(nbytes, self.count)

    def each_range(self, nbytes: int) -> list[bytes]:
        if nbytes:
            raise OSError(errno.EINVAL, "user memory")
        return []


class Ubuf(User, Oracle):
    kind = "ubuf"
    nr_segs = 1

    def __init__(self, memory: Bytes, source: bool, buffer: Piece, count: int, *, writable: bool = True) -> None:
        super().__init__(memory, source, count, writable=writable)
        self.buffer = buffer

    @property
    def where(self) -> int:
        return self.buffer.address + self.offset

    def rest(self) -> list[Piece]:
        return [self.buffer._replace(offset=self.buffer.address).skip(self.offset)]

    def take(self, nbytes: int) -> list[Piece]:
        taken = Piece(self.where, nbytes)
        self.offset += nbytes
        self.count -= nbytes
        return [taken]

    @property
    def behind(self) -> int:
        return self.offset

    def reexpand(self, count: int) -> None:
        need(count <= self.buffer.length - self.offset, "beyond the buffer")
        self.count = count

    def restore(self, state: State) -> None:
        need(state.offset + state.count <= self.buffer.length, "beyond the buffer")
        self.offset, self.count = state.offset, state.count

    def alignment(self) -> int:
        return self.where | self.count if self.count else 0

    def gap_alignment(self) -> int:
        return 0

    get = extract = Oracle.list_rest


class Vector(Oracle):
    """IOVEC, KVEC and BVEC: a list of segments, a current one, and an offset in it."""

    def __init__(
        self, memory: Bytes, source: bool, segments: list[Piece], count: int, *, writable: bool = True
    ) -> None:
        super().__init__(memory, source, count, writable=writable)
        self.segments, self.index = segments, 0

    @property
    def nr_segs(self) -> int:  # type: ignore[override]
        return len(self.segments) - self.index

    def rest(self) -> list[Piece]:
        pieces = self.segments[self.index :]
        return [pieces[0].skip(self.offset), *pieces[1:]] if pieces else []

    def take(self, nbytes: int) -> list[Piece]:
        """The position leaves a segment together with its last byte. It passes empty segments behind that only if more
        is wanted.
        """
        taken = []
        while nbytes and self.index < len(self.segments):
            here = self.segments[self.index].skip(self.offset)
            part = min(here.length, nbytes)
            taken.append(Piece(here.address, part))
            nbytes -= part
            self.offset += part
            self.count -= part
            if part == here.length:
                self.index, self.offset = self.index + 1, 0
        return taken

    def advance(self, nbytes: int) -> None:
        """Unlike a copy, it also passes every empty or finished segment. If nothing is left it does nothing."""
        if self.count:
            self.take(min(nbytes, self.count))
            while self.step_over():
                pass

    def step_over(self) -> bool:
        """Moves to the next segment if nothing of the current one is left."""
        finished = self.index < len(self.segments) and self.offset == self.segments[self.index].length
        if finished:
            self.index, self.offset = self.index + 1, 0
        return finished

    def settle(self, seen: State) -> None:
        while self.state != seen and self.step_over():
            pass

    @property
    def behind(self) -> int:
        return self.offset + sum(segment.length for segment in self.segments[: self.index])

    def step_back(self, nbytes: int) -> None:
        while nbytes > self.offset:
            nbytes -= self.offset
            self.index -= 1
            self.offset = self.segments[self.index].length
        self.offset -= nbytes

    def reexpand(self, count: int) -> None:
        need(count <= sum(piece.length for piece in self.rest()), "beyond the segments")
        self.count = count

    def restore(self, state: State) -> None:
        index = len(self.segments) - state.nr_segs
        need(index >= 0, "a longer vector")
        left = sum(segment.length for segment in self.segments[index:])
        here = self.segments[index].length if state.nr_segs else 0
        need(state.offset <= here and state.offset + state.count <= left, "a different vector")
        self.index, self.offset, self.count = index, state.offset, state.count

    def dup(self) -> Self:
        """The duplicate owns only what remains of the vector: it cannot go back further."""
        twin = copy.copy(self)
        twin.segments, twin.index = self.segments[self.index :], 0
        return twin

    def single_seg_count(self) -> int:
        return min(self.count, self.rest()[0].length) if self.nr_segs > 1 else self.count

    def needed(self) -> list[Piece]:
        """The segments that a query examines: the current one, and those that count reaches."""
        left, found = self.count, []
        for piece in self.clipped():
            found.append(piece)
            left -= piece.length
            if not left:
                break
        return found

    def place(self, piece: Piece) -> int:
        return piece.address

    def alignment(self) -> int:
        result = 0
        for piece, whole in zip(self.needed(), self.rest(), strict=False):
            if whole.length:
                result |= self.place(piece) | piece.length
        return result

    def is_aligned(self, addr_mask: int, len_mask: int) -> bool:
        return not any(self.place(p) & addr_mask or p.length & len_mask for p in self.needed())

    def npages(self, maxpages: int) -> int:
        touched = sum(ceil_pages(self.place(p) % PAGE + p.length) for p in self.needed() if p.length)
        return min(touched, maxpages) if self.count else 0

    def extract(self, size: int, maxpages: int) -> Span:
        first = next(piece for piece in self.rest() if piece.length)
        span = list_pages([first._replace(offset=first.address)], size, maxpages)
        self.advance(span.nbytes)
        return span


class Iovec(User, Vector):
    kind = "iovec"
    get = Vector.extract

    def gap_alignment(self) -> int:
        """It uses whole segments, from the current one on, wherever in that the position is."""
        result, end, left = 0, 0, self.count
        for segment in (segment for segment in self.segments[self.index :] if segment.length):
            if end:
                result |= end | segment.address
            end = segment.address + segment.length
            if left <= segment.length:
                break
            left -= segment.length
        return result


class Kvec(Vector):
    kind = "kvec"

    def parts(self, piece: Piece) -> list[Piece]:
        return [piece] if piece.length else []


class Bvec(Vector):
    """Its elements are described by an offset in a page instead of an address. The queries do not skip empty
    elements.
    """

    kind = "bvec"

    def place(self, piece: Piece) -> int:
        return piece.offset

    def alignment(self) -> int:
        result = 0
        for piece in self.needed():
            result |= piece.offset | piece.length
        return result

    def npages(self, maxpages: int) -> int:
        touched = sum(ceil_pages(piece.offset % PAGE + piece.length) for piece in self.needed())
        return min(touched, maxpages) if self.count else 0

    def get(self, size: int, maxpages: int) -> Span:
        span = list_pages([next(piece for piece in self.rest() if piece.length)], size, maxpages)
        self.advance(span.nbytes)
        return span

    extract = Oracle.list_rest


def copy_iter(dst: Oracle, src: Oracle, nbytes: int | None = None) -> int:
    need(src.source and not dst.source, "wrong direction")
    wanted = min(dst.count, src.count) if nbytes is None else nbytes
    return dst.fill(src.copy_from(min(wanted, dst.room(), src.room())))
