"""Importing user vectors: the order of the checks, truncation, and the kind of the iterator."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    MAX_RW_COUNT,
    READ,
    UIO_MAXIOV,
    WRITE,
    Direction,
    IovIter,
    IterKind,
    UserRange,
    copy_from_iter,
    import_iovec,
    import_single_range,
    import_ubuf,
    iovec_from_user,
)
from kernel.syscalls import null_device, user_limit
from support.arena import PAGE_SIZE, Arena, Page, packed_iovec
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Element = tuple[int, int]

OK = 0x10000
KERNEL = 0xFFFF_8880_0000_0000
WORD = 1 << 64


@pytest.fixture(scope="module")
def limit() -> int:
    with null_device() as null:
        return user_limit(null)


@pytest.fixture(scope="module")
def room() -> Iterator[Arena]:
    """Two pages for arrays, then an unreadable page."""
    with Arena([Page.GOOD, Page.GOOD, Page.UNMAPPED]) as arena:
        yield arena


def raw_array(room: Arena, elements: Sequence[Element], readable: int | None = None) -> int:
    """The address of an array of these elements, of which the first `readable` (by default, all) come before the
    unreadable page.
    """
    packed = packed_iovec(elements[:readable])
    room.write(2 * PAGE_SIZE - len(packed), packed)
    return room.address + 2 * PAGE_SIZE - len(packed)


ORDER: dict[str, tuple[list[Element], int | None, int | tuple[IterKind, int]]] = {
    "nothing readable": ([(OK, 1), (OK, 1)], 0, errno.EFAULT),
    "single: unreadable": ([(OK, 1)], 0, errno.EFAULT),
    "single: negative length": ([(OK, -1)], None, errno.EINVAL),
    "single: negative length beats bad address": ([(KERNEL, -1)], None, errno.EINVAL),
    "single: bad address": ([(KERNEL, 10)], None, errno.EFAULT),
    "single": ([(OK, 5)], None, (IterKind.UBUF, 5)),
    "single: empty": ([(OK, 0)], None, (IterKind.UBUF, 0)),
    "single: cut before the range check": ([(OK, 1 << 62)], None, (IterKind.UBUF, MAX_RW_COUNT)),
    "several: range check before the cut": ([(OK, 1 << 62), (OK, 1)], None, errno.EFAULT),
    "negative length beats an earlier bad address": ([(KERNEL, 10), (OK, -1)], None, errno.EINVAL),
    "negative length beats a later bad address": ([(OK, -1), (KERNEL, 10)], None, errno.EINVAL),
    "negative length before an unreadable element": ([(OK, -1), (OK, 1)], 1, errno.EINVAL),
    "unreadable element before a negative length": ([(OK, 1), (OK, -1)], 1, errno.EFAULT),
    "unreadable element after a bad address": ([(KERNEL, 1), (OK, 1)], 1, errno.EFAULT),
    "empty range at null": ([(0, 0), (OK, 5)], None, (IterKind.IOVEC, 5)),
    "empty range at a kernel address": ([(KERNEL, 0), (OK, 5)], None, errno.EFAULT),
    "range that wraps around": ([(WORD - 8, 16), (OK, 5)], None, errno.EFAULT),
    "two that are too long together": ([(OK, 0x7FFFFFFF)] * 2, None, (IterKind.IOVEC, MAX_RW_COUNT)),
    "bad address that would contribute nothing": ([(OK, MAX_RW_COUNT), (KERNEL, 1)], None, errno.EFAULT),
    "all empty": ([(OK, 0), (OK, 0)], None, (IterKind.IOVEC, 0)),
}


@pytest.mark.parametrize("direction", [READ, WRITE])
@pytest.mark.parametrize(("elements", "readable", "expected"), ORDER.values(), ids=ORDER.keys())
def test_first_failing_check_decides(
    room: Arena,
    direction: Direction,
    elements: list[Element],
    readable: int | None,
    expected: int | tuple[IterKind, int],
) -> None:
    address = raw_array(room, elements, readable)
    if isinstance(expected, tuple):
        _, iterator = import_iovec(direction, address, len(elements))
        assert (iterator.kind, iterator.count) == expected
        assert (iterator.direction, iterator.nr_segs, iterator.iov_offset) == (direction, len(elements), 0)
    else:
        with os_error(expected):
            import_iovec(direction, address, len(elements))


@pytest.mark.parametrize("address", [0, 1, 0xDEAD0000, KERNEL, WORD - 1])
def test_an_array_of_0_elements_is_never_read(address: int) -> None:
    array, iterator = import_iovec(WRITE, address, 0)
    assert array is None
    assert (iterator.kind, iterator.count, iterator.nr_segs) == (IterKind.IOVEC, 0, 0)
    assert len(iovec_from_user(address, 0)) == 0


@pytest.mark.parametrize("vector", [0, KERNEL, bytes(16), bytes(1025 * 16), [UserRange(OK, 1)] * 1025])
def test_more_than_1024_segments_are_refused_before_anything_is_read(vector: int | bytes | list[UserRange]) -> None:
    for call in (lambda: import_iovec(WRITE, vector, UIO_MAXIOV + 1), lambda: iovec_from_user(vector, UIO_MAXIOV + 1)):
        with os_error(errno.EINVAL):
            call()


def test_1024_segments_are_accepted() -> None:
    array, iterator = import_iovec(WRITE, packed_iovec([(OK + index, 3) for index in range(1024)]))
    assert array is not None
    assert len(array) == 1024
    assert array[1023] == UserRange(OK + 1023, 3)
    assert (iterator.count, iterator.nr_segs) == (3 * 1024, 1024)


@pytest.mark.parametrize(
    ("lengths", "cut"),
    [
        ([0x40000000, 0x3FFFF000, 1, 0], [0x40000000, 0x3FFFF000, 0, 0]),
        ([0x7FFFFFFF, 7], [0x7FFFF000, 0]),
        ([0x7FFFFFFF], [0x7FFFF000]),
        ([0, 0x7FFFEFFF, 3, 4], [0, 0x7FFFEFFF, 1, 0]),
        ([1, 0x7FFFF000], [1, 0x7FFFEFFF]),
        ([0x7FFFF000, 0], [0x7FFFF000, 0]),
        ([0x10000000] * 9, [0x10000000] * 7 + [0x0FFFF000, 0]),
    ],
)
def test_the_total_is_truncated_in_the_copy_not_in_the_users_array(lengths: list[int], cut: list[int]) -> None:
    """One segment may be shortened and all later ones emptied. Addresses and the number of segments do not change."""
    users_own = bytearray(packed_iovec([(OK * (index + 1), length) for index, length in enumerate(lengths)]))
    before = bytes(users_own)
    array, iterator = import_iovec(READ, users_own, fast_segs=0)
    assert array is not None
    assert list(array) == [(OK * (index + 1), length) for index, length in enumerate(cut)]
    assert iterator.count == sum(cut) <= MAX_RW_COUNT
    assert iterator.nr_segs == len(lengths)
    assert users_own == before


def test_range_check_accepts_up_to_the_limit_and_no_byte_more(limit: int) -> None:
    """An empty range may be at the limit. A range that ends one byte further fails, alone or with others."""
    for base, length, accepted in [
        (limit - 1, 1, True),
        (limit, 0, True),
        (limit - PAGE_SIZE, PAGE_SIZE, True),
        (limit, 1, False),
        (limit - 1, 2, False),
        (limit + 1, 0, False),
    ]:
        for vector in ([UserRange(base, length)], [UserRange(base, length), UserRange(0, 0)]):
            if accepted:
                assert import_iovec(WRITE, vector)[1].count == length
            else:
                with os_error(errno.EFAULT):
                    import_iovec(WRITE, vector)


@pytest.mark.parametrize("import_one", [import_ubuf, import_single_range])
def test_a_single_range_is_truncated_and_then_checked(
    import_one: Callable[[Direction, UserRange | bytes], IovIter], limit: int
) -> None:
    huge = [(OK, length, MAX_RW_COUNT) for length in (1 << 31, 1 << 62, 1 << 63, (1 << 64) - 1, 1 << 70)]
    for base, length, count in [(OK, 5, 5), (0, 0, 0), (limit, 0, 0), *huge]:
        iterator = import_one(READ, UserRange(base, length))
        assert (iterator.kind, iterator.count, iterator.nr_segs) == (IterKind.UBUF, count, 1)
        assert iterator.ranges() == ([UserRange(base, count)] if count else [])
    for base, length, number in [
        (KERNEL, 1, errno.EFAULT),
        (limit, 1, errno.EFAULT),
        (limit - MAX_RW_COUNT + 1, 1 << 62, errno.EFAULT),
    ]:
        with os_error(number):
            import_one(READ, UserRange(base, length))
    for length in (-1, -(1 << 63), -(1 << 70)):
        with pytest.raises(ValueError, match="length"):
            import_one(READ, UserRange(OK, length))


@pytest.mark.parametrize("import_one", [import_ubuf, import_single_range])
def test_single_buffer_is_read_through_its_iterator(
    import_one: Callable[[Direction, UserRange | bytes], IovIter],
) -> None:
    iterator = import_one(WRITE, b"through the iterator")
    collected = bytearray(20)
    assert copy_from_iter(collected, iterator) == 20
    assert collected == b"through the iterator"
    with pytest.raises(BufferError):
        import_one(READ, b"read-only")


def test_iovec_from_user_neither_checks_ranges_nor_truncates(room: Arena) -> None:
    elements = [(KERNEL, 5), (OK, (1 << 63) - 1), (WORD - 1, 1 << 40), (OK, MAX_RW_COUNT), (OK, 1)]
    for vector in (raw_array(room, elements), packed_iovec(elements), [UserRange(*element) for element in elements]):
        assert list(iovec_from_user(vector, len(elements))) == elements
        assert list(iovec_from_user(vector, 1)) == elements[:1]


@pytest.mark.parametrize("fast_segs", [0, 1, 8, 2000])
def test_iovec_from_user_reports_the_same_array_faults(room: Arena, fast_segs: int) -> None:
    for elements, readable, number in [
        ([(KERNEL, -1)], None, errno.EINVAL),
        ([(OK, -1), (OK, 1)], 1, errno.EINVAL),
        ([(OK, 1), (OK, -1)], 1, errno.EFAULT),
        ([(OK, 1)], 0, errno.EFAULT),
    ]:
        address = raw_array(room, elements, readable)
        with os_error(number):
            iovec_from_user(address, len(elements), fast_segs)


def test_compat_layout_is_half_as_wide_and_its_bases_are_not_sign_extended() -> None:
    elements = [(0x1000, 5), (0xFFFF_F000, 0x10), (0, 0)]
    array, iterator = import_iovec(WRITE, packed_iovec(elements, compat=True), fast_segs=0, compat=True)
    assert array is not None
    assert list(array) == elements
    assert iterator.count == 0x15
    assert list(iovec_from_user(packed_iovec(elements, compat=True), compat=True)) == elements


def test_compat_lengths_are_signed_in_32_bits_and_checked_in_array_order(room: Arena) -> None:
    longest = packed_iovec([(0x1000, 0x7FFF_FFFF), (0x1000, 0x7FFF_FFFF)], compat=True)
    assert import_iovec(WRITE, longest, compat=True)[1].count == MAX_RW_COUNT
    for length in (0x8000_0000, 0xFFFF_FFFF):
        for vector in (
            packed_iovec([(0x1000, length)], compat=True),
            packed_iovec([(0x1000, 1), (0x1000, length)], compat=True),
            [UserRange(OK, 1), UserRange(OK, length)],
        ):
            with os_error(errno.EINVAL):
                import_iovec(WRITE, vector, compat=True)
        assert import_iovec(WRITE, [UserRange(OK, 1), UserRange(OK, length)])[1].count == MAX_RW_COUNT
    for first, number in ((-1, errno.EINVAL), (1, errno.EFAULT)):
        room.write(2 * PAGE_SIZE - 8, packed_iovec([(OK, first)], compat=True))
        with os_error(number):
            import_iovec(WRITE, room.address + 2 * PAGE_SIZE - 8, 2, compat=True)
