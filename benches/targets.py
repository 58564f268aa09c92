"""What is wanted of every ratio the benches take, by family of machines: the one table that verdicts come from.

``python -m benches`` judges its tables by it, the summary of the records judges them anew, and what the native bench
prints, which knows no targets, goes through ``python -m benches.judge``.

A ratio is a rival's time divided by ours. Its verdict:

* `met`: the target is reached.
* `level`: it is not, but the two are as good as level, where the target is to be level.
* `physics`: it is not, but neither could anybody else reach it. Either a row of the same table does the least that the
  job takes, and even that is too slow, and ours takes at most 1.25 times as long; or the family of machines is known to
  allow less, and ours reaches what it allows.
* `MISSED`: none of these.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iovec_rs._bench.harness import Table

CHEAPEST = "the cheapest rival"
VERDICTS = ("met", "level", "physics", "MISSED")
NEAR = 1.25
"""How many times the least time still counts as the machine's own."""


class Allowed(NamedTuple):
    """What a family's machines allow instead, and what shows it."""

    ratio: float
    why: str


@dataclass(frozen=True, slots=True)
class Target:
    """`title` and `rival` are patterns of all of a table's title and of a row's name."""

    title: str
    rival: str
    ratio: float
    level: float | None = None
    least: str | None = None
    """The row of the same table that does no more than the job takes."""
    families: Mapping[str, Allowed] = field(default_factory=dict)


class Verdict(NamedTuple):
    target: str = ""
    word: str = ""
    note: str = ""


STREAMS_TOO = {"Intel": Allowed(1.15, "memcpy streams there, too")}
DRAIN = {"Intel": Allowed(1.0, "the fence waits 135 to 190 ns for the stores, whoever made them")}
LEAST_COPY = "limit: the fastest copy known"
LEAST_STORE = "the least: stores, a fence"
LEAST_SUM = "limit: one load, two stores, sum"
LEAST_PUBLISH = "the least: stores, sums, fences"
LEAST_CONSUME = "the least: evict, copy, sums"
SLICE = re.escape("mv[:] = mv")
EACH = "memcpy_flushcache each|libpmem each, by ctypes"
PERSIST = "pmem_memcpy_persist"
AT_WORDS = r"hot source \+ 0, cold destination \+ [04]"
BETWEEN_WORDS = r"(hot|cold) source \+ (1, cold destination \+ 0|0, cold destination \+ 1|3, cold destination \+ 17)"

TARGETS = [
    # One small copy through a prepared iterator, and flat copies.
    Target(r"call: copy_(to|from)_iter, (64|4096) B", re.escape("mv[:] = other"), 1 / 1.05),
    Target(r"call: copy_to_iter of .* mmap, 2048 B", re.escape("mv[:] = other"), 1 / 1.3),
    Target(r"call: copy_to_iter of .* mmap, 65536 B", re.escape("mv[:] = other"), 1.0, level=0.95),
    Target(r"call: copy_to_iter of (?!.* mmap).*, (64|4096) B", re.escape("mv[:] = other"), 1 / 1.05),
    Target(r"call: copy_(to|from)_iter, \d+ B", r"np\.copyto|ctypes\.memmove", 1.0),
    Target(r"cliff: .*", SLICE + ", on its cliff", 10.0),
    Target(r"cliff: .* of bytearray .*", SLICE, 0.97),
    Target(r"cliff: .* of (2048|4096|16384) B of mmap .*", SLICE, 1 / 1.3),
    Target(r"cliff: .* of mmap .*", SLICE, 1.0, level=0.97),
    # Gathered and scattered.
    Target(r"vectored: .* of 64 B", re.escape('b"".join(views)'), 6.0),
    Target(r"vectored: .* of 64 B", r"out\[p:q\] = view|view\[:\] = src\[p:q\]", 10.0),
    Target(r"vectored: .* of 4096 B", r"out\[p:q\] = view|view\[:\] = src\[p:q\]", 1.7),
    Target(r"vectored: .* of 1048576 B", r"out\[p:q\] = view|view\[:\] = src\[p:q\]", 1.0, level=0.97),
    Target(r"import: .*: list of bytes", CHEAPEST, 1 / 1.5),
    Target(r"import: .*: packed .*", CHEAPEST, 20.0),
    # Ready for bad memory.
    Target(r"fault: 64 B into .*", "copy_to_iter", 0.90),
    Target(r"fault: \d+ B into .*", "copy_to_iter", 0.98),
    Target(r"guard: a sum .*", "unguarded", 1.0, level=0.98),
    # Durable.
    Target(r"durable: flat, (131072|262144|1048576) KiB, .*", SLICE, 1.4, least=LEAST_COPY, families=STREAMS_TOO),
    Target(r"durable: flat, .*", SLICE, 1.4, least=LEAST_COPY),
    Target(r"durable: \d+ tensors .*", r"ctypes\.memmove each", 1.3),
    Target(r"durable: gather .* of 64 B", EACH, 8.0),
    Target(r"durable: gather .* of 512 B", EACH, 1.7),
    Target(r"durable: (gather|scatter) .* of 4096 B", EACH, 1.15),
    Target(r"durable: scatter .* of 64 B", EACH, 20.0),
    Target(r"durable: scatter .* of 512 B", EACH, 3.0),
    # Sums, ranges, logs, publications.
    Target(r"integrity: copy and sum (67108864 B|\d+ B, cold)", "copy_to_iter, no sum", 1 / 1.1, least=LEAST_SUM),
    # Cached, the limit's row is not the least: a loop that was compiled with its sum takes 0.9 of its time.
    Target(r"integrity: copy and sum 65536 B", "copy_to_iter, no sum", 1 / 1.5),
    Target(r"integrity: copy and sum .*", r"copy_to_iter, (google_crc32c|zlib\.crc32)", 1.0, level=0.97),
    Target(r"integrity: .* ranges of 64 B", r"ctypes\.memmove loop", 10.0),
    Target(r"integrity: .* ranges of 65536 B", r"ctypes\.memmove loop", 1.3),
    Target(r"log: append 64 B .*", "PmemRegion.write, no header", 1 / 1.3),
    Target(r"log: append 4096 B .*", "PmemRegion.write, no header", 1 / 1.1),
    Target(r"log: publish 32 B .*", r"d\[:\] = s, (flush_range|clflush loop)", 1.0, level=0.9),
    Target(r"log: publish 1048576 B .*", r"d\[:\] = s, flush_range", 1.0, level=0.9, least=LEAST_PUBLISH),
    Target(r"log: publish 1048576 B .*", r"d\[:\] = s, clflush loop", 20.0, least=LEAST_PUBLISH),
    Target(r"log: consume 32 B .*", r"(flush_range|clflush loop), d\[:\] = s", 1.0, level=0.9),
    Target(r"log: consume 1048576 B .*", r"flush_range, d\[:\] = s", 1.0, level=0.9, least=LEAST_CONSUME),
    Target(r"log: consume 1048576 B .*", r"clflush loop, d\[:\] = s", 5.0, least=LEAST_CONSUME),
    # Transfers.
    Target(r"io: 8 x .*", r"os\.writev", 1 / 1.05),
    Target(r"io: 1024 x .*", r"os\.writev", 3.0),
    Target(r"io: 20000 x .*", r"os\.writev loop", 5.0),
    Target(r"io: .* over a socketpair", "sendall of one buffer", 1.0, level=0.97),
    Target(r"io: .* on asyncio", r"asyncio: writer\.writelines, drain", 2.0),
    Target(r"io: .* on uvloop", r"uvloop: writer\.writelines, drain", 1.0, level=0.97),
    # Native: no Python between. Word-aligned is both ends at multiples of four.
    Target(rf"flat, [1-9]\d* B, {BETWEEN_WORDS}", PERSIST, 1.0, level=0.97, least=LEAST_STORE),
    Target(rf"flat, (8|16|32|64) B, {AT_WORDS}", PERSIST, 1.35, least=LEAST_STORE, families=DRAIN),
    Target(rf"flat, (256|512|1024|2048|4096) B, {AT_WORDS}", PERSIST, 0.98),
    Target(r"flat, (65536|\d{6,}) B, cold source \+ 0, cold destination \+ 0", PERSIST, 1.05, least=LEAST_COPY),
    Target(
        r"flat, \d{9,} B, cold source \+ 0, cold destination \+ 0",
        r"memcpy \+ write-back",
        1.8,
        least=LEAST_COPY,
        families={"Intel": Allowed(1.4, "memcpy streams there, too")},
    ),
    Target(
        r"flat, (65536|\d{6,}) B, cold source \+ 0, cold destination \+ 0",
        r"memcpy \+ write-back",
        1.8,
        least=LEAST_COPY,
    ),
    Target(r"gather, \d+ x \d+ B to \+ [1-9]\d*", f"{PERSIST} each", 1.0, level=0.97),
    Target(r"gather, \d+ x 64 B to \+ 0", f"{PERSIST} each", 8.0),
    Target(r"gather, \d+ x 512 B to \+ 0", f"{PERSIST} each", 1.7),
    Target(r"(gather|scatter), \d+ x 4096 B.*", f"{PERSIST} each", 1.15),
    Target(r"scatter, \d+ x 64 B", f"{PERSIST} each", 20.0),
    Target(r"scatter, \d+ x 512 B", f"{PERSIST} each", 3.0),
    Target(r"(gather|scatter), \d+ KiB x 64 B at .*", "the least loop", 1 / NEAR),
    Target(r"read behind, .*", "through the caches, read behind", 1.0, level=0.95),
]
"""The first whose patterns fit is the target of a row."""


def family(cpu: str) -> str:
    """Of the CPU's name as the kernel tells it."""
    return next((name for name in ("AMD", "Intel") if name in cpu), "unknown")


def target(title: str, name: str, is_cheapest: bool = False) -> Target | None:
    """What is wanted of a row."""
    for known in TARGETS:
        is_meant = is_cheapest if known.rival == CHEAPEST else re.fullmatch(known.rival, name)
        if is_meant and re.fullmatch(known.title, title):
            return known
    return None


def judge(wanted: Target, family: str, ratio: float, least: float | None) -> Verdict:
    """`least` is the ratio of the row that does the least the job takes, if the table has it."""
    text = f">={wanted.ratio:.2f}"
    if ratio >= wanted.ratio:
        return Verdict(text, "met")
    if wanted.level is not None and ratio >= wanted.level:
        return Verdict(text, "level")
    if least is not None and least > 0:
        allowed = ratio / least
        if allowed < wanted.ratio:
            word = "physics" if least * NEAR >= 1 else "MISSED"
            return Verdict(text, word, f"{allowed:.2f} is what {wanted.least!r} reaches")
        return Verdict(text, "MISSED")
    if family in wanted.families:
        allowed, why = wanted.families[family]
        return Verdict(text, "physics" if ratio >= allowed else "MISSED", f"{allowed:.2f} can be had: {why}")
    return Verdict(text, "MISSED")


class Taken(NamedTuple):
    """A row's figures, as far as they are judged."""

    name: str
    median: float
    ratio: float | None


def verdicts(title: str, rows: Sequence[Taken], family: str) -> list[Verdict]:
    """One for each row of a table; empty where nothing is wanted of it."""
    ratios = {row.name: row.ratio for row in rows if row.ratio is not None}
    cheapest = min((row.median for row in rows if row.ratio is not None), default=None)
    found = []
    for row in rows:
        wanted = target(title, row.name, row.median == cheapest) if row.ratio is not None else None
        if wanted is None or row.ratio is None:
            found.append(Verdict())
        else:
            found.append(judge(wanted, family, row.ratio, ratios.get(wanted.least or "")))
    return found


def apply(table: Table, cpu: str, is_quick: bool) -> None:
    """Targets, verdicts and what is to be said of them. What was too quick to be measured is not judged."""
    rows = [Taken(row.name.strip(), row.median, row.ratio) for row in table.rows]
    for row, found in zip(table.rows, verdicts(f"{table.bench}: {table.title}", rows, family(cpu)), strict=True):
        if found.target:
            row.target, row.verdict = found.target, "" if is_quick else found.word
            if found.note and not is_quick:
                table.notes.append(f"{row.name.strip()}: {found.note}.")
