"""CRC-32C by other implementations, with which our sums are compared."""

from __future__ import annotations

import google_crc32c

__all__ = ["bit_by_bit", "crc32c"]


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC-32C of Google's library, which continues a finished sum as ours does."""
    extended: int = google_crc32c.extend(crc, bytes(data))
    return extended


def bit_by_bit(data: bytes) -> int:
    """The CRC-32C by its definition: the reflected polynomial, one bit at a time."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF
