"""A KV cache that outlives its process: blocks of tensors in persistent memory, found again after a crash, each whole.

    python examples/kv_cache.py [path]    # a file, best on a DAX file system; a temporary one by default

A block holds the keys and values of every layer for some tokens, wherever they lie: they are written as one vector,
which is summed on the way. When it is durable, an entry in the log beside it says where it is and what it sums to. A
restart reads the log. It finds every block whose `save` returned, and nothing of one that was cut short; a block that
was scribbled over has another sum, and is told.
"""

import errno
import struct
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from iovec_rs import PAGE_SIZE, READ, WRITE, FaultError, IovIter, PmemLog, pmem

LAYERS, HEADS, TOKENS, WIDTH = 8, 4, 16, 64
ENTRY = struct.Struct("<qQI")  # a Place; the key comes behind it
KEY_SIZE = 256  # the longest key
RECORD_SIZE = 64 + -(-(ENTRY.size + KEY_SIZE) // 64) * 64  # what the longest entry takes in the log, with its header


class DamagedError(Exception):
    """A block whose data are lost, and why."""


class Place(NamedTuple):
    """Where a block is in the region; offset -1 if it was dropped."""

    offset: int
    length: int
    crc32c: int


class SlotStore:
    """Blocks by key, each in a slot of a region, and the log that says where.

    It may be opened with other slots than before, as far as its log has room for them. Blocks that are there stay where
    they are; those behind the end of a region that has become shorter are forgotten.
    """

    def __init__(self, path: Path, nbytes: int, slots: int) -> None:
        self.size = -(-nbytes // PAGE_SIZE) * PAGE_SIZE
        self.places: dict[bytes, Place] = {}  # the oldest first
        self.newest: dict[bytes, int] = {}  # the number of the entry that each place is from
        self.bad: set[int] = set()  # slots that could not be written to
        self.lost: list[OSError] = []  # entries of the log that cannot be read
        log, log_size = Path(f"{path}.log"), max(1 << 16, 4 * (slots + 1) * RECORD_SIZE + 2 * PAGE_SIZE)
        is_there = log.exists() and log.stat().st_size > 0
        with ExitStack() as opened:
            self.log = opened.enter_context(PmemLog.open(log, size=None if is_there else log_size, create=True))
            if self.log.size < log_size:
                raise ValueError(f"{slots} slots need a log of {log_size} bytes: {log} has {self.log.size}")
            self.region = opened.enter_context(pmem.PmemRegion.open(path, size=slots * self.size, create=True))
            self.read_log()
            self.opened = opened.pop_all()

    def read_log(self) -> None:
        for sequence in range(self.log.first, self.log.last + 1):
            try:
                entry = self.log.read(sequence)
            except OSError as error:
                self.lost.append(error)
                continue
            self.note(entry[ENTRY.size :], Place(*ENTRY.unpack_from(entry)), sequence)

    def note(self, key: bytes, place: Place, sequence: int) -> None:
        self.places.pop(key, None)
        self.newest.pop(key, None)
        if 0 <= place.offset <= self.region.size - place.length:
            self.places[key], self.newest[key] = place, sequence

    def record(self, key: bytes, place: Place) -> None:
        """Durable when it returns."""
        if self.log.free < self.log.size // 4:
            self.make_room()
        self.note(key, place, self.log.append(ENTRY.pack(*place) + key))

    def make_room(self) -> None:
        """Discards old entries until a quarter of the log is free. Those that still count are appended again before.

        Each entry has one turn. The ones that count take less than a quarter, so that the rest, in two pieces at most,
        is enough in the end.
        """
        live = {sequence: key for key, sequence in self.newest.items()}
        for sequence in range(self.log.first, self.log.last + 1):
            if self.log.free >= self.log.size // 4:
                break
            if sequence in live:
                key = live[sequence]
                self.newest[key] = self.log.append(ENTRY.pack(*self.places[key]) + key)
            self.log.discard_before(sequence + 1)

    def free(self) -> list[int]:
        """The slots that no block lies in and that can be written to."""
        taken = set(self.bad)
        for place in self.places.values():
            taken.update(range(place.offset // self.size, -(-(place.offset + place.length) // self.size)))
        return [slot for slot in range(self.region.size // self.size) if slot not in taken]

    def drop(self, key: bytes) -> None:
        if key in self.places:
            self.record(key, Place(-1, 0, 0))

    def save(self, key: bytes, tensors: Sequence[Any]) -> None:
        """The block before of that key is there until the new one is. Without room the oldest other is dropped.

        ValueError if the tensors or the key are too long, OSError if no slot or the log can be written to.
        """
        data = IovIter.kvec(WRITE, tensors)
        if data.count > self.size:
            raise ValueError(f"tensors have {data.count} bytes: a slot takes at most {self.size}")
        if len(key) > KEY_SIZE:
            raise ValueError(f"the key has {len(key)} bytes: at most {KEY_SIZE}")
        while not (free := self.free()):
            if not self.places:
                raise OSError(errno.ENOSPC, "no slot is left that can be written to")
            self.drop(next((other for other in self.places if other != key), key))
        offset = free[-1] * self.size
        try:
            length, crc = self.region.write_crc32c(offset, data)  # durable when it returns
        except OSError as error:
            if not (isinstance(error, FaultError) and error.fault.side == "source"):
                self.bad.add(free[-1])
            raise
        self.record(key, Place(offset, length, crc))  # from here on the block is there

    def load(self, key: bytes, tensors: Sequence[Any]) -> bool:
        """Fills the tensors. False if there is no such block, DamagedError if they are not what was saved."""
        place = self.places.get(key)
        if place is None:
            return False
        name, into = key.decode(errors="backslashreplace"), IovIter.kvec(READ, tensors)
        if into.count == place.length:
            (copied, remaining, fault), crc = self.region.read_into_crc32c(place.offset, into)
            if fault is not None:
                raise DamagedError(f"{name}: {fault.cause} at byte {copied}, {remaining} bytes are lost")
            if crc == place.crc32c:
                return True
        raise DamagedError(f"{name}: these are not the {place.length} bytes that were saved")

    def close(self) -> None:
        self.opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def block(seed: int) -> list[Any]:
    """Keys and values of each layer, as a model would have them: one array each."""
    numbers = np.random.default_rng(seed)
    return [numbers.random((HEADS, TOKENS, WIDTH), "f4") for _ in range(2 * LAYERS)]


def main(path: Path) -> None:
    nbytes = sum(tensor.nbytes for tensor in block(0))
    with SlotStore(path, nbytes, 8) as store:
        for index in range(6):
            store.save(b"block %d" % index, block(index))
        granularity = store.region.granularity
    print(f"{path}: saved 6 blocks of {2 * LAYERS} tensors, {nbytes} bytes each ({granularity})")
    with SlotStore(path, nbytes, 8) as store:  # as after a restart
        scribbled, poisoned = (store.places[b"block %d" % index].offset for index in (2, 4))
        store.region.write(scribbled + 5000, b"scribbled over")
        store.region.fault_map.poison(store.region, poisoned + 9000, 64)
        for index in range(7):
            fresh = [np.empty_like(tensor) for tensor in block(index)]
            try:
                found = store.load(b"block %d" % index, fresh)
                is_same = all(map(np.array_equal, fresh, block(index)))
                print(f"block {index}: {'not there' if not found else 'as it was saved' if is_same else 'WRONG'}")
            except DamagedError as damage:
                print(f"damaged: {damage}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else f"{directory}/cache"))
