"""The figures that the READMEs, pages of docs/ and the page of results show, taken from the records."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benches.records import Record

BEGIN = "<!-- figures: python -m benches.summary writes them -->"
END = "<!-- end of figures -->"
NONE = "not measured"

GATHER = r"vectored: gather \(copy_from_iter\), 65536 KiB in segments of {} B"
SCATTER = r"vectored: scatter \(copy_to_iter\), 65536 KiB in segments of {} B"
CALL = r"call: copy_(to|from)_iter, {} B"
FLAT = r"flat, {} B, {} source \+ 0, cold destination \+ 0"
TENSORS = r"durable: 256 tensors of 64 KiB to a tmpfs file, copy_from_iter_flushcache"

PUBLISH = tuple(f"log: publish {size} B on shared memory" for size in (4096, 1048576))
CONSUME = tuple(f"log: consume {size} B from shared memory" for size in (4096, 1048576))


class Figure(NamedTuple):
    """A ratio for each of `titles`, patterns of all of a table's title; a span where several rows fit."""

    job: str
    rival: str
    titles: tuple[str, ...]

    def of(self, record: Record) -> str:
        each = [self._one(record, title) for title in self.titles]
        return NONE if set(each) == {NONE} else "; ".join(each)

    def _one(self, record: Record, title: str) -> str:
        tables = [table for table in record.tables if re.fullmatch(title, table.title)]
        ratios = [row.ratio for table in tables for row in table.rows if row.name == self.rival]
        found = [ratio for ratio in ratios if ratio is not None]
        return span(found) if found else NONE


FIGURES = [
    Figure(
        "64 MiB gathered from shuffled segments of 64 B; of 4 KiB",
        "out[p:q] = view",
        (GATHER.format(64), GATHER.format(4096)),
    ),
    Figure(
        "64 MiB scattered to shuffled segments of 64 B; of 4 KiB",
        "view[:] = src[p:q]",
        (SCATTER.format(64), SCATTER.format(4096)),
    ),
    Figure(
        "durable: 256 tensors of 64 KiB into a mapped file, beside copies that are not",
        "ctypes.memmove each",
        (TENSORS,),
    ),
    Figure("one copy of 64 B; of 4 KiB", "mv[:] = other", (CALL.format(64), CALL.format(4096))),
    Figure(
        "16 KiB within a bytearray, at nine distances",
        "mv[:] = mv",
        (r"cliff: flat copy of 16384 B of bytearray through a ubuf iterator",),
    ),
    Figure("64 MiB gathered from shuffled segments of 64 B", 'b"".join(views)', (GATHER.format(64),)),
    Figure("64 MiB gathered from shuffled segments of 1 MiB", "out[p:q] = view", (GATHER.format(1048576),)),
    Figure("64 MiB scattered to shuffled segments of 1 MiB", "view[:] = src[p:q]", (SCATTER.format(1048576),)),
    Figure("one copy of 64 B", "np.copyto", (CALL.format(64),)),
    Figure("one copy of 64 B", "ctypes.memmove", (CALL.format(64),)),
    Figure(
        "64 KiB; 1 MiB within a bytearray, at nine distances",
        "mv[:] = mv",
        tuple(rf"cliff: flat copy of {size} B of bytearray through a ubuf iterator" for size in (65536, 1048576)),
    ),
    Figure(
        "2 KiB; 64 KiB within a mapping, at nine distances",
        "mv[:] = mv",
        tuple(rf"cliff: flat copy of {size} B of mmap through a ubuf iterator" for size in (2048, 65536)),
    ),
    Figure(
        "durable, cold: 1 MiB; 1 GiB, beside a copy that is not",
        "mv[:] = mv",
        tuple(rf"durable: flat, {size} KiB, memcpy_flushcache" for size in (1024, 1048576)),
    ),
    Figure(
        "durable, native: 64 B; 4 KiB",
        "pmem_memcpy_persist",
        (FLAT.format(64, "hot"), FLAT.format(4096, "hot")),
    ),
    Figure(
        "durable, native, cold: 64 KiB; 1 MiB; 1 GiB",
        "pmem_memcpy_persist",
        tuple(FLAT.format(size, "cold") for size in (65536, 1048576, 1073741824)),
    ),
    Figure("publish 4 KiB; 1 MiB on shared memory", "d[:] = s, clflush loop", PUBLISH),
    Figure("consume 4 KiB; 1 MiB from shared memory", "clflush loop, d[:] = s", CONSUME),
    Figure("1024 x 64 B to /dev/null", "os.writev", (r"io: 1024 x 64 B to /dev/null",)),
]

SIZES = (64, 4096, 65536, 1048576, 67108864)
RANGES = ("100000 ranges of 64 B", "10000 ranges of 4096 B", "1000 ranges of 65536 B")
SUMS = [
    *(
        Figure(
            "copy and sum 64 B; 4 KiB; 64 KiB; 1 MiB; 64 MiB",
            rival,
            tuple(rf"integrity: copy and sum {size} B" for size in SIZES),
        )
        for rival in ("copy_to_iter, no sum", "copy_to_iter, google_crc32c", "copy_to_iter, zlib.crc32")
    ),
    Figure(
        "100 000 ranges of 64 B; 10 000 of 4 KiB; 1000 of 64 KiB, packed",
        "ctypes.memmove loop",
        tuple(f"integrity: {ranges}" for ranges in RANGES),
    ),
]
LOG = [
    Figure(
        "append 64 B; 4 KiB; 64 KiB to a file on a disk",
        rival,
        tuple(rf"log: append {size} B \(page\)" for size in (64, 4096, 65536)),
    )
    for rival in ("PmemRegion.write, no header", "os.pwritev, crc32, os.fdatasync", "sqlite3, WAL, synchronous=FULL")
]
SLOT = [
    Figure(
        f"{call} 32 B; 4 KiB; 64 KiB; 1 MiB",
        rival,
        tuple(f"log: {call} {size} B {where} shared memory" for size in (32, 4096, 65536, 1048576)),
    )
    for call, where, rivals in (
        ("publish", "on", ("d[:] = s, flush_range", "d[:] = s, clflush loop")),
        ("consume", "from", ("flush_range, d[:] = s", "clflush loop, d[:] = s")),
    )
    for rival in rivals
]

PAGES = {
    "README.md": FIGURES[:5],
    "benches/README.md": FIGURES,
    "docs/integrity.md": SUMS,
    "docs/log.md": LOG,
    "docs/slot.md": SLOT,
}
"""Which of them a page shows between its markers."""


def span(ratios: Sequence[float]) -> str:
    least, most = _short(min(ratios)), _short(max(ratios))
    return least if least == most else f"{least} to {most}"


def _short(ratio: float) -> str:
    return f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" if ratio >= 2 else f"{ratio:.2f}"


def about(record: Record) -> str:
    """The machine's name, and what its host line says that a reader has to know."""
    facts = dict(part.split(" ", 1) for part in record.host.split(", ") if " " in part)
    cpu = facts.get("cpu", "a CPU without a name").replace("(R)", "")
    return f"{record.machine}: {cpu}, {facts.get('libc')}, CPython {facts.get('python')}, commit {record.version}"


def renewed(page: str, text: str, known: Sequence[Record]) -> str:
    """The page's text with the figures of the newest record, which is the first. ValueError without markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page}: not between {BEGIN!r} and {END!r}")
    shown = [figure for figure in PAGES[page] if figure.of(known[0]) != NONE]
    lines = [f"| a rival's time divided by ours ({about(known[0])}) | rival | ratio |", "|---|---|---|"]
    lines += [f"| {figure.job} | `{figure.rival}` | {figure.of(known[0])} |" for figure in shown]
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}"
