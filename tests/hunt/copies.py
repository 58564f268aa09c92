"""Copies of every flavour, kind, mode and instruction set, compared with a model over plain bytes.

The memory is a row of pages, some of them bad. The model reads all of the source that can be read, then writes all that
can be written. So the count, every byte, and the rest of the iterator are known, whatever overlaps.
"""

from __future__ import annotations

import contextlib
import hashlib
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import iovec_rs
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    Fault,
    FaultError,
    FaultMap,
    FolioQueue,
    IovIter,
    PipeRing,
    UserRange,
    XArray,
    cpu,
    fault_handler,
)
from support.arena import Arena, Page, window

from hunt.finding import Finding, doing, expect

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator, Sequence

COPIES = 40
"""The number of copies in one round, over one arena."""
BAD = (Page.READ_ONLY, Page.PROTECTED, Page.UNMAPPED, Page.GONE)
VECTORS = ("ubuf", "iovec", "kvec")
KINDS = (*VECTORS, "bvec", "xarray", "folioq", "pipe", "discard")

Run = tuple[int, int]
"""A run of consecutive bytes: its offset in the arena and its length."""
Came = tuple[int, "Fault | None"]
"""The result of a copy: the bytes it counted, and the fault that stopped it."""


class Model:
    """The arena's bytes, and which of them can be accessed."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.bytes = bytearray(arena.image())
        self.known: dict[str, list[Run]] = {"read": [], "write": []}

    def reach(self, runs: Sequence[Run], *, write: bool) -> int:
        """The number of bytes in these runs before the first bad one."""
        total = 0
        for offset, length in runs:
            good = self.arena.accessible(offset, length, write=write) if length else 0
            total += good
            if good < length:
                break
        return total

    def gather(self, runs: Sequence[Run], nbytes: int) -> bytes:
        found = b"".join(self.bytes[offset : offset + length] for offset, length in runs)
        return found[:nbytes]

    def scatter(self, runs: Sequence[Run], data: bytes) -> None:
        at = 0
        for offset, length in runs:
            part = data[at : at + length]
            self.bytes[offset : offset + len(part)] = part
            at += length


def joined(runs: Sequence[Run]) -> list[Run]:
    """The runs without empty ones, with neighbours merged."""
    found: list[Run] = []
    for offset, length in runs:
        if not length:
            continue
        if found and sum(found[-1]) == offset:
            found[-1] = found[-1][0], found[-1][1] + length
        else:
            found.append((offset, length))
    return found


def after(runs: Sequence[Run], nbytes: int) -> list[Run]:
    """The runs behind the first bytes."""
    found = []
    for offset, length in runs:
        step = min(nbytes, length)
        nbytes -= step
        found.append((offset + step, length - step))
    return joined(found)


def clipped(runs: Sequence[Run], count: int) -> list[Run]:
    """The runs of the first bytes."""
    found = []
    for offset, length in runs:
        step = min(count, length)
        count -= step
        found.append((offset, step))
    return found


class Side(NamedTuple):
    """An iterator, and the runs of its bytes in the arena; None for PIPE and DISCARD, which have none there."""

    i: IovIter
    runs: list[Run] | None
    ring: PipeRing | None = None


class Hunt:
    def __init__(self, rng: random.Random, arena: Arena) -> None:
        self.rng, self.arena = rng, arena
        self.model = Model(arena)
        self.last = 0
        self.view = memoryview(window(arena.address, arena.length)).cast("B")

    # ------------------------------------------------------------------ what is copied

    def length(self) -> int:
        rng = self.rng
        kind = rng.random()
        if kind < 0.3:
            return rng.randrange(70)
        if kind < 0.8:
            return rng.randrange(9000)
        return rng.randrange(self.arena.length // 2)

    def run(self, length: int) -> Run:
        """A run anywhere, or so near the last one that the two overlap."""
        rng, most = self.rng, self.arena.length - length
        start = rng.randrange(most + 1)
        if rng.random() < 0.4:
            start = min(max(self.last + rng.choice((-1, 1)) * rng.choice((1, 13, 33, 64, 500, 4096)), 0), most)
        self.last = start
        return start, length

    def flat(self, run: Run, *, whole: bool = False) -> Any:
        """The run as an argument: a buffer or a range."""
        offset, length = run
        if not whole and self.rng.random() < 0.3:
            return UserRange(self.arena.address + offset, length)
        return self.view[offset : offset + length]

    def disjoint(self, count: int, total: int) -> list[Run]:
        """Runs that do not overlap each other, in any order, empty ones among them."""
        rng = self.rng
        marks = sorted(rng.randrange(self.arena.length + 1) for _ in range(2 * count))
        runs = [(start, min(end - start, max(total, 1))) for start, end in zip(marks[::2], marks[1::2], strict=True)]
        rng.shuffle(runs)
        return runs

    def side(self, source: bool, total: int) -> Side:
        rng, where = self.rng, WRITE if source else READ
        kind = rng.choice(KINDS[:6] if source else KINDS)
        pages = self.arena.length // PAGE_SIZE
        match kind:
            case "ubuf":
                run = self.run(total)
                return Side(IovIter.ubuf(where, self.flat(run)), [run])
            case "iovec" | "kvec":
                count = rng.choice((1, 2, 3, 8, 40))
                runs = self.disjoint(count, rng.choice((total, 64, 300)))
                make = IovIter.iovec if kind == "iovec" else IovIter.kvec
                return Side(make(where, [self.flat(run, whole=kind == "kvec") for run in runs]), runs)
            case "bvec":
                runs = self.disjoint(rng.choice((1, 2, 5)), total)
                elements = []
                for offset, length in runs:
                    start = offset // PAGE_SIZE * PAGE_SIZE
                    elements.append((self.view[start : offset + length], offset - start, length))
                return Side(IovIter.bvec(where, elements), runs)
            case "xarray":
                order = rng.sample(range(pages), rng.randint(1, pages))
                array = XArray({index: self.page(page) for index, page in enumerate(order)})
                start = rng.randrange(PAGE_SIZE)
                runs = [(page * PAGE_SIZE, PAGE_SIZE) for page in order]
                runs[0] = runs[0][0] + start, PAGE_SIZE - start
                count = rng.randrange(sum(length for _, length in runs) + 1)
                return Side(IovIter.xarray(where, array, start, count), clipped(runs, count))
            case "folioq":
                order = rng.sample(range(pages // 2), rng.randint(1, pages // 2))
                queue = FolioQueue([self.view[p * 2 * PAGE_SIZE : (p + 1) * 2 * PAGE_SIZE] for p in order], 2)
                start = rng.randrange(2 * PAGE_SIZE)
                runs = [(page * 2 * PAGE_SIZE, 2 * PAGE_SIZE) for page in order]
                runs[0] = runs[0][0] + start, 2 * PAGE_SIZE - start
                count = rng.randrange(sum(length for _, length in runs) + 1)
                return Side(IovIter.folioq(where, queue, 0, start, count), clipped(runs, count))
            case "pipe":
                ring = PipeRing(rng.choice((1, 2, 8)))
                return Side(IovIter.pipe(READ, ring, rng.choice((total, 3 * total))), None, ring)
            case _:
                return Side(IovIter.discard(where, total), None)

    def page(self, index: int) -> memoryview:
        return self.view[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]

    # ------------------------------------------------------------------ what became of it

    def settle(self, what: str, limit: int, source: list[Run], target: Side, came: Came) -> None:
        """Checks that a copy of up to `limit` bytes of the source to the target did what the model does."""
        copied, fault = came
        readable = self.model.reach(source, write=False)
        if target.ring is not None:
            writable = 1 << 60  # the room in the ring is checked below
        elif target.runs is None:
            writable = 1 << 60
            if "hash" not in what:
                readable = 1 << 60  # the copy accesses no memory
        else:
            writable = self.model.reach(target.runs, write=True)
        due = min(limit, readable, writable)
        full = target.ring is not None and target.ring.full
        if target.ring is not None and full:
            due = min(due, sum(slot[2] for slot in target.ring.slots))
        expect(copied == due, "wrong count", what, f"{copied}, expected {due}; limit {limit}, {readable=}, {writable=}")
        if copied < limit and not full:
            expect(fault is not None, "a short copy has no fault", what, f"{copied} of {limit}")
        if fault is not None:
            expect(fault.offset == copied, "the fault is elsewhere", what, fault, f"copied {copied}")
            if readable != writable:
                side = "source" if readable < writable else "destination"
                expect(fault.side == side, "the fault is on the other side", what, fault)
        data = self.model.gather(source, copied)
        if target.ring is not None:
            expect(target.ring.read() == data, "wrong bytes in the ring", what)
        elif target.runs is not None:
            self.model.scatter(target.runs, data)
        self.compare(what)

    def compare(self, what: str) -> None:
        image = self.arena.image()
        if image != self.model.bytes:
            at = next(k for k, (a, b) in enumerate(zip(image, self.model.bytes, strict=True)) if a != b)
            self.model.bytes[:] = image
            raise Finding("\n".join(["wrong bytes", f"  {what}", f"  the first at {at} of the arena"]))

    def remains(self, what: str, side: Side, count: int, copied: int) -> None:
        expect(side.i.count == count - copied, "the iterator's count is wrong", what, side.i, f"{count} - {copied}")
        if side.runs is not None:
            found = joined([(each.address - self.arena.address, each.length) for each in side.i.ranges()])
            due = after(clipped(side.runs, count), copied)
            expect(found == due, "the iterator stands elsewhere", what, found[:3], due[:3])

    # ------------------------------------------------------------------ the copies

    def to_iter(self) -> None:
        rng = self.rng
        names = ["copy_to_iter", "copy_to_iter_full", "copy_to_iter_flushcache", "copy_to_iter_mcsafe"]
        seldom = ("copy_page_to_iter", "hash_and_copy_to_iter")
        name = rng.choice(seldom if rng.random() < 0.1 else names)
        length = self.length()
        source, target = self.run(length), self.side(False, length)
        count = target.i.count
        limit = min(length, count)
        before = self.describe(target)
        digest = hashlib.sha256()
        what = f"{name}({source} -> {before})"
        doing(what)
        function = getattr(iovec_rs, name)
        if name == "hash_and_copy_to_iter":
            copied, fault = self.call(lambda: function(self.flat(source, whole=True), target.i, digest), target.i)
        elif name == "copy_page_to_iter":
            if target.ring is not None:
                return  # the ring takes a reference to the page
            page = source[0] // PAGE_SIZE * PAGE_SIZE
            whole = self.view[page : sum(source)]
            copied, fault = self.call(lambda: function(whole, source[0] - page, length, target.i), target.i)
        else:
            copied, fault = self.call(lambda: function(self.flat(source), target.i), target.i)
        if name.endswith("_full"):
            self.all_or_nothing(what, (copied, fault), length, [source], target, target, count)
            return
        hashed = self.model.gather([source], copied) if target.runs is not None or target.ring is not None else None
        self.settle(what, limit, [source], target, (copied, fault))
        self.remains(what, target, count, copied)
        if name == "hash_and_copy_to_iter" and hashed is not None:
            expect(digest.digest() == hashlib.sha256(hashed).digest(), "the hash is of other bytes", what)

    def from_iter(self) -> None:
        rng = self.rng
        names = ["copy_from_iter", "copy_from_iter_full", "copy_from_iter_nocache", "copy_from_iter_flushcache"]
        name = rng.choice([*names, "copy_from_iter_full_nocache"])
        length = self.length()
        target, source = self.run(length), self.side(True, length)
        if source.runs is None:
            return
        count = source.i.count
        what = f"{name}({self.describe(source)} -> {target})"
        doing(what)
        copied, fault = self.call(lambda: getattr(iovec_rs, name)(self.flat(target), source.i), source.i)
        runs = clipped(source.runs, count)
        flat = Side(source.i, [target])
        if "_full" in name:
            self.all_or_nothing(what, (copied, fault), length, runs, flat, source, count)
            return
        self.settle(what, min(length, count), runs, flat, (copied, fault))
        self.remains(what, source, count, copied)

    def page_from_iter(self) -> None:
        """Copies into a page of the arena, from some offset on."""
        length = min(self.length(), PAGE_SIZE)
        page = self.rng.randrange(self.arena.length // PAGE_SIZE)
        offset = self.rng.randrange(PAGE_SIZE - length + 1)
        target, source = (page * PAGE_SIZE + offset, length), self.side(True, length)
        count = source.i.count
        name = self.rng.choice(("copy_page_from_iter", "copy_page_from_iter_atomic"))
        what = f"{name}({self.describe(source)} -> {target})"
        doing(what)
        function = getattr(iovec_rs, name)
        copied, fault = self.call(lambda: function(self.page(page), offset, length, source.i), source.i)
        runs = clipped(source.runs or [], count)
        self.settle(what, min(length, count), runs, Side(source.i, [target]), (copied, fault))
        self.remains(what, source, count, copied)

    def checksum(self) -> None:
        """Copies good memory only, because a chunk with a bad byte in it is not copied at all."""
        length = self.length()
        flat, source = self.run(length), self.rng.random() < 0.5
        side = self.side(source, length)
        if side.runs is None:
            return
        count = side.i.count
        runs, limit = clipped(side.runs, count), min(length, count)
        if self.model.reach([flat], write=source) < length or self.model.reach(runs, write=not source) < count:
            return
        start = self.rng.choice((0, 1, 0xFFFF, 0xFFFF_FFFF))
        name = "csum_and_copy_from_iter" if source else "csum_and_copy_to_iter"
        what = f"{name}({self.describe(side)}, {flat})"
        doing(what)
        data = self.model.gather(runs if source else [flat], limit)
        copied, found = getattr(iovec_rs, name)(self.flat(flat, whole=True), side.i, None, start)
        self.settle(what, limit, runs if source else [flat], Side(side.i, [flat]) if source else side, (copied, None))
        self.remains(what, side, count, copied)
        padded = data + bytes(len(data) % 2)
        words = sum(memoryview(padded).cast("H")) + start
        expect(found % 0xFFFF == words % 0xFFFF, "a wrong checksum", what, f"{found:#x}, {words:#x}")

    def across(self) -> None:
        length = self.length()
        source, target = self.side(True, length), self.side(False, length)
        if source.runs is None:
            return
        counts = source.i.count, target.i.count
        what = f"copy_iter({self.describe(source)} -> {self.describe(target)})"
        doing(what)
        copied, fault = self.call(lambda: iovec_rs.copy_iter(target.i, source.i), target.i, source.i)
        self.settle(what, min(counts), clipped(source.runs, counts[0]), target, (copied, fault))
        self.remains(what, target, counts[1], copied)
        self.remains(what, source, counts[0], copied)

    def memcpy(self) -> None:
        length = self.length()
        source, target = self.run(length), self.run(length)
        name = self.rng.choice(("memcpy_mcsafe", "memcpy_flushcache", "memcpy_nocache"))
        what = f"{name}({source} -> {target})"
        doing(what)
        result = getattr(iovec_rs, name)(self.flat(target), self.flat(source))
        expect(result.copied + result.remaining == length, "copied and remaining are not the length", what, result)
        i = IovIter.discard(READ, 0)
        self.settle(what, length, [source], Side(i, [target]), (result.copied, result.fault))

    def careful(self) -> None:
        """A map stops the copy at the word at which the kernel's copy would stop; a real fault before that stops it
        exactly.
        """
        length = self.length()
        source, target = self.run(length), self.run(length)
        bad = self.run(self.rng.randrange(1, 200))
        known = FaultMap()
        known.add(self.arena.address + bad[0], bad[1])
        what = f"memcpy_mcsafe({source} -> {target}, map {bad})"
        doing(what)
        result = iovec_rs.memcpy_mcsafe(self.flat(target), self.flat(source), fault_map=known)
        address, done = self.arena.address + source[0], 0
        start, end = self.arena.address + bad[0], self.arena.address + sum(bad)
        while done < length:
            lead = -address % 8 if length >= 8 else length
            word = 8 if lead <= done and length - done >= 8 else 1
            if start < address + done + word and address + done < end:
                break
            done += word
        readable = self.model.reach([source], write=False)
        writable = self.model.reach([target], write=True)
        due = min(done, readable, writable)
        expect(
            result.copied == due, "wrong count beside a map", what, result, f"{due=} {done=} {readable=} {writable=}"
        )
        self.model.scatter([target], self.model.gather([source], due))
        self.compare(what)

    def zero(self) -> None:
        target = self.side(False, self.length())
        if target.runs is None:
            return
        count = target.i.count
        what = f"zero({self.describe(target)})"
        doing(what)
        copied, fault = self.call(target.i.zero, target.i)
        due = self.model.reach(clipped(target.runs, count), write=True)
        expect(copied == due, "wrong count", what, f"{copied}, expected {due}")
        expect(copied == count or (fault and fault.offset == copied), "a short zero has no fault", what, fault)
        self.model.scatter(target.runs, bytes(copied))
        self.compare(what)
        self.remains(what, target, count, copied)

    def all_or_nothing(  # noqa: PLR0917
        self,
        what: str,
        came: Came,
        length: int,
        source: list[Run],
        target: Side,
        moved: Side,
        count: int,
    ) -> None:
        """The result is True only if everything was copied. Otherwise the iterator has not moved, but bytes may have
        been written.
        """
        copied, fault = came
        if copied is True or copied == length:
            if target.ring is not None and length == 0:
                return
            self.settle(what, length, source, target, (length, None))
            self.remains(what, moved, count, length)
            return
        possible = min(length, count, self.model.reach(source, write=False))
        if target.runs is not None:
            possible = min(possible, self.model.reach(target.runs, write=True))
        if target.ring is None and (target.runs is not None):
            expect(possible < length, "refused what could be copied whole", what, fault)
        self.remains(what, moved, count, 0)
        self.model.bytes[:] = self.arena.image()

    def call(self, run: Callable[[], Any], *iterators: IovIter) -> tuple[int, Fault | None]:
        """Calls a copy. Returns the bytes copied, and the fault that stopped it."""
        try:
            copied = run()
        except FaultError as error:
            return error.copied, error.fault
        faults = [i.fault for i in iterators if i.fault is not None]
        return copied, faults[0] if faults else None

    def describe(self, side: Side) -> str:
        return f"{side.i!r} over {side.runs if side.runs is None else side.runs[:6]}"


@contextlib.contextmanager
def circumstances(rng: random.Random) -> Iterator[str]:
    """Sets a random mode, instruction set and signal mask."""
    mode = rng.choice(("auto", "auto", "syscall"))
    blocked = rng.choice(((), (), (), (signal.SIGBUS,), (signal.SIGSEGV,), tuple(signal.valid_signals())))
    isa = rng.choice(cpu.available())
    flush = rng.choice(cpu.flush_instructions() or [""])
    with contextlib.ExitStack() as stack:
        stack.enter_context(fault_handler.mode(mode))  # type: ignore[arg-type]
        stack.enter_context(cpu.use_isa(isa))
        if flush:
            stack.enter_context(cpu.use_flush_instruction(flush))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        names = "all signals" if len(blocked) > 1 else "".join(each.name for each in blocked) or "no signal"
        yield f"mode {mode}, {isa}, {flush}, {names} blocked"


def hunt(rng: random.Random) -> None:
    npages = rng.choice((4, 6, 12, 12, 24, 700 if rng.random() < 0.1 else 24))
    share = rng.choice((0.0, 0.1, 0.3))
    pages = [rng.choice(BAD) if rng.random() < share else Page.GOOD for _ in range(npages)]
    with Arena(pages, rng.randbytes(npages * PAGE_SIZE)) as arena, circumstances(rng) as where:
        hunt = Hunt(rng, arena)
        steps = [hunt.to_iter, hunt.to_iter, hunt.from_iter, hunt.from_iter, hunt.across, hunt.memcpy, hunt.careful]
        steps += [hunt.page_from_iter, hunt.checksum]
        for _ in range(COPIES if npages < 100 else 4):
            try:
                rng.choice((*steps, hunt.zero))()
            except Finding as found:
                fates = "".join("." if page is Page.GOOD else page.name[0] for page in pages)
                first, _, rest = str(found).partition("\n")
                name, mode = rest.strip().split("(", 1)[0], where.split(", ", 1)[0]
                text = f"{first}: {name}, {mode}\n{rest}\n  {where}\n  pages {fates}"
                raise Finding(text) from found
