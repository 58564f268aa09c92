"""``iovec-rs selftest``: checks that copies survive bad memory on this machine and that every count is exact.

The first part is modelled on the kernel's former self-test of its machine-check-safe copy: one page and 512 alignments,
with no bad bytes, with bad bytes in the source, and with bad bytes in the destination. A `FaultMap` lists the bad
bytes, so nothing faults. It runs for the flat copy and for every kind of iterator that has memory.

The second part uses memory that really faults, for each instruction set, once with the signal handler and once with
system calls. Each of these checks runs in a child process, so that a fault that is not survived kills only that.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TextIO

from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultMap,
    FolioQueue,
    IovIter,
    PipeRing,
    UserRange,
    XArray,
    __version__,
    copy_from_iter,
    copy_to_iter_mcsafe,
    cpu,
    fault_handler,
    memcpy_mcsafe,
    testing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from iovec_rs import Fault

LENGTH = 512
SOURCE, TARGET = 1024, 2048
"""The offsets in their pages at which the source and the destination become bad."""
NUMBERS = bytes(at % 256 for at in range(LENGTH))
BLANK = b"\xff"
DISTANCES = (0, 1, 7, 8, 9, 63, 64, 65, 200, 4095, 4096, 4097)
"""Readable bytes before the first bad one."""
BEYOND = 100
GIVE_UP = 60
"""Seconds after which a check that makes no progress is killed."""


class Check(NamedTuple):
    """The result of a check: how many cases passed and failed, and the first failure."""

    group: str
    name: str
    passed: int = 0
    failed: int = 0
    first: str = ""
    skipped: str = ""

    def record(self) -> dict[str, Any]:
        """The check as `--json` shows it. The id is stable across versions."""
        words = "/".join(part.replace(" ", "-") for part in self.name.split(", "))
        return {"id": f"{'careful' if self.group == CAREFUL else 'real'}/{words}", **self._asdict()}

    def line(self) -> str:
        if self.skipped:
            return f"  {self.name:<42}skipped: {self.skipped}"
        verdict = f"{self.passed} passed" + (f", {self.failed} FAILED: {self.first}" if self.failed else "")
        return f"  {self.name:<42}{verdict}"


CAREFUL = "the kernel's careful copy, stopped by a map of bad bytes"
REAL = "memory that really faults"


def tally(group: str, name: str, complaints: Iterable[str]) -> Check:
    """Counts cases. Each complaint is one case; an empty one means that it passed."""
    passed, failed, first = 0, 0, ""
    for complaint in complaints:
        if complaint:
            failed += 1
            first = first or complaint
        else:
            passed += 1
    return Check(group, name, passed, failed, first)


class Target(NamedTuple):
    """An iterator over `LENGTH` bytes of `page`, or None for the flat copy."""

    iterator: IovIter | None
    page: memoryview


def _raw(page: memoryview, at: int) -> UserRange:
    return UserRange(_address(page) + at, LENGTH)


def _pipe(at: int) -> Target:
    """A pipe has its own page, which is filled up to `at`."""
    ring = PipeRing(1)
    iterator = IovIter.pipe(READ, ring, at + LENGTH)
    iterator.zero(at)
    return Target(iterator, ring.slots[0][0])


TARGETS: dict[str, Callable[[memoryview, int], Target]] = {
    "memcpy_mcsafe": lambda page, _: Target(None, page),
    "ubuf": lambda page, at: Target(IovIter.ubuf(READ, page[at : at + LENGTH]), page),
    "ubuf of a raw range": lambda page, at: Target(IovIter.ubuf(READ, _raw(page, at)), page),
    "iovec": lambda page, at: Target(IovIter.iovec(READ, [page[at : at + LENGTH]]), page),
    "kvec": lambda page, at: Target(IovIter.kvec(READ, [page[at : at + LENGTH]]), page),
    "bvec": lambda page, at: Target(IovIter.bvec(READ, [(page, at, LENGTH)]), page),
    "pipe": lambda _, at: _pipe(at),
    "xarray": lambda page, at: Target(IovIter.xarray(READ, XArray({0: page}), at, LENGTH), page),
    "folioq": lambda page, at: Target(IovIter.folioq(READ, FolioQueue([page]), 0, at, LENGTH), page),
}


def _address(memory: memoryview) -> int:
    return IovIter.ubuf(WRITE, memory).ranges()[0].address


def _known_bad(mode: str, page: memoryview, target: memoryview) -> FaultMap:
    """All bytes from the offset on, bad for the access that the mode tests."""
    known = FaultMap()
    if mode != "none":
        access, start = ("read", _address(page) + SOURCE) if mode == "source" else ("write", _address(target) + TARGET)
        known.add(start, 2**64 - start, access)
    return known


def careful_cases(kind: str) -> Iterator[str]:
    """1536 copies of 512 bytes, each compared with the result that the kernel's test expects."""
    page = memoryview(mmap.mmap(-1, PAGE_SIZE))
    for mode in ("none", "source", "destination"):
        for back in range(LENGTH):
            to, at = (TARGET - back, SOURCE) if mode == "destination" else (TARGET, SOURCE - back)
            iterator, where = TARGETS[kind](page, to)
            target = where[to : to + LENGTH]
            if not target.readonly:
                target[:] = BLANK * LENGTH
            page[at : at + LENGTH] = NUMBERS
            before = bytes(target)
            known = _known_bad(mode, page, where)
            source = page[at : at + LENGTH]
            fault: Fault | None
            if iterator is None:
                copied, remaining, fault = memcpy_mcsafe(target, source, fault_map=known)
            else:
                copied = copy_to_iter_mcsafe(source, iterator, fault_map=known)
                remaining, fault = iterator.count, iterator.fault
            expected = LENGTH if mode == "none" else back
            case = f"{mode}, {back} bytes before the bad one"
            if (copied, remaining) != (expected, LENGTH - expected):
                yield f"{case}: {copied} copied, {remaining} left"
            elif target != NUMBERS[:copied] + before[copied:]:
                yield f"{case}: wrong bytes"
            elif mode == "none":
                yield "" if fault is None else f"{case}: {fault}"
            else:
                told = fault is not None and (fault.side, fault.offset, fault.origin) == (mode, copied, "map")
                yield "" if told else f"{case}: {fault}"


class Tried(NamedTuple):
    """One copy into or out of bad memory."""

    how: str
    side: Literal["source", "destination"]
    copied: int
    fault: Fault | None
    right: bool
    """Whether the bytes and the iterator's position agree with the count."""


def _attempts(memory: testing.FaultyMemory, edge: int, before: int) -> Iterator[Tried]:
    """Copies that cross from good bytes into the bad page at `edge`: as source and as destination, flat and by
    iterators.
    """
    n = before + BEYOND
    held, good = testing.pattern(edge - before, before), testing.pattern(7, n)
    bad = memory.buffer[edge - before : edge + BEYOND]
    untouched = BLANK * BEYOND

    flat = bytearray(BLANK * n)
    copied, _, fault = memcpy_mcsafe(flat, bad)
    yield Tried("memcpy_mcsafe from", "source", copied, fault, flat == held + untouched)

    flat = bytearray(BLANK * n)
    source = IovIter.ubuf(WRITE, memory.range(edge - before, n))
    copied = copy_from_iter(flat, source)
    right = flat == held + untouched and source.count == BEYOND
    yield Tried("copy_from_iter from", "source", copied, source.fault, right)

    copied, _, fault = memcpy_mcsafe(bad, good)
    yield Tried("memcpy_mcsafe to", "destination", copied, fault, bad[:before] == good[:before])

    bad[:before] = held
    target = IovIter.iovec(READ, [bad])
    copied = copy_to_iter_mcsafe(good, target)
    right = bad[:before] == good[:before] and target.count == BEYOND
    yield Tried("copy_to_iter_mcsafe to", "destination", copied, target.fault, right)
    bad[:before] = held


def real_cases(memory: testing.FaultyMemory, edge: int, causes: tuple[str, ...]) -> Iterator[str]:
    """Copies that run into the bad page at `edge`, from each of the distances."""
    for before in DISTANCES:
        for tried in _attempts(memory, edge, before):
            case, fault = f"{tried.how} {before} bytes before the bad page", tried.fault
            if tried.copied != before:
                yield f"{case}: {tried.copied} bytes copied"
            elif fault is None or (fault.side, fault.offset) != (tried.side, before) or fault.cause not in causes:
                yield f"{case}: {fault}"
            elif fault.address != memory.address + edge:
                yield f"{case}: the damage begins at {fault.address:#x}, not at {memory.address + edge:#x}"
            else:
                yield "" if tried.right else f"{case}: wrong bytes"


class Damage(NamedTuple):
    name: str
    make: Callable[[], AbstractContextManager[testing.FaultyMemory]]
    causes: tuple[str, ...]


DAMAGE = (
    Damage("truncated mapping", lambda: testing.truncated(3, keep=2), ("gone",)),
    Damage("poisoned page", lambda: testing.poisoned(3, bad=[(2 * PAGE_SIZE, PAGE_SIZE)]), ("poison", "gone")),
)


WAYS: tuple[tuple[Literal["signal", "syscall"], str], ...] = (("signal", "handler"), ("syscall", "system calls"))


def _real(damage: Damage, mode: Literal["signal", "syscall"], isa: str, name: str) -> Check:
    with cpu.use_isa(isa), fault_handler.mode(mode), damage.make() as memory:
        return tally(REAL, name, real_cases(memory, 2 * PAGE_SIZE, damage.causes))


def in_child(check: Callable[[], Check], group: str, name: str) -> Check:
    """Runs the check in a child, so that a fault that is not survived kills only that."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):  # the parent notices that nothing was written
            os.close(reader)
            signal.alarm(GIVE_UP)
            os.write(writer, json.dumps(check()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if told:
        return Check(*json.loads(told))
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    end = f"the process died of {signal.Signals(number).name}" if number else "the process ended without a result"
    return Check(group, name, failed=1, first=end)


def _refusal(what: Callable[[], object]) -> str:
    """Why this kind of bad memory is not available; empty if it is."""
    try:
        what()
    except (OSError, RuntimeError) as error:
        return str(error)
    return ""


def _try_signals() -> None:
    with fault_handler.mode("signal"):
        memcpy_mcsafe(bytearray(1), b"x")


def _try_damage(damage: Damage) -> None:
    with damage.make():
        pass


class Owners(NamedTuple):
    """The owners of the two signals before and after a copy that needs them, and how faults are survived."""

    before: fault_handler.Status
    after: fault_handler.Status
    refused: str
    """Why the handler could not be installed; empty if it was."""

    def record(self) -> dict[str, Any]:
        """The report as `--json` shows it."""
        return {
            "sigbus": {"before": self.before.sigbus, "owner": self.after.sigbus},
            "sigsegv": {"before": self.before.sigsegv, "owner": self.after.sigsegv},
            "met_by": "syscall" if self.refused else "signal",
            "reason": self.refused,
        }

    def lines(self) -> Iterator[str]:
        for signal_name in ("sigbus", "sigsegv"):
            before, after = getattr(self.before, signal_name), getattr(self.after, signal_name)
            yield f"  {signal_name.upper():<18}{after}, before the first copy {before}"
        met_by = f"system calls: {self.refused}" if self.refused else "the signal handler"
        yield f"  {'faults are met by':<18}{met_by}"


def owners() -> Owners:
    """Makes a copy that needs the signals."""
    before = fault_handler.status()
    refused = _refusal(_try_signals)
    return Owners(before, fault_handler.status(), refused)


def checks() -> Iterator[Check]:
    """Yields the result of each check as soon as it is done."""
    for kind in TARGETS:
        name = kind if kind == "memcpy_mcsafe" else f"copy_to_iter_mcsafe, {kind}"
        yield tally(CAREFUL, name, careful_cases(kind))
    for damage in DAMAGE:
        missing = _refusal(partial(_try_damage, damage))
        if missing:
            yield Check(REAL, damage.name, skipped=missing)
            continue
        for mode, way in WAYS:
            refused = _refusal(_try_signals) if mode == "signal" else ""
            for isa in cpu.available():
                name = f"{damage.name}, {way}, {isa}"
                if refused:
                    yield Check(REAL, name, skipped=refused)
                else:
                    yield in_child(partial(_real, damage, mode, isa, name), REAL, name)


def run(as_json: bool = False, out: TextIO | None = None) -> bool:
    """Runs all checks and prints the results. True if none failed.

    The JSON object has these keys, which stay: version; signals, with sigbus and sigsegv (each with owner and before),
    met_by ("signal" or "syscall") and reason (why not "signal"); checks, a list of id, group, name, passed, failed,
    first (what went wrong first) and skipped (why it was not tried); passed and failed, of all checks together.
    """
    out = sys.stdout if out is None else out
    signals = owners()
    done: list[Check] = []
    group = ""
    if not as_json:
        print(f"iovec_rs {__version__} self-test\n\nsignals", file=out)
        for line in signals.lines():
            print(line, file=out)
    for check in checks():
        done.append(check)
        if as_json:
            continue
        if check.group != group:
            group = check.group
            print(f"\n{group}", file=out)
        print(check.line(), file=out, flush=True)
    passed, failed = sum(check.passed for check in done), sum(check.failed for check in done)
    if as_json:
        record = {
            "version": __version__,
            "signals": signals.record(),
            "checks": [check.record() for check in done],
            "passed": passed,
            "failed": failed,
        }
        print(json.dumps(record, indent=2), file=out)
    else:
        print(f"\n{passed} passed, {failed} failed", file=out)
    return failed == 0
