"""The naive model of a pipe that an iterator fills: its ring of slots, and the cursor."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from typing import Self

from support.oracle import PAGE, Bytes, Oracle, Piece, Span, State, need


@dataclass(eq=False)
class Slot:
    page: bytearray
    offset: int
    length: int
    flags: int = 0
    own: bool = True

    def content(self) -> bytes:
        return bytes(self.page[self.offset : self.offset + self.length])


@dataclass
class Ring:
    max_usage: int
    slots: list[Slot] = field(default_factory=list)

    @property
    def free(self) -> int:
        return max(self.max_usage - len(self.slots), 0)


class Pipe(Oracle):
    """A cursor that appends to a ring. `last` is the end of the last bytes written, negative if they are in a page that
    belongs to others.
    """

    kind = "pipe"

    def __init__(self, memory: Bytes, ring: Ring, count: int) -> None:
        super().__init__(memory, False, count)
        self.ring, self.last = ring, 0
        self.mine: list[Slot] = []

    @property
    def state(self) -> State:
        return State(abs(self.last), self.count, 0)

    @property
    def spare(self) -> int:
        """The free bytes in the newest page, if the ring allocated it."""
        return PAGE - self.last if self.last > 0 else 0

    def rest(self) -> list[Piece]:
        return []

    def room(self) -> int:
        return min(self.count, self.spare + self.ring.free * PAGE)

    def take(self, nbytes: int) -> list[Piece]:
        need(not nbytes, "nothing lies ahead in a pipe")
        return []

    def push(self, slot: Slot) -> None:
        self.ring.slots.append(slot)
        self.mine.append(slot)

    def fill(self, data: bytes) -> int:
        copied = min(len(data), self.room())
        for done in range(copied):
            if not self.spare:
                self.push(Slot(bytearray(PAGE), 0, 0))
                self.last = 0
            slot = self.mine[-1]
            slot.page[self.last] = data[done]
            slot.length += 1
            self.last += 1
        self.count -= copied
        return copied

    def copy_page_to(self, page: bytearray, offset: int, nbytes: int) -> int:
        nbytes = min(nbytes, self.count)
        if not nbytes:
            return 0
        if offset and self.last == -offset and self.mine[-1].page is page:
            self.mine[-1].length += nbytes
        elif self.ring.free:
            self.push(Slot(page, offset, nbytes, own=False))
        else:
            return 0
        self.last = -(offset + nbytes)
        self.count -= nbytes
        return nbytes

    @property
    def behind(self) -> int:
        return sum(slot.length for slot in self.mine)

    def step_back(self, nbytes: int) -> None:
        while nbytes and nbytes >= self.mine[-1].length:
            nbytes -= self.mine[-1].length
            self.mine.pop()
            self.ring.slots.pop()
        self.last = 0
        if self.mine:
            slot = self.mine[-1]
            slot.length -= nbytes
            self.last = slot.offset + slot.length if slot.own else -(slot.offset + slot.length)

    def read(self, nbytes: int) -> bytes:
        """Reads data from the other end of the pipe."""
        content = b""
        while self.ring.slots and len(content) < nbytes:
            slot = self.ring.slots[0]
            part = min(slot.length, nbytes - len(content))
            content += slot.content()[:part]
            slot.offset, slot.length = slot.offset + part, slot.length - part
            if not slot.length:
                self.ring.slots.pop(0)
        self.mine = [slot for slot in self.mine if slot.length]
        if not self.mine:
            self.last = 0
        return content

    def dup(self) -> Self:
        raise ValueError("two writers of one position")

    @property
    def where(self) -> int:
        return self.last if self.count and self.spare else 0

    def npages(self, maxpages: int) -> int:
        return min(self.ring.free + bool(self.spare), maxpages) if self.count else 0

    def get(self, size: int, maxpages: int) -> Span:
        """Appends room for the data to the ring. Pages are identified by their index among the slots."""
        free = min(self.ring.free + bool(self.spare), maxpages)
        if not free:
            raise OSError(errno.EFAULT, "full")
        offset0 = self.last if self.spare else 0
        first = len(self.ring.slots) - bool(self.spare)
        nbytes = self.fill(bytes(min(size, free * PAGE - offset0)))
        return Span(tuple(range(first, len(self.ring.slots))), offset0, nbytes)
