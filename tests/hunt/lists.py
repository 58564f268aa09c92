"""Lists of bad blocks: written texts are read back, and mutated texts are refused with a reason or read as a whole.

If GNU ddrescue's tool is installed, it says what a mapfile means.
"""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

from iovec_rs import FaultMap

from hunt.finding import doing, expect
from hunt.refusals import FOREIGN_WORDS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

TEXTS = 200
"""The number of mutated texts in one round."""
SPICES = (
    *'0123456789 \n\t-+*/?#xX.{}[]",:',
    "\r\n",
    "\0",
    "\u0660",
    "\ud800",
    "18446744073709551616",
    "0x",
    "-1",
    "1e9",
    "null",
    "é",
)


def ranges(rng: random.Random, unit: int, most: int) -> list[tuple[int, int]]:
    """Random ranges in whole units, sorted, of which no two touch."""
    found, at = [], 0
    for _ in range(rng.randrange(12)):
        at += rng.randrange(1, 50)
        length = rng.choice((1, 2, 7, 100))
        if at + length > most:
            break
        found.append((at * unit, length * unit))
        at += length
    return found


def badblocks(rng: random.Random, known: list[tuple[int, int]]) -> str:
    lines = [f"{start // 512} {length // 512}" for start, length in known]
    return "\n".join(lines) + ("\n" if lines and rng.random() < 0.9 else "")


def ndctl(known: list[tuple[int, int]]) -> str:
    blocks = [{"offset": start // 512, "length": length // 512, "dimms": ["nmem0"]} for start, length in known]
    namespace = {"dev": "namespace0.0", "mode": "fsdax", "size": 1 << 30, "badblock_count": len(blocks)}
    return json.dumps([namespace | ({"badblocks": blocks} if blocks else {})])


READERS: dict[str, Callable[..., FaultMap]] = {
    name.removeprefix("from_"): getattr(FaultMap, name) for name in dir(FaultMap) if name.startswith("from_")
}
"""Every format, by its name."""


def written(known: FaultMap, form: str, size: int) -> str | None:
    """The text that the map writes in a format; None if it can only read it."""
    write = getattr(known, f"to_{form}", None)
    if write is None:
        return None
    text: str = write(size) if "size" in inspect.signature(write).parameters else write()
    return text


def _pairs(known: FaultMap) -> list[tuple[int, int]]:
    return [(each.start, each.length) for each in known]


def _listed(text: str, types: str) -> list[int] | None:
    """The blocks that ddrescuelog lists; None if it refuses the text."""
    command = ["ddrescuelog", "--block-size=1", f"--list-blocks={types}", "-"]
    done = subprocess.run(
        command, input=text.encode(errors="surrogatepass"), capture_output=True, timeout=60, check=False
    )
    return None if done.returncode else [int(line) for line in done.stdout.split()]


def round_trips(rng: random.Random) -> None:
    base = rng.choice((0, 0, 512, 1 << 40))
    known = ranges(rng, 512, 10_000)
    at_base = [(start + base, length) for start, length in known]
    doing("FaultMap.from_badblocks")
    expect(_pairs(FaultMap.from_badblocks(badblocks(rng, known), base=base)) == at_base, "badblocks read wrong", known)
    doing("FaultMap.from_ndctl")
    expect(_pairs(FaultMap.from_ndctl(ndctl(known), base=base)) == at_base, "ndctl's list read wrong", known)
    for form, read in READERS.items():
        there = FaultMap(known)
        text = written(there, form, sum(known[-1]) if known else 512)
        if text is not None:
            doing(f"FaultMap.to_{form}")
            expect(_pairs(read(text)) == known, f"what to_{form} wrote is read otherwise", known, text)
    unit = rng.choice((1, 7, 512))
    known = ranges(rng, unit, 5000)
    there = FaultMap((start + base, length) for start, length in known)
    size = sum(known[-1]) + rng.choice((0, 1, 100)) if known else 100
    doing("FaultMap.to_mapfile")
    text = there.to_mapfile(size, base=base)
    back = FaultMap.from_mapfile(text, base=base)
    expect(back == there, "a mapfile does not come back", known, text)
    if shutil.which("ddrescuelog") and size < 20_000:
        listed = _listed(text, "-")
        due = [byte for start, length in known for byte in range(start, start + length)]
        expect(listed == due, "ddrescuelog reads our mapfile otherwise", known, text)


def _mutated(rng: random.Random, text: str) -> str:
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, cut = rng.randrange(len(text) + 1), rng.choice((0, 0, 1, 1, 5, 100))
        middle = rng.choice((rng.choice(SPICES), "", text[at : at + rng.randrange(30)] * 2))
        text = text[:at] + middle + text[at + cut :]
    return text


def _sane(found: FaultMap, text: str) -> None:
    pairs = _pairs(found)
    expect(all(length > 0 and 0 <= start < 1 << 64 for start, length in pairs), "a range that cannot be", pairs, text)
    ends = [start + length for start, length in pairs]
    expect(all(end < start for end, (start, _) in zip(ends, pairs[1:], strict=False)), "ranges overlap", pairs, text)


def mutated_texts(rng: random.Random) -> None:
    known = ranges(rng, 512, 3000)
    size = sum(known[-1]) if known else 512
    texts = {"badblocks": badblocks(rng, known), "ndctl": ndctl(known)}
    parsers = [(texts.get(form) or written(FaultMap(known), form, size) or "", read) for form, read in READERS.items()]
    for _ in range(TEXTS):
        text, parse = rng.choice(parsers)
        text = _mutated(rng, text)
        doing(f"{parse.__name__}({text!r})")
        try:
            found = parse(text)
        except (ValueError, OverflowError) as error:
            match = FOREIGN_WORDS.search(str(error))
            expect(not match or match[0] in text, f"{parse.__name__}: words not ours", error, ascii(text))
        else:
            _sane(found, ascii(text))


def mutated_mapfiles(rng: random.Random) -> None:
    """We accept what the tool accepts, and read the same. The blocks are small, since the tool lists every byte."""
    known = ranges(rng, 1, 300)
    text = _mutated(rng, FaultMap(known).to_mapfile(sum(known[-1]) if known else 100))
    doing(f"from_mapfile({text!r}) beside ddrescuelog")
    if not text.isascii() or "\0" in text:
        return
    listed = None if _huge(text) else _listed(text, "-*/")
    if listed is None:
        return
    try:
        found = FaultMap.from_mapfile(text)
    except ValueError as error:
        documented = "a status line is expected before the end" in str(error)
        expect(documented, "refused a mapfile that ddrescuelog reads", error, ascii(text))
    else:
        ours = [byte for start, length in _pairs(found) for byte in range(start, start + length)]
        bad = _listed(text, "-")
        expect(ours in (listed, bad), "ddrescuelog reads a mapfile otherwise", ours[:9], listed[:9], ascii(text))


def _huge(text: str) -> bool:
    """Whether it takes far too long to list its bytes."""
    digits = "".join(c if c in "0123456789abcdefABCDEFxX" else " " for c in text).split()
    return any(len(word) > 6 for word in digits)


def hunt(rng: random.Random) -> None:
    kinds = [round_trips, mutated_texts]
    if shutil.which("ddrescuelog"):
        kinds.append(mutated_mapfiles)
    rng.choice(kinds)(rng)
