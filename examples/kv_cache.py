"""A KV cache that outlives its process: slots of tensors in persistent memory, each there whole or not at all.

    python examples/kv_cache.py [path]    # a file, best on a DAX file system; a temporary one by default

A slot holds the keys and values of every layer for one block of tokens, wherever they lie: they are written as one
vector. The header comes when they are durable, so that a slot cut short by a loss of power has none.
"""

import struct
import sys
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from iovec_rs import PAGE_SIZE, READ, WRITE, IovIter, pmem

LAYERS, HEADS, TOKENS, WIDTH = 8, 4, 16, 64
HEADER = struct.Struct("<QQ48x")  # length, checksum; a line of the CPU's caches


class DamagedError(Exception):
    """A slot whose data are lost, and why."""


def checksum(tensors: Sequence[Any]) -> int:
    """Never 0, which is what an empty slot's header holds."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor, crc)
    return crc + 1


class SlotStore:
    """Slots of one size in a region, each a header and the data."""

    def __init__(self, region: pmem.PmemRegion, nbytes: int) -> None:
        self.region, self.slot = region, -(-(HEADER.size + nbytes) // PAGE_SIZE) * PAGE_SIZE

    def save(self, index: int, tensors: Sequence[Any]) -> None:
        at, data = index * self.slot, IovIter.kvec(WRITE, tensors)
        if data.count > self.slot - HEADER.size:
            raise ValueError(f"tensors have {data.count} bytes: a slot takes at most {self.slot - HEADER.size}")
        header = HEADER.pack(data.count, checksum(tensors))
        self.region.write(at, bytes(HEADER.size))  # what was in the slot is gone
        self.region.write(at + HEADER.size, data)  # durable when it returns
        self.region.write(at, header)

    def load(self, index: int, tensors: Sequence[Any]) -> bool:
        """Fills the tensors from a slot. False if it is empty, DamagedError if that is not what was saved."""
        header = bytearray(HEADER.size)
        everything = IovIter.kvec(READ, [header, *tensors])
        copied, remaining, fault = self.region.read_into(index * self.slot, everything)
        length, saved = HEADER.unpack(header)
        if copied >= HEADER.size and not saved:
            return False
        if fault is not None:
            raise DamagedError(f"slot {index}: {fault.cause} at byte {copied}, {remaining} bytes are lost")
        if (HEADER.size + length, saved) != (copied, checksum(tensors)):
            raise DamagedError(f"slot {index}: these are not the {length} bytes that were saved")
        return True


def block(seed: int) -> list[Any]:
    """Keys and values of each layer, as a model would have them: one array each."""
    numbers = np.random.default_rng(seed)
    return [numbers.random((HEADS, TOKENS, WIDTH), "f4") for _ in range(2 * LAYERS)]


def main(path: Path) -> None:
    nbytes = sum(tensor.nbytes for tensor in block(0))
    with pmem.PmemRegion.open(path, size=8 * (nbytes + PAGE_SIZE), create=True) as region:
        store = SlotStore(region, nbytes)
        for index in range(6):
            store.save(index, block(index))
        print(f"{path}: saved 6 blocks of {2 * LAYERS} tensors, {nbytes} bytes each ({region.granularity})")
        region.write(2 * store.slot + 5000, b"scribbled over")
        region.fault_map.poison(region, 4 * store.slot + 9000, 64)
        for index in range(7):
            fresh = [np.empty_like(tensor) for tensor in block(index)]
            try:
                found = store.load(index, fresh)
                is_same = all(map(np.array_equal, fresh, block(index)))
                print(f"slot {index}: {'empty' if not found else 'as it was saved' if is_same else 'WRONG'}")
            except DamagedError as damage:
                print(f"damaged: {damage}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else f"{directory}/cache"))
