"""The Python exceptions of an import, and the forms in which a vector may be given."""

from __future__ import annotations

import array
import ctypes
import errno
import mmap
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    MAX_RW_COUNT,
    READ,
    WRITE,
    UserRange,
    copy_from_iter,
    import_iovec,
    import_single_range,
    import_ubuf,
    iovec_from_user,
)
from support.arena import Arena, Page, packed_iovec
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

OK = UserRange(0x10000, 16)

REFUSED_ARRAYS: dict[str, Callable[[], object]] = {
    "one element asked of none": lambda: import_iovec(WRITE, b"", 1),
    "three elements asked of two": lambda: import_iovec(WRITE, bytes(32), 3),
    "five compat elements asked of four": lambda: import_iovec(WRITE, bytes(32), 5, compat=True),
    "three objects asked of two": lambda: import_iovec(WRITE, [OK, OK], 3),
    "half an element": lambda: import_iovec(WRITE, bytes(24)),
    "half a compat element": lambda: import_iovec(WRITE, bytes(20), compat=True),
    "negative number of segments": lambda: import_iovec(WRITE, [OK], -1),
    "negative number of segments at an address": lambda: import_iovec(WRITE, 0, -1),
    "negative small array": lambda: import_iovec(WRITE, [OK], 1, -1),
    "array alone: three of two": lambda: iovec_from_user(bytes(32), 3),
    "array alone: half an element": lambda: iovec_from_user(bytes(24)),
    "array alone: negative": lambda: iovec_from_user([OK], -1),
}


@pytest.mark.parametrize("call", REFUSED_ARRAYS.values(), ids=REFUSED_ARRAYS.keys())
def test_numbers_of_segments_that_do_not_fit_the_array_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        call()


@pytest.mark.parametrize("address", [-1, 1 << 64, -(1 << 70)])
def test_a_number_beyond_64_bits_is_no_address(address: int) -> None:
    for call in (
        lambda: import_iovec(WRITE, address, 2),
        lambda: iovec_from_user(address, 2),
        lambda: import_iovec(WRITE, [OK, UserRange(address, 1)]),
        lambda: iovec_from_user([OK, UserRange(address, 1)]),
        lambda: import_ubuf(WRITE, UserRange(address, 1)),
        lambda: import_single_range(WRITE, UserRange(address, 1)),
    ):
        with pytest.raises(ValueError, match=r"\d"):
            call()


@pytest.mark.parametrize("direction", [2, -1, 3, 1 << 40])
def test_direction_that_is_neither_read_nor_write(direction: int) -> None:
    for call in (
        lambda: import_iovec(direction, [OK, OK]),
        lambda: import_iovec(direction, 0, 0),
        lambda: import_ubuf(direction, OK),
        lambda: import_single_range(direction, OK),
    ):
        with pytest.raises(ValueError, match=str(direction)):
            call()


def test_address_without_a_number_of_segments() -> None:
    with pytest.raises(TypeError, match="nr_segs"):
        import_iovec(WRITE, 0x1000)
    with pytest.raises(TypeError, match="nr_segs"):
        iovec_from_user(0x1000)


@pytest.mark.parametrize("vector", [None, 1.5, object()])
def test_objects_that_are_no_vector_are_refused(vector: object) -> None:
    with pytest.raises(TypeError):
        import_iovec(WRITE, vector)  # type: ignore[arg-type]


@pytest.mark.parametrize("position", [0, 1, 12])
@pytest.mark.parametrize(
    ("segment", "error"),
    [
        ("text", TypeError),
        (7, TypeError),
        (None, TypeError),
        (memoryview(bytearray(20))[::2], BufferError),
        (b"read-only", BufferError),
        (memoryview(bytearray(4)).toreadonly(), BufferError),
    ],
)
def test_segment_that_cannot_be_a_destination_is_named(position: int, segment: Buffer, error: type[Exception]) -> None:
    vector: list[Buffer | UserRange] = [*[bytearray(2)] * position, segment, bytearray(2)]
    for form in (vector, iter(vector)):
        with pytest.raises(error, match=rf"segment {position}\b"):
            import_iovec(READ, form)


def test_objects_are_acquired_before_the_vector_is_checked() -> None:
    """The kernel's checks come after all segments are acquired: a read-only segment is reported before a negative
    length.
    """
    with pytest.raises(BufferError, match=r"segment 1\b"):
        import_iovec(READ, [UserRange(0x1000, -1), b"read-only"])
    with os_error(errno.EINVAL):
        import_iovec(WRITE, [UserRange(0x1000, -1), b"read-only"])


@pytest.mark.parametrize("length", [-1, -(1 << 63), -(1 << 70), 1 << 63, (1 << 64) - 1, 1 << 70])
def test_length_no_signed_word_can_hold_is_the_kernels_negative_length(length: int) -> None:
    for call in (
        lambda: import_iovec(WRITE, [OK, UserRange(0x1000, length)]),
        lambda: import_iovec(WRITE, [UserRange(0x1000, length)]),
        lambda: iovec_from_user([OK, UserRange(0x1000, length)]),
    ):
        with os_error(errno.EINVAL):
            call()


def test_every_form_of_the_same_vector_gives_the_same_iterator() -> None:
    data = b"the same bytes in every form"
    with Arena([Page.GOOD, Page.GOOD], data) as arena:
        ranges = [arena.range(0, 4), arena.range(4, 0), arena.range(4, len(data) - 4)]
        packed = packed_iovec(ranges)
        arena.write(8000, packed)
        mapped = mmap.mmap(-1, len(packed))
        mapped[:] = packed
        words = array.array("Q", packed)
        views = [data[:4], bytearray(), memoryview(data)[4:]]
        forms = {
            "address": (arena.address + 8000, 3),
            "bytes": (packed, None),
            "bytearray": (bytearray(packed), None),
            "memoryview of words": (memoryview(words), None),
            "array of words": (words, 3),
            "mmap": (mapped, None),
            "ctypes": ((ctypes.c_uint64 * 6).from_buffer_copy(packed), None),
            "list": (ranges, None),
            "tuple": (tuple(ranges), 3),
            "generator": ((segment for segment in ranges), None),
            "dictionary's values": (dict(enumerate(ranges)).values(), None),
            "another import's array": (iovec_from_user(ranges), None),
            "buffers": (views, None),
            "buffers and ranges": ([ranges[0], views[1], ranges[2]], None),
        }
        for name, (vector, nr_segs) in forms.items():
            _, iterator = import_iovec(WRITE, vector, nr_segs)  # type: ignore[arg-type]
            collected = bytearray(len(data))
            assert (iterator.count, iterator.nr_segs) == (len(data), 3), name
            assert copy_from_iter(collected, iterator) == len(data), name
            assert collected == data, name


def test_nr_segs_below_the_length_takes_the_first_segments() -> None:
    ranges = [UserRange(0x1000 * index, index) for index in range(1, 13)]
    for vector in (ranges, packed_iovec(ranges), iter(ranges)):
        listed, iterator = import_iovec(WRITE, vector, 10)
        assert listed is not None
        assert list(listed) == ranges[:10]
        assert iterator.count == 55


def test_buffers_of_wide_items_count_in_bytes() -> None:
    wide = array.array("d", [1.0, 2.0])
    square = memoryview(bytearray(64)).cast("B", (8, 8))
    _, iterator = import_iovec(WRITE, [wide, square])
    assert iterator.count == 16 + 64
    assert import_ubuf(READ, wide).count == 16


def test_a_buffer_longer_than_max_rw_count_is_truncated() -> None:
    """The memory is not accessed, so the pages of this mapping are never allocated."""
    with mmap.mmap(-1, MAX_RW_COUNT + 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as large:
        iterators = [import_ubuf(WRITE, large), import_iovec(WRITE, [large])[1], import_iovec(WRITE, [large, b"x"])[1]]
        assert [iterator.count for iterator in iterators] == [MAX_RW_COUNT] * 3
        iterators.clear()
