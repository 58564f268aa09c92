"""The naive models of the kinds over structures of pages, and of the kind without memory."""

from __future__ import annotations

import errno

from support.oracle import MAX_COUNT, PAGE, Bytes, Oracle, Piece, Vector, need


class Folioq(Vector):
    """A vector of folios without a segment count. The queue may end before count does, and may grow."""

    kind = "folioq"
    nr_segs = 0

    def __init__(
        self, memory: Bytes, source: bool, folios: list[Piece], count: int, *, slot: int = 0, offset: int = 0
    ) -> None:
        super().__init__(memory, source, folios, count)
        self.index, self.offset = slot, offset
        self.start = super().behind

    @property
    def behind(self) -> int:
        return super().behind - self.start

    def advance(self, nbytes: int) -> None:
        need(min(nbytes, self.count) <= sum(piece.length for piece in self.rest()), "beyond the queue")
        super().advance(nbytes)

    reexpand = Oracle.reexpand
    restore = Oracle.restore
    dup = Oracle.dup

    def single_seg_count(self) -> int:
        """It is that of the whole folio, wherever in that the position is."""
        return min(self.segments[self.index].length, self.count) if self.index < len(self.segments) else 0

    alignment = Oracle.alignment
    is_aligned = Oracle.is_aligned
    npages = Oracle.npages

    get = extract = Oracle.list_rest


class Xarray(Oracle):
    kind = "xarray"

    def __init__(self, memory: Bytes, source: bool, pages: dict[int, int], start: int, count: int) -> None:
        super().__init__(memory, source, count)
        self.pages, self.start = pages, start

    @property
    def where(self) -> int:
        return self.start + self.offset

    def rest(self) -> list[Piece]:
        found, index, skip = [], self.where // PAGE, self.where % PAGE
        while index in self.pages:
            found.append(Piece(self.pages[index], PAGE).skip(skip))
            index, skip = index + 1, 0
        return found

    def take(self, nbytes: int) -> list[Piece]:
        taken, left = [], nbytes
        for piece in self.rest():
            taken.append(piece._replace(length=min(piece.length, left)))
            left -= taken[-1].length
        self.advance(nbytes - left)
        return taken

    def advance(self, nbytes: int) -> None:
        """It only adds to the position and does not look for holes."""
        nbytes = min(nbytes, self.count)
        self.offset += nbytes
        self.count -= nbytes

    @property
    def behind(self) -> int:
        return self.offset

    get = extract = Oracle.list_rest


class Discard(Oracle):
    kind = "discard"

    def rest(self) -> list[Piece]:
        return []

    def room(self) -> int:
        return self.count

    def take(self, nbytes: int) -> list[Piece]:
        self.count -= nbytes
        return []

    def fill(self, data: bytes) -> int:
        copied = min(len(data), self.count)
        self.count -= copied
        return copied

    def zero(self, nbytes: int | None = None) -> int:
        zeroed = self.count if nbytes is None else min(nbytes, self.count)
        self.count -= zeroed
        return zeroed

    @property
    def behind(self) -> int:
        """It has no start, so only the largest count limits it."""
        return MAX_COUNT - self.count

    def step_back(self, nbytes: int) -> None:
        pass

    def alignment(self) -> int:
        return 0

    def is_aligned(self, addr_mask: int, len_mask: int) -> bool:  # noqa: ARG002
        return True

    def npages(self, maxpages: int) -> int:  # noqa: ARG002
        return 0

    def each_range(self, nbytes: int) -> list[bytes]:
        if nbytes:
            raise OSError(errno.EINVAL, "no memory")
        return []
