"""Copies while other threads remove the memory, swap the pages, or toggle the handler.

Counts must be exact, immutable memory must not change, and nothing may hang.
"""

from __future__ import annotations

import contextlib
import faulthandler
import mmap
import os
from typing import TYPE_CHECKING

from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    FaultMap,
    FolioQueue,
    IovIter,
    PipeRing,
    XArray,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_from_iter_nocache,
    copy_iter,
    copy_to_iter,
    copy_to_iter_flushcache,
    copy_to_iter_mcsafe,
    cpu,
    fault_handler,
    memcpy_mcsafe,
)

from hunt.finding import doing, expect
from hunt.scene import Mapping, together

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

SECONDS = 0.3
PATIENCE = 60.0
PAGES = 16


def _copies(source: memoryview, target: memoryview) -> list[Callable[[], tuple[int, bool]]]:
    """Copies, each of everything: each returns the bytes copied, and whether it gave a reason for a short count."""

    def through(run: Callable[[memoryview, IovIter], int], flat: memoryview, i: IovIter) -> tuple[int, bool]:
        try:
            copied = run(flat, i)
        except FaultError as error:
            return error.copied, True
        return copied, i.fault is not None

    def flat() -> tuple[int, bool]:
        result = memcpy_mcsafe(target, source)
        return result.copied, result.fault is not None

    def across() -> tuple[int, bool]:
        there, here = IovIter.ubuf(READ, target), IovIter.ubuf(WRITE, source)
        return copy_iter(there, here), there.fault is not None or here.fault is not None

    cuts = [target[start : start + 700] for start in range(0, len(target), 700)]
    return [
        lambda: through(copy_to_iter, source, IovIter.ubuf(READ, target)),
        lambda: through(copy_to_iter, source, IovIter.kvec(READ, cuts)),
        lambda: through(copy_to_iter_mcsafe, source, IovIter.iovec(READ, cuts)),
        lambda: through(copy_to_iter_flushcache, source, IovIter.ubuf(READ, target)),
        lambda: through(copy_from_iter, target, IovIter.ubuf(WRITE, source)),
        lambda: through(copy_from_iter_nocache, target, IovIter.ubuf(WRITE, source)),
        lambda: through(copy_from_iter_flushcache, target, IovIter.kvec(WRITE, [source])),
        flat,
        across,
    ]


def protected_pages(rng: random.Random) -> None:
    """A source page appears and vanishes. The bytes counted were read, and a short count ends at a page's end."""
    with Mapping(PAGES, b"s") as mapping:
        page = rng.randrange(PAGES)
        hidden = rng.choice((0, 0, mmap.PROT_READ))
        target = memoryview(bytearray(len(mapping.view)))
        copies = _copies(mapping.view, target)

        def toggle() -> None:
            mapping.protect(page, hidden)
            mapping.protect(page, mmap.PROT_READ | mmap.PROT_WRITE)

        def copy() -> None:
            target[:] = bytes(len(target))
            copied, told = rng.choice(copies)()
            in_page = page * PAGE_SIZE <= copied < (page + 1) * PAGE_SIZE
            expect(in_page or copied == len(target), "a count that no page explains", copied, page)
            expect(told or copied == len(target), "a short copy has no fault", copied)
            expect(target[:copied] == b"s" * copied, "counted bytes were not read", copied)
            expect(not any(target[copied:]), "bytes beyond the count were written", copied)

        together(SECONDS, toggle, copy)


def protected_targets(rng: random.Random) -> None:
    """A page of the destination is writable at times. Beyond the count, less than a cache line was written."""
    with Mapping(PAGES, b"d") as mapping:
        page = rng.randrange(PAGES)
        source = memoryview(bytearray(b"s" * len(mapping.view)))
        copies = _copies(source, mapping.view)

        def toggle() -> None:
            mapping.protect(page, mmap.PROT_READ)
            mapping.protect(page, mmap.PROT_READ | mmap.PROT_WRITE)

        def copy() -> None:
            with contextlib.suppress(FaultError):
                while copy_to_iter(b"d" * len(mapping.view), IovIter.ubuf(READ, mapping.view)) < len(mapping.view):
                    pass
            copied, told = rng.choice(copies)()
            found = bytes(mapping.view)
            expect(told or copied == len(found), "a short copy has no fault", copied)
            expect(found[:copied] == b"s" * copied, "counted bytes were not written", copied)
            expect(found[copied + 63 :].count(b"s") == 0, "a line or more was written beyond the count", copied)

        together(SECONDS, toggle, copy)


def truncated_files(rng: random.Random) -> None:
    """The file behind the source or the destination is truncated and grows again. Truncated pages come back as
    zeroes.
    """
    with Mapping(PAGES, b"s") as mapping:
        other = memoryview(bytearray(b"d" * len(mapping.view)))
        into = rng.random() < 0.4
        copies = _copies(other, mapping.view) if into else _copies(mapping.view, other)

        def cut() -> None:
            mapping.cut(rng.randrange(PAGES + 1) * PAGE_SIZE)
            mapping.cut(len(mapping.view))

        def copy() -> None:
            if not into:
                other[:] = b"?" * len(other)
            copied, told = rng.choice(copies)()
            expect(told or copied == len(other), "a short copy has no fault", copied)
            if not into:
                found = bytes(other)
                expect(not found[:copied].strip(b"s\0"), "counted bytes were not read", copied)
                expect(found[copied:] == b"?" * (len(other) - copied), "bytes beyond the count were written", copied)

        together(SECONDS, cut, copy)


def swapped_pages(rng: random.Random) -> None:
    """Pages of an XArray are replaced by immutable ones, which must not change."""
    number = rng.choice((1, 2, 16, 64))
    immutable = bytes(PAGE_SIZE)
    array = XArray({index: bytearray(PAGE_SIZE) for index in range(number)})
    source = b"w" * (number * PAGE_SIZE)
    victim = rng.randrange(number)

    def swap() -> None:
        array.store(victim, immutable)
        array.store(victim, bytearray(PAGE_SIZE))

    def copy() -> None:
        with contextlib.suppress(BufferError):
            i = IovIter.xarray(READ, array, 0, number * PAGE_SIZE)
            rng.choice((copy_to_iter, copy_to_iter_flushcache, copy_to_iter_mcsafe))(source, i)

    def views() -> None:
        with contextlib.suppress(BufferError):
            for view in IovIter.xarray(READ, array, 0, number * PAGE_SIZE).views():
                if not view.readonly:
                    view[:1] = b"v"

    together(SECONDS, swap, copy, views)
    expect(immutable == bytes(PAGE_SIZE), "a bytes object was written to", immutable[:16])


def grown_queues(rng: random.Random) -> None:
    """A queue grows, also by immutable folios, while it is copied to. The folios that an iterator covers must be
    writable.
    """
    queue = FolioQueue([bytearray(PAGE_SIZE)], rng.choice((1, 2, 31)))
    immutable = bytes(PAGE_SIZE)
    length = [1]

    def grow() -> None:
        if length[0] < 2000:
            queue.append(immutable if rng.random() < 0.01 else bytearray(PAGE_SIZE))
            length[0] += 1

    def copy() -> None:
        count = length[0] * PAGE_SIZE
        try:
            i = IovIter.folioq(READ, queue, 0, 0, count)
            copied = copy_to_iter(b"q" * count, i)
        except BufferError:
            return
        expect(copied == count, "a copy into a growing queue came short", copied, count)

    together(SECONDS, grow, copy)
    expect(immutable == bytes(PAGE_SIZE), "a bytes object was written to", immutable[:16])


def _toggled(rng: random.Random, *toggles: Callable[[], object]) -> None:
    """Two threads copy from a truncated file, while a third calls one of these functions again and again."""
    with Mapping(PAGES, b"s") as mapping:
        good = rng.randrange(PAGES)
        mapping.cut(good * PAGE_SIZE)
        targets = [memoryview(bytearray(len(mapping.view))) for _ in range(2)]

        def copying(target: memoryview) -> Callable[[], None]:
            copies = _copies(mapping.view, target)

            def copy() -> None:
                target[:] = bytes(len(target))
                copied, told = rng.choice(copies)()
                expect(copied == good * PAGE_SIZE, "a wrong count while the handler is toggled", copied, good)
                expect(target[:copied] == b"s" * copied, "wrong bytes while the handler is toggled", copied)
                expect(told, "a short copy has no fault", copied)

            return copy

        def toggle() -> None:
            rng.choice(toggles)()

        together(SECONDS, toggle, *map(copying, targets))


def toggled_handler(rng: random.Random) -> None:
    """The handler is installed and uninstalled while copies fault."""
    _toggled(rng, fault_handler.install, fault_handler.uninstall, fault_handler.status)


def toggled_mode(rng: random.Random) -> None:
    """The mode is changed while copies fault."""
    try:
        _toggled(rng, lambda: fault_handler.mode("syscall"), lambda: fault_handler.mode("auto"))
    finally:
        fault_handler.mode("auto")


def toggled_faulthandler(rng: random.Random) -> None:
    """A thread turns Python's own handler for crashes on or off, and copies bad memory right after that.

    Other threads copy, too, but nothing that faults: what they do not do themselves they may notice late.
    """
    with Mapping(PAGES, b"s") as mapping:
        good = rng.randrange(1, PAGES)
        mapping.cut(good * PAGE_SIZE)
        here, there = (memoryview(bytearray(len(mapping.view))) for _ in range(2))
        bad, fine = _copies(mapping.view, here), _copies(mapping.view[:PAGE_SIZE], there[:PAGE_SIZE])

        def toggle_and_copy() -> None:
            rng.choice((faulthandler.enable, faulthandler.disable))()
            copied, told = rng.choice(bad)()
            expect(copied == good * PAGE_SIZE, "a wrong count after faulthandler was toggled", copied, good)
            expect(told, "a short copy has no fault", copied)

        def copy() -> None:
            copied, _ = rng.choice(fine)()
            expect(copied == PAGE_SIZE, "a wrong count while faulthandler is toggled", copied)

        try:
            together(SECONDS, toggle_and_copy, copy)
        finally:
            faulthandler.disable()


def one_ring(rng: random.Random) -> None:
    """One thread fills a ring, others read, splice and inspect it: every byte comes out once, in order."""
    ring = PipeRing(rng.choice((1, 2, 16)))
    numbers = [0]
    pending = bytearray()
    out: list[bytes] = []
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    splicing = rng.random() < 0.5

    def fill() -> None:
        if pending:  # the rest of a number that was written in part
            del pending[: ring.write(bytes(pending))]
            return
        data = b"".join(n.to_bytes(4, "little") for n in range(numbers[0], numbers[0] + rng.randrange(1, 3000)))
        written = copy_to_iter(data, IovIter.pipe(READ, ring, len(data))) if rng.random() < 0.5 else ring.write(data)
        pending[:] = data[written:][: -written % 4]
        numbers[0] += -(-written // 4)

    def drain() -> None:
        if splicing:
            with contextlib.suppress(BlockingIOError):
                ring.splice(write_end)
            with contextlib.suppress(BlockingIOError):
                out.append(os.read(read_end, 1 << 20))
        else:
            out.append(ring.read(rng.choice((-1, 5, 4096))))

    def look() -> None:
        expect(0 <= ring.used <= 16, "an impossible ring", ring.used)
        ring.full  # noqa: B018
        ring.slots  # noqa: B018

    together(SECONDS, fill, drain, look)
    while ring.used or pending:
        drain()
        del pending[: ring.write(bytes(pending))]
    with contextlib.suppress(BlockingIOError):
        while part := os.read(read_end, 1 << 20):
            out.append(part)
    os.close(read_end)
    os.close(write_end)
    everything = b"".join(out)
    due = b"".join(n.to_bytes(4, "little") for n in range(numbers[0]))
    expect(everything == due, "bytes of a ring were lost or doubled", len(everything), len(due))


def one_iterator(rng: random.Random) -> None:
    """Two threads copy through one iterator: one of them is refused, and no byte is copied twice."""
    source = memoryview(bytearray(1 << 22))
    i = IovIter.ubuf(READ, bytearray(1 << 22))
    copied = [0, 0, 0]

    def copying(which: int) -> Callable[[], None]:
        def copy() -> None:
            with contextlib.suppress(RuntimeError):
                copied[which] += copy_to_iter(source[: rng.choice((9, 100, 70000))], i)

        return copy

    def look() -> None:
        try:
            repr(i)
            i.kind  # noqa: B018
        except RuntimeError as error:
            expect("borrowed" not in str(error), "words not ours while an iterator is in use", error)

    together(SECONDS, copying(0), copying(1), look)
    expect(sum(copied) == (1 << 22) - i.count, "counts of two threads do not add up", copied, i)


def changing_map(rng: random.Random) -> None:
    """A FaultMap changes while copies use it and other threads list it."""
    with Mapping(PAGES, b"s") as mapping:
        target = memoryview(bytearray(len(mapping.view)))
        known = FaultMap()

        def change() -> None:
            start = rng.randrange(len(mapping.view) - 64)
            rng.choice((known.poison, known.unpoison))(mapping.map, start, 64)

        def copy() -> None:
            copied = memcpy_mcsafe(target, mapping.view, fault_map=known).copied
            expect(target[:copied] == b"s" * copied, "counted bytes were not read", copied)

        def look() -> None:
            found = list(known)
            ends = [each.start + each.length for each in found]
            expect(
                all(end <= each.start for end, each in zip(ends, found[1:], strict=False)),
                "a map out of order",
                found[:9],
            )

        together(SECONDS, change, copy, look)


def changing_instructions(rng: random.Random) -> None:
    """The instruction set changes between and during copies: the bytes must be right."""
    source = memoryview(rng.randbytes(100_000))
    target = memoryview(bytearray(100_000))

    def change() -> None:
        cpu.use_isa(rng.choice(cpu.available()))
        if cpu.flush_instructions():
            cpu.use_flush_instruction(rng.choice(cpu.flush_instructions()))

    def copy() -> None:
        length = rng.randrange(len(source))
        target[:length] = bytes(length)
        copied, _ = rng.choice(_copies(source[:length], target[:length]))()
        expect(copied == length and target[:length] == source[:length], "wrong bytes while instructions change", length)

    with cpu.use_isa(cpu.isa()):
        together(SECONDS, change, copy)


SCENES = (
    protected_pages, protected_targets, truncated_files, swapped_pages, grown_queues, toggled_handler, toggled_mode,
    toggled_faulthandler, one_ring, one_iterator, changing_map,
    changing_instructions,
)  # fmt: skip


def hunt(rng: random.Random) -> None:
    scene = rng.choice(SCENES)
    doing(scene.__name__)
    scene(rng)
