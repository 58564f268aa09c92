"""A KV cache that outlives its process: blocks of tensors in persistent memory, found again after a crash, each whole.

    python examples/kv_cache.py [path]    # a file, best on a DAX file system; a temporary one by default

A block holds the keys and values of every layer for some tokens, wherever they lie: they are written as one vector,
which is summed on the way. When it is durable, a record in the log beside it says which slot it is in and what it sums
to. A restart reads the log. It finds every block whose `save` returned, and nothing of one that was cut short; a slot
that was scribbled over has another sum, and is told.
"""

import errno
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, PmemLog, pmem

LAYERS, HEADS, TOKENS, WIDTH = 8, 4, 16, 64
ENTRY = struct.Struct("<qQI")  # a Place; the key comes behind it
RECORD = 256  # bytes of the log that an entry takes at most: 64 of them are its header
KEY_SIZE = RECORD - 64 - ENTRY.size


class DamagedError(Exception):
    """A block whose data are lost, and why."""


class Place(NamedTuple):
    """Where a block is; slot -1 if it was dropped."""

    slot: int
    length: int
    crc32c: int


class SlotStore:
    """Blocks by name, each in a slot of a region, and the log that says in which. A file keeps its number of slots."""

    def __init__(self, path: Path, nbytes: int, slots: int) -> None:
        self.size = -(-nbytes // PAGE_SIZE) * PAGE_SIZE
        self.ring = max(PAGE_SIZE, 4 * (slots + 1) * RECORD)  # the entries that count fill a quarter of it at most
        self.log = PmemLog.open(f"{path}.log", size=2 * PAGE_SIZE + self.ring, create=True)
        self.region = pmem.PmemRegion.open(path, size=slots * self.size, create=True)
        self.places: dict[bytes, Place] = {}  # the oldest first
        self.lost: list[OSError] = []  # entries of the log that cannot be read
        for sequence in range(self.log.first, self.log.last + 1):
            try:
                entry = self.log.read(sequence)
            except OSError as error:
                self.lost.append(error)
                continue
            self.note(entry[ENTRY.size :], Place(*ENTRY.unpack_from(entry)))
        self.free = [slot for slot in range(slots) if slot not in {place.slot for place in self.places.values()}]

    def note(self, key: bytes, place: Place) -> None:
        self.places.pop(key, None)
        if place.slot >= 0:
            self.places[key] = place

    def record(self, key: bytes, place: Place) -> None:
        """Durable when it returns. Old entries make room, and those that still count are appended again before."""
        while self.log.nbytes > self.ring // 2:
            first = self.log.first
            try:
                entry = self.log.read(first)
            except OSError:  # told of when the log was read
                entry = ENTRY.pack(-1, 0, 0)
            if self.places.get(entry[ENTRY.size :]) == ENTRY.unpack_from(entry):
                self.log.append(entry)
            self.log.discard_before(first + 1)
        self.log.append(ENTRY.pack(*place) + key)
        self.note(key, place)

    def drop(self, key: bytes) -> None:
        slot = self.places[key].slot
        self.record(key, Place(-1, 0, 0))
        self.free.append(slot)

    def save(self, key: bytes, tensors: Sequence[Any]) -> None:
        """The block before of that name is there until the new one is. Without room the oldest other is dropped."""
        data = IovIter.kvec(WRITE, tensors)
        if data.count > self.size:
            raise ValueError(f"tensors have {data.count} bytes: a slot takes at most {self.size}")
        if len(key) > KEY_SIZE:
            raise ValueError(f"the key has {len(key)} bytes: at most {KEY_SIZE}")
        if not self.free:
            oldest = next((name for name in self.places if name != key), None)
            if oldest is None:
                raise OSError(errno.ENOSPC, "no slot is left that another block could be dropped from")
            self.drop(oldest)
        slot, before = self.free.pop(), self.places.get(key)  # if it turns out to be bad, it is not used again
        length, crc = self.region.write_crc32c(slot * self.size, data)  # durable when it returns
        try:
            self.record(key, Place(slot, length, crc))  # from here on the block is there
        except OSError:
            self.free.append(slot)
            raise
        if before is not None:
            self.free.append(before.slot)

    def load(self, key: bytes, tensors: Sequence[Any]) -> bool:
        """Fills the tensors. False if there is no such block, DamagedError if they are not what was saved."""
        place = self.places.get(key)
        if place is None:
            return False
        name, into = key.decode(errors="backslashreplace"), IovIter.kvec(READ, tensors)
        if into.count == place.length:
            (copied, remaining, fault), crc = self.region.read_into_crc32c(place.slot * self.size, into)
            if fault is not None:
                raise DamagedError(f"{name}: {fault.cause} at byte {copied}, {remaining} bytes are lost")
            if crc == place.crc32c:
                return True
        raise DamagedError(f"{name}: these are not the {place.length} bytes that were saved")

    def close(self) -> None:
        self.log.close()
        self.region.close()

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
        scribbled, poisoned = (store.places[b"block %d" % index].slot * store.size for index in (2, 4))
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
