"""CRC-32C and CRC-64/NVME by other implementations, with which our sums are compared, and data that a CRC-32C cannot
tell apart.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import google_crc32c

if TYPE_CHECKING:
    import random

__all__ = ["any_data", "bit_by_bit", "crc32c", "crc64", "self_summed"]


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC-32C of Google's library, which continues a finished sum as ours does."""
    extended: int = google_crc32c.extend(crc, bytes(data))
    return extended


def bit_by_bit(data: bytes, width: int = 32, polynomial: int = 0x82F63B78) -> int:
    """A CRC by its definition, one bit at a time; without a polynomial, whose bits are reversed, the CRC-32C."""
    ones = (1 << width) - 1
    register = ones
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (polynomial if register & 1 else 0)
    return register ^ ones


def crc64(data: bytes) -> int:
    """The CRC-64/NVME, one bit at a time."""
    return bit_by_bit(data, 64, 0x9A6C9329AC4BC9B5)


def self_summed(body: bytes) -> bytes:
    """A unit that ends in its own CRC-32C, as frames and blocks of many formats do. All units of one length have the
    same CRC-32C.
    """
    return body + struct.pack("<I", crc32c(body))


def any_data(rng: random.Random, length: int) -> bytes:
    """Random bytes, or units of 64 bytes or one of all bytes that end in their own CRC-32C."""
    unit = rng.choice((0, 0, 64, length))
    if unit < 4:
        return rng.randbytes(length)
    units = b"".join(self_summed(rng.randbytes(unit - 4)) for _ in range(length // unit))
    return units + rng.randbytes(length % unit)
