"""Iterators over fixed addresses and over page-aligned memory, for tests of their queries."""

from iovec_rs import PAGE_SIZE, READ, FolioQueue, IovIter, PageSpan, PipeRing, UserRange
from iovec_rs import XArray as PageArray

from support.own_pages import OwnPages

NONE = PageSpan((), 0, 0)
EVERY_GAP = 0xFFFF_FFFF


def ubuf(address: int, length: int, count: int | None = None) -> IovIter:
    return IovIter.ubuf(READ, UserRange(address, length), count)


def iovec(*segments: tuple[int, int], count: int | None = None) -> IovIter:
    return IovIter.iovec(READ, [UserRange(*segment) for segment in segments], count)


class Pages(OwnPages):
    """Page-aligned memory, and iterators over it of the kinds that cannot run over a raw address."""

    def pages(self, *numbers: int) -> tuple[int, ...]:
        return tuple(self.address(number) for number in numbers)

    def kvec(self, *segments: tuple[int, int], count: int | None = None) -> IovIter:
        return IovIter.kvec(READ, [self[at : at + length] for at, length in segments], count)

    def bvec(self, *elements: tuple[int, int, int], count: int | None = None) -> IovIter:
        """Each element: the page it begins on, the offset in it, its length."""
        return IovIter.bvec(READ, [(self[n * PAGE_SIZE :], at, length) for n, at, length in elements], count)

    def xarray(self, start: int, count: int, *, holes: tuple[int, ...] = ()) -> IovIter:
        present = {n: self.page(n) for n in range(len(self.map) // PAGE_SIZE) if n not in holes}
        return IovIter.xarray(READ, PageArray(present), start, count)

    def folioq(self, *sizes: int, slot: int = 0, offset: int = 0, count: int) -> IovIter:
        """Folios of these sizes in pages, one after the other."""
        starts = [sum(sizes[:n]) * PAGE_SIZE for n in range(len(sizes))]
        folios = [self[start : start + size * PAGE_SIZE] for start, size in zip(starts, sizes, strict=True)]
        return IovIter.folioq(READ, FolioQueue(folios, slots_per_node=2), slot, offset, count)


def pipe(*, slots: int = 4, max_usage: int | None = None, count: int = 100_000) -> tuple[PipeRing, IovIter]:
    ring = PipeRing(slots, max_usage)
    return ring, IovIter.pipe(READ, ring, count)


def kernel_backed(pages: Pages) -> list[IovIter]:
    """Iterators over five bytes, of every kind that is not user memory."""
    return [
        pages.kvec((0, 3), (9, 2)),
        pages.bvec((0, 0, 3), (1, 9, 2)),
        pages.xarray(0, 5),
        pages.folioq(1, count=5),
        IovIter.discard(READ, 5),
        pipe(count=5)[1],
    ]
