"""Random operations in any order, on every kind and direction: the iterator and its oracle must agree in everything."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import iovec_rs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule
from iovec_rs import MAX_RW_COUNT, READ, WRITE, IovIter, IterState, UserRange
from support import oracle as model
from support import oracle_pipe as pipe_model
from support.kinds import BUILDERS, CASES, Shape, build, state_of
from support.oracle import PAGE

SETTINGS = settings(
    max_examples=120,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

UNTOUCHED = 0xEE
REFUSED = (ValueError, TypeError, BufferError, OSError)


class Amount(NamedTuple):
    """Some eighths of what there is, plus some bytes: most requests then end inside the data, some at its edges."""

    eighths: int
    more: int

    def of(self, available: int) -> int:
        return max(available * self.eighths // 8 + self.more, 0)


amounts = st.builds(Amount, st.sampled_from([0, 0, 0, 1, 1, 2, 4, 9]), st.sampled_from([-1, 0, 1, 1, 2, 3, 7, 8, 65]))
at_most = st.one_of(amounts, amounts, amounts, st.none())
MASKS = (0, 1, 3, 7, 511, PAGE - 1)


def in_runs(runs: list[tuple[int, int]]) -> tuple[int, ...]:
    """Lengths, each of which is repeated so often."""
    return tuple(length for length, times in runs for _ in range(times))


shapes = st.builds(
    Shape,
    lengths=st.one_of(
        st.lists(
            st.sampled_from([0, 0, 1, 2, 3, 7, 64, 65, 500, 700, PAGE - 1, PAGE, PAGE, PAGE + 1, 9000]), max_size=7
        ).map(tuple),
        st.lists(st.tuples(st.sampled_from([0, 1, 7, 63, 64, 65, 512]), st.sampled_from([1, 2, 3, 9])), max_size=4).map(
            in_runs
        ),
    ),
    lead=st.sampled_from([0, 0, 0, 1, 5, 37, 511, 4000, PAGE - 1]),
    cut=st.sampled_from([0, 0, 0, 0, 1, 5, 500, -1, -3000]),
    extra=st.integers(0, 2),
    seed=st.integers(0, 0xFFFF),
)

WAYS = ("exact", "part", "full", "full", "page", "atomic", "flushed", "past the caches", "full, past the caches")
INSTEAD = {"atomic": "page", "past the caches": "flushed", "full, past the caches": "full"}
"""Operations that a destination does not support, and what is called instead."""

INVALID: dict[str, Callable[[IovIter], object]] = {
    "advance backwards": lambda i: i.advance(-1),
    "revert forwards": lambda i: i.revert(-1),
    "revert more than one call moves": lambda i: i.revert(MAX_RW_COUNT + 1),
    "truncate to less than nothing": lambda i: i.truncate(-1),
    "reexpand to less than nothing": lambda i: i.reexpand(-1),
    "zero less than nothing": lambda i: i.zero(-1),
    "count less than no pages": lambda i: i.npages(-1),
    "get less than nothing": lambda i: i.get_pages(-1, 1),
    "get less than no pages": lambda i: i.get_pages(1, -1),
    "extract less than nothing": lambda i: i.extract_pages(-1, 1),
    "extract less than no pages": lambda i: i.extract_pages(1, -1),
    "fault in less than nothing for reading": lambda i: i.fault_in_readable(-1),
    "fault in less than nothing for writing": lambda i: i.fault_in_writeable(-1),
    "copy less than nothing in": lambda i: iovec_rs.copy_to_iter(b"1234", i, -1),
    "copy less than nothing out": lambda i: iovec_rs.copy_from_iter(bytearray(4), i, -1),
    "copy more in than the buffer has": lambda i: iovec_rs.copy_to_iter(b"1234", i, 5),
    "copy more out than the buffer takes": lambda i: iovec_rs.copy_from_iter(bytearray(4), i, 5),
    "copy in from beyond the page": lambda i: iovec_rs.copy_page_to_iter(b"1234", 3, 2, i),
    "copy out to beyond the page": lambda i: iovec_rs.copy_page_from_iter(bytearray(4), 4, 1, i),
    "copy in from before the page": lambda i: iovec_rs.copy_page_to_iter(b"1234", -1, 1, i),
    "copy atomically to beyond the page": lambda i: iovec_rs.copy_page_from_iter_atomic(bytearray(4), 5, 0, i),
    "copy onto itself": lambda i: iovec_rs.copy_iter(i, i),
    "copy from a destination": lambda i: i.direction or iovec_rs.copy_from_iter(bytearray(4), i),
    "copy durably from a destination": lambda i: i.direction or iovec_rs.copy_from_iter_flushcache(bytearray(4), i),
    "copy durably to a source": lambda i: not i.direction or iovec_rs.copy_to_iter_flushcache(b"1234", i),
    "copy all from a destination": lambda i: i.direction or iovec_rs.copy_from_iter_full(bytearray(4), i),
    "copy a page from a destination": lambda i: i.direction or iovec_rs.copy_page_from_iter(bytearray(4), 0, 4, i),
    "copy to a source": lambda i: not i.direction or iovec_rs.copy_to_iter(b"1234", i),
    "copy all to a source": lambda i: not i.direction or iovec_rs.copy_to_iter_full(b"1234", i),
    "copy a page to a source": lambda i: not i.direction or iovec_rs.copy_page_to_iter(b"1234", 0, 4, i),
}


def outcome(call: Callable[[], object]) -> object:
    """The outcome of a call: its result, or the class of its exception and the errno."""
    try:
        return call()
    except REFUSED as error:
        return type(error), getattr(error, "errno", None)


def agree(real: Callable[[], object], expected: Callable[[], object]) -> object:
    wanted = outcome(expected)
    found = outcome(real)
    assert found == wanted
    return found


class IterMachine(RuleBasedStateMachine):
    kind: ClassVar[str]
    source: ClassVar[bool]
    states = Bundle("states")

    @initialize(shape=shapes)
    def construct(self, shape: Shape) -> None:
        self.rng = random.Random(shape.seed)
        self.pair = build(self.kind, self.source, shape)
        self.pages = [bytearray(self.rng.randbytes(2 * PAGE)) for _ in range(2)]
        self.page_content = [bytes(page) for page in self.pages]

    @property
    def real(self) -> IovIter:
        return self.pair.real

    @property
    def oracle(self) -> model.Oracle:
        return self.pair.oracle

    @invariant()
    def nothing_differs(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check()
            self.answers_agree(self.rng.choice(MASKS), self.rng.choice(MASKS), self.rng.choice([*range(9), 1000]))
            assert self.real.fault is None
            assert [bytes(page) for page in self.pages] == self.page_content, "a page lent to a pipe was written to"

    def answers_agree(self, addr_mask: int, len_mask: int, maxpages: int) -> None:
        real, oracle = self.real, self.oracle
        assert real.single_seg_count() == oracle.single_seg_count()
        assert real.alignment() == oracle.alignment()
        if oracle.count or self.kind != "pipe":
            assert real.is_aligned(addr_mask, len_mask) == oracle.is_aligned(addr_mask, len_mask)
        assert real.gap_alignment() == oracle.gap_alignment()
        assert real.npages(maxpages) == oracle.npages(maxpages)

    def fill_from(self, how: str, n: int, at: int) -> None:
        data = self.rng.randbytes(n)
        padded = bytes(at) + data + b"beyond"
        calls: dict[str, Callable[[], object]] = {
            "exact": lambda: iovec_rs.copy_to_iter(data, self.real),
            "part": lambda: iovec_rs.copy_to_iter(data + b"beyond", self.real, n),
            "flushed": lambda: iovec_rs.copy_to_iter_flushcache(data, self.real),
            "full": lambda: iovec_rs.copy_to_iter_full(data, self.real),
            "page": lambda: iovec_rs.copy_page_to_iter(padded, at, n, self.real),
        }
        if how == "full":
            agree(calls[how], lambda: self.oracle.copy_to_full(data))
        elif how == "page":
            agree(calls[how], lambda: self.oracle.copy_page_to(bytearray(padded), at, n))
        else:
            agree(calls[how], lambda: self.oracle.copy_to(data))

    def drain_into(self, how: str, n: int, at: int) -> None:
        buffer = bytearray([UNTOUCHED]) * (at + n + 9)
        exact = memoryview(buffer)[at : at + n]
        is_full = how.startswith("full")
        full, data = self.oracle.copy_from_full(n) if is_full else (False, self.oracle.copy_from(n))
        calls: dict[str, Callable[[], object]] = {
            "exact": lambda: iovec_rs.copy_from_iter(exact, self.real),
            "part": lambda: iovec_rs.copy_from_iter(memoryview(buffer)[at:], self.real, n),
            "full": lambda: iovec_rs.copy_from_iter_full(exact, self.real),
            "full, past the caches": lambda: iovec_rs.copy_from_iter_full_nocache(exact, self.real),
            "past the caches": lambda: iovec_rs.copy_from_iter_nocache(exact, self.real),
            "flushed": lambda: iovec_rs.copy_from_iter_flushcache(exact, self.real),
            "page": lambda: iovec_rs.copy_page_from_iter(buffer, at, n, self.real),
            "atomic": lambda: iovec_rs.copy_page_from_iter_atomic(buffer, at, n, self.real),
        }
        assert calls[how]() == (full if is_full else len(data))
        assert buffer[at : at + len(data)] == data
        rest = buffer[:at] + buffer[at + len(data) :]
        assert rest == bytes([UNTOUCHED]) * len(rest)

    @rule(amount=amounts, at=st.integers(0, 9), how=st.sampled_from(WAYS))
    def copy(self, amount: Amount, at: int, how: str) -> None:
        n = amount.of(self.oracle.room())
        if self.source:
            self.drain_into(how, n, at)
        else:
            self.fill_from(INSTEAD.get(how, how), n, at)

    @rule(start=st.integers(0, 20_000), amount=amounts)
    def copy_overlapping(self, start: int, amount: Amount) -> None:
        """The flat side is a part of the same memory: the result must be that of reading the source first."""
        space = self.pair.space
        start = min(start, len(space.map))
        n = min(amount.of(self.oracle.room()), len(space.map) - start)
        linear = space.view(space.base + start, n)
        if self.source:
            data = self.oracle.copy_from(n)
            copy = self.rng.choice((iovec_rs.copy_from_iter, iovec_rs.copy_from_iter_flushcache))
            assert copy(linear, self.real) == len(data)
            space.memory.write(space.base + start, data)
        else:
            to = self.rng.choice((iovec_rs.copy_to_iter, iovec_rs.copy_to_iter_flushcache))
            agree(lambda: to(linear, self.real), lambda: self.oracle.copy_to(bytes(linear)))

    @rule(kind=st.sampled_from(sorted(BUILDERS)), shape=shapes, skip=amounts, amount=at_most)
    def copy_between(self, kind: str, shape: Shape, skip: Amount, amount: Amount | None) -> None:
        """With a peer of the other direction; or, for kinds with one direction only, of the same, which is refused."""
        peer = build(kind, not self.source if (kind, not self.source) in CASES else self.source, shape)
        if kind != "pipe":
            first = min(skip.of(peer.oracle.room()), peer.oracle.room())
            agree(lambda: peer.real.advance(first), lambda: peer.oracle.advance(first))
        dst, src = (peer, self.pair) if self.source else (self.pair, peer)
        n = None if amount is None else amount.of(min(dst.oracle.room(), src.oracle.room()))
        agree(lambda: iovec_rs.copy_iter(dst.real, src.real, n), lambda: model.copy_iter(dst.oracle, src.oracle, n))
        for side in (dst, src):
            side.oracle.settle(state_of(side.real))
        peer.check()

    @rule(amount=at_most)
    def zero(self, amount: Amount | None) -> None:
        n = None if amount is None else amount.of(self.oracle.room())
        if not self.oracle.writable and 0 in (n, self.oracle.count):
            return
        agree(lambda: self.real.zero(n), lambda: self.oracle.zero(n))

    @rule(amount=amounts)
    def advance(self, amount: Amount) -> None:
        n = amount.of(self.oracle.room())
        agree(lambda: self.real.advance(n), lambda: self.oracle.advance(n))

    @rule(amount=amounts)
    def revert(self, amount: Amount) -> None:
        n = amount.of(min(self.oracle.behind, 2 * PAGE))
        agree(lambda: self.real.revert(n), lambda: self.oracle.revert(n))

    @rule(amount=amounts)
    def truncate(self, amount: Amount) -> None:
        n = self.oracle.count - amount.of(self.oracle.count)
        if n < 0:
            n = self.oracle.count + 1
        agree(lambda: self.real.truncate(n), lambda: self.oracle.truncate(n))

    @rule(eighths=st.sampled_from([1, 4, 8, 8]), by=st.sampled_from([-1, 0, 0, 0, 1, 9]))
    def reexpand(self, eighths: int, by: int) -> None:
        """To a part of the bytes, all of them, or more."""
        n = Amount(eighths, by).of(sum(piece.length for piece in self.oracle.rest()))
        agree(lambda: self.real.reexpand(n), lambda: self.oracle.reexpand(n))

    @rule(target=states)
    def save(self) -> tuple[IterState, model.State]:
        saved = self.real.save_state()
        assert model.State(saved.iov_offset, saved.count, saved.nr_segs) == self.oracle.state
        assert saved == self.real.save_state()
        return saved, self.oracle.state

    @rule(saved=states)
    def restore(self, saved: tuple[IterState, model.State]) -> None:
        agree(lambda: self.real.restore(saved[0]), lambda: self.oracle.restore(saved[1]))

    @rule(amount=amounts, adopt=st.booleans())
    def dup(self, amount: Amount, adopt: bool) -> None:
        """Continues with the duplicate, or moves it and checks that the original has not moved."""
        if self.kind == "pipe":
            agree(self.real.dup, self.oracle.dup)
            return
        twin = dataclasses.replace(self.pair, real=self.real.dup(), oracle=self.oracle.dup())
        twin.check()
        if adopt:
            self.pair = twin
        else:
            n = amount.of(self.oracle.room())
            agree(lambda: twin.real.advance(n), lambda: twin.oracle.advance(n))
            twin.check()

    @rule(amount=amounts)
    def fault_in(self, amount: Amount) -> None:
        n = amount.of(self.oracle.count)
        assert self.real.fault_in_readable(n) == self.oracle.fault_in(n)
        if self.oracle.writable:
            assert self.real.fault_in_writeable(n) == self.oracle.fault_in(n)

    @precondition(lambda self: not self.pair.raw and self.kind not in {"pipe", "discard"})
    @rule()
    def look(self) -> None:
        views = self.real.views()
        assert all(view.readonly == self.source for view in views)
        assert [bytes(view) for view in views] == [self.oracle.memory.read(*found) for found in self.oracle.ranges()]

    @precondition(lambda self: self.kind != "pipe")
    @rule(amount=amounts)
    def for_each_range(self, amount: Amount) -> None:
        n = amount.of(sum(piece.length for piece in self.oracle.rest()))
        seen: list[bytes] = []

        def see(view: memoryview) -> int:
            seen.append(bytes(view))
            return len(seen)

        def visit() -> tuple[int, list[bytes]]:
            return self.real.for_each_range(n, see), seen

        def expect() -> tuple[int, list[bytes]]:
            pieces = self.oracle.each_range(n)
            return len(pieces), pieces

        agree(visit, expect)

    @precondition(lambda self: self.kind != "folioq_odd")
    @rule(amount=amounts, maxpages=st.integers(1, 5) | st.just(100), extract=st.booleans())
    def list_pages(self, amount: Amount, maxpages: int, extract: bool) -> None:
        maxsize = amount.of(self.oracle.room())
        real = self.real.extract_pages if extract else self.real.get_pages
        oracle = self.oracle.extract_pages if extract else self.oracle.get_pages

        def listed() -> model.Span:
            span = real(maxsize, maxpages)
            if self.kind != "pipe":
                return model.Span(*span)
            addresses = [IovIter.kvec(WRITE, [page]).ranges()[0].address for page, *_ in self.pair.ring.slots]
            return model.Span(tuple(addresses.index(page) for page in span.pages), span.offset0, span.nbytes)

        span = agree(listed, lambda: oracle(maxsize, maxpages))
        if self.kind == "pipe" and isinstance(span, model.Span):
            self.fill_listed(span)

    @precondition(lambda self: self.kind == "pipe")
    @rule(which=st.integers(0, 1), at=st.sampled_from([0, 1, 100, PAGE, -1, -1, -1]), amount=amounts)
    def lend_page(self, which: int, at: int, amount: Amount) -> None:
        """At -1, it begins where the last reference ended, so that the two can merge."""
        oracle = self.oracle
        assert isinstance(oracle, pipe_model.Pipe)
        start = min(max(-oracle.last, 0), 2 * PAGE) if at < 0 else at
        page, n = self.pages[which], min(amount.of(self.oracle.count), 2 * PAGE - start)
        agree(
            lambda: iovec_rs.copy_page_to_iter(page, start, n, self.real),
            lambda: oracle.copy_page_to(page, start, n),
        )

    @precondition(lambda self: self.kind == "pipe" and self.oracle.count > 0)
    @rule(amount=amounts)
    def read(self, amount: Amount) -> None:
        """The reader takes some or all bytes. The next copy continues in the slot that is left, or in a new one."""
        oracle = self.oracle
        assert isinstance(oracle, pipe_model.Pipe)
        n = amount.of(sum(slot.length for slot in oracle.ring.slots))
        agree(lambda: self.pair.ring.read(n), lambda: oracle.read(n))
        self.fill_from("exact", 1 if oracle.room() else 0, 0)

    def fill_listed(self, span: model.Span) -> None:
        """The contents of the pages that a pipe returns are undefined until the caller fills them."""
        oracle, at, left = self.oracle, span.offset0, span.nbytes
        assert isinstance(oracle, pipe_model.Pipe)
        for index in span.pages:
            part = min(left, PAGE - at)
            data = self.rng.randbytes(part)
            oracle.ring.slots[index].page[at : at + part] = data
            page = IovIter.kvec(WRITE, [self.pair.ring.slots[index][0]]).ranges()[0]
            assert iovec_rs.copy_to_iter(data, IovIter.ubuf(READ, UserRange(page.address + at, part))) == part
            at, left = 0, left - part

    @rule(mistake=st.sampled_from(sorted(INVALID)))
    def refuse(self, mistake: str) -> None:
        result = outcome(lambda: INVALID[mistake](self.real))
        assert result in ((ValueError, None), True, WRITE)


def _stamp() -> None:
    """One test case per kind and direction."""
    for kind, source in CASES:
        name = kind.title().replace("_", "") + ("Source" if source else "Destination")
        machine: Any = type(name, (IterMachine,), {"kind": kind, "source": source, "__module__": __name__})
        machine.TestCase.settings = SETTINGS
        globals()[f"Test{name}"] = machine.TestCase


_stamp()
