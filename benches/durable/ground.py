"""What the durable jobs share: cold caches before every sample, and libpmem if it is there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iovec_rs._bench import libpmem
from iovec_rs._bench.harness import Case, Table, measure
from iovec_rs._bench.memory import Broom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from iovec_rs import IovIter

NAME = "durable"

FLUSHCACHE = "memcpy_flushcache"
GATHER = "copy_from_iter_flushcache"
SCATTER = "copy_to_iter_flushcache"
SLICE = "mv[:] = mv"
LIMIT = "limit: the fastest copy known"


@dataclass(slots=True)
class Ground:
    quick: bool
    library: libpmem.Libpmem | None = field(default_factory=libpmem.load)
    broom: Broom = field(init=False)

    def __post_init__(self) -> None:
        self.broom = Broom(1 << 20 if self.quick else 96 << 20)

    def sweep(self) -> None:
        """Drops what earlier contestants left in the caches. Their dirty lines would be written back on another's
        time, and what they read of the source would come for nothing."""
        self.broom.sweep()

    def rewinding(self, iterators: Sequence[IovIter]) -> Callable[[], None]:
        """Back to the start with all of them, and cold caches."""
        starts = [(i, i.save_state()) for i in iterators]

        def prepare() -> None:
            for i, start in starts:
                i.restore(start)
            self.sweep()

        return prepare

    def measure(self, case: Case) -> Table:
        table = measure(NAME, case)
        if self.library is None:
            table.notes.append(libpmem.ABSENT)
        return table
