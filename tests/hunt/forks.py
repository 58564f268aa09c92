"""Forks while other threads do anything: the child must work and end."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultMap,
    IovIter,
    PipeRing,
    XArray,
    copy_from_iter_flushcache,
    copy_to_iter,
    fault_handler,
    memcpy_mcsafe,
)
from iovec_rs.pmem import PmemRegion, badblocks

from hunt.finding import doing, expect, noted
from hunt.scene import Mapping, ended, forked

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

PATIENCE = 400.0
FORKS = 12
PAGES = 64


class Shared:
    """The objects that the threads use, and the child after the fork."""

    def __init__(self, mapping: Mapping, directory: Path) -> None:
        self.mapping = mapping
        self.good = 3 * PAGE_SIZE
        self.ring = PipeRing(64)
        self.array = XArray({k: bytearray(PAGE_SIZE) for k in range(8)})
        self.known = FaultMap([(1, 5)])
        self.path = directory / "region"
        self.region = PmemRegion.open(self.path, size=1 << 20, create=True)
        mapping.cut(self.good)

    def copy(self) -> None:
        out = bytearray(len(self.mapping.view))
        assert copy_to_iter(self.mapping.view, IovIter.ubuf(READ, out)) == self.good
        assert out[: self.good] == b"s" * self.good

    def fill(self) -> None:
        copy_to_iter(bytes(200_000), IovIter.pipe(READ, self.ring, 200_000))
        self.ring.read()

    def store(self) -> None:
        self.array.store(3, bytearray(PAGE_SIZE))
        copy_to_iter(bytes(8 * PAGE_SIZE), IovIter.xarray(READ, self.array, 0, 8 * PAGE_SIZE))

    def note(self) -> None:
        self.known.add(time.monotonic_ns() % 100_000, 3)
        list(self.known)
        self.known.clear(0, 50_000)
        memcpy_mcsafe(bytearray(100), bytes(100), fault_map=self.known)

    def write(self) -> None:
        self.region.write(0, bytes(5000))
        copy_from_iter_flushcache(memoryview(bytearray(100_000)), IovIter.ubuf(WRITE, bytes(100_000)))

    def toggle(self) -> None:
        fault_handler.uninstall()
        fault_handler.install()
        with fault_handler.mode("syscall"):
            pass

    def look(self) -> None:
        badblocks(self.path)
        assert self.ring.used <= 64

    def everything(self) -> list[Callable[[], None]]:
        return [self.copy, self.fill, self.store, self.note, self.write, self.toggle, self.look]


def _in_child(shared: Shared, order: list[Callable[[], None]]) -> int:
    for step in order:
        doing(f"in a forked child: {step.__name__}")
        if step == shared.write:
            continue  # a region may refuse a child until it is opened again
        step()
    with PmemRegion.open(shared.path) as region:
        region.write(0, bytes(100))
    return 0


def hunt(rng: random.Random) -> None:
    with Mapping(PAGES, b"s") as mapping, TemporaryDirectory() as directory:
        shared = Shared(mapping, Path(directory))
        stop = threading.Event()
        errors: list[BaseException] = []

        def work(step: Callable[[], None]) -> None:
            try:
                while not stop.is_set():
                    step()
            except BaseException as error:
                errors.append(error)

        steps = rng.sample(shared.everything(), 3)
        threads = [threading.Thread(target=work, args=(step,), daemon=True) for step in steps]
        for thread in threads:
            thread.start()
        try:
            for _ in range(FORKS):
                time.sleep(rng.random() * 0.01)
                doing(f"forking from {', '.join(step.__name__ for step in steps)}")
                _fork_once(rng, shared, [step.__name__ for step in steps])
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            shared.region.close()
    expect(not errors, "a thread failed beside forks", *(f"{type(error).__name__}: {error}" for error in errors))


def _fork_once(rng: random.Random, shared: Shared, threads: list[str]) -> None:
    order = shared.everything()
    rng.shuffle(order)
    status = forked(lambda: _in_child(shared, order))
    how = ended(status)
    names = f"the parent's threads: {', '.join(threads)}"
    expect(status == 0, f"a forked child ends in {how}: {noted()}", names, [step.__name__ for step in order])
