"""Former bugs of iov_iter: importing user vectors."""

from __future__ import annotations

import errno

import pytest
from iovec_rs import (
    READ,
    WRITE,
    IovIter,
    IterKind,
    UserRange,
    copy_from_iter,
    copy_to_iter,
    import_iovec,
    import_single_range,
    import_ubuf,
    iovec_from_user,
)
from kernel.syscalls import null_device, user_limit
from support.arena import PAGE_SIZE, Arena, Page, packed_iovec
from support.refusal import os_error

KERNEL = 0xFFFF_8880_0000_0000


@pytest.mark.parametrize("nr_segs", [1, 2, 9])
def test_bug_28_code_that_expected_segments_met_a_single_range(nr_segs: int) -> None:
    """One segment becomes another kind of iterator, which is listed, read and moved in the same way."""
    buffers = [bytearray(b"%03d" % index) for index in range(nr_segs)]
    _, iterator = import_iovec(WRITE, buffers)
    assert iterator.kind == (IterKind.UBUF if nr_segs == 1 else IterKind.IOVEC)
    assert [segment.length for segment in iterator.ranges()] == [3] * nr_segs
    assert [bytes(view) for view in iterator.views()] == buffers
    iterator.advance(1)
    assert [segment.length for segment in iterator.ranges()] == [2] + [3] * (nr_segs - 1)
    iterator.revert(1)
    collected = bytearray(3 * nr_segs)
    assert copy_from_iter(collected, iterator) == 3 * nr_segs
    assert collected == b"".join(buffers)


@pytest.mark.parametrize("wild", [UserRange(KERNEL, 8), UserRange(1 << 47, 1), UserRange((1 << 64) - 4, 8)])
def test_bug_29_a_call_without_the_range_check_let_users_reach_kernel_memory(wild: UserRange) -> None:
    """No constructor accepts a range outside user space, or a raw range as trusted memory."""
    for direction in (READ, WRITE):
        for call in (
            lambda: IovIter.ubuf(direction, wild),  # noqa: B023
            lambda: IovIter.iovec(direction, [UserRange(0x1000, 1), wild]),  # noqa: B023
            lambda: import_iovec(direction, [wild]),  # noqa: B023
            lambda: import_iovec(direction, [UserRange(0x1000, 1), wild]),  # noqa: B023
            lambda: import_iovec(direction, packed_iovec([wild, wild])),  # noqa: B023
            lambda: import_ubuf(direction, wild),  # noqa: B023
            lambda: import_single_range(direction, wild),  # noqa: B023
        ):
            with os_error(errno.EFAULT):
                call()
        with pytest.raises(TypeError, match="UserRange"):
            IovIter.kvec(direction, [wild])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="UserRange"):
            IovIter.bvec(direction, [(wild, 0, 8)])  # type: ignore[list-item]


def test_bug_29_the_flat_side_of_a_copy_is_checked_too() -> None:
    buffer = bytearray(8)
    iterator = IovIter.ubuf(READ, buffer)
    assert copy_to_iter(UserRange(KERNEL, 8), iterator) == 0
    assert iterator.fault is not None
    assert (iterator.fault.side, iterator.fault.cause, iterator.fault.address) == ("source", "bad_address", KERNEL)
    assert (iterator.count, bytes(buffer)) == (8, bytes(8))
    iterator = IovIter.ubuf(WRITE, buffer)
    assert copy_from_iter(UserRange(KERNEL, 8), iterator) == 0
    assert iterator.fault is not None
    assert (iterator.fault.side, iterator.fault.cause, iterator.fault.address) == ("destination", "bad_address", KERNEL)


@pytest.mark.parametrize("fast_segs", [0, 1, 8])
@pytest.mark.parametrize(
    ("element", "number"), [((0x1000, -1), errno.EINVAL), ((KERNEL, 1), errno.EFAULT), (None, errno.EFAULT)]
)
def test_bug_30_a_failed_import_left_its_array_pointer_behind(
    element: tuple[int, int] | None, number: int, fast_segs: int
) -> None:
    """The path for a single segment, which had its own error exit: it returns, keeps and changes nothing."""
    packed = bytearray(packed_iovec([element or (0x1000, 1)]))
    before = bytes(packed)
    with Arena([Page.GOOD, Page.PROTECTED]) as arena:
        vector = arena.address + PAGE_SIZE - 8 if element is None else packed
        returned = None
        for _ in range(3):
            with os_error(number):
                returned = import_iovec(READ, vector, 1, fast_segs)
        assert returned is None
    assert packed == before
    packed.clear()


@pytest.mark.parametrize("nr_segs", [1, 2, 8, 9])
def test_bug_31_an_iterator_kept_pointing_to_a_vector_on_the_stack(nr_segs: int) -> None:
    """The array is overwritten with wild ranges, then unmapped. The iterator still has the imported ranges."""
    buffer = bytearray(range(100))
    with Arena([Page.GOOD], bytes(range(100))) as memory:
        ranges = [memory.range(10 * index, 10) for index in range(nr_segs)]
        with Arena([Page.GOOD], packed_iovec(ranges)) as stack:
            _, iterator = import_iovec(WRITE, stack.address, nr_segs)
            stack.write(0, packed_iovec([(KERNEL, 1 << 40)] * nr_segs))
            assert iterator.ranges() == ranges
        collected = bytearray(10 * nr_segs)
        assert copy_from_iter(collected, iterator) == 10 * nr_segs
        assert collected == buffer[: 10 * nr_segs]
        iterator.revert(10 * nr_segs)
        assert iterator.ranges() == ranges


@pytest.mark.parametrize("nr_segs", [1, 2, 3, 9])
def test_bug_36_a_compat_array_was_checked_at_twice_its_size(nr_segs: int) -> None:
    """The array may end exactly where user space ends, and not a byte beyond."""
    with null_device() as null:
        limit = user_limit(null)
    elements = [(0x1000, 4)] * nr_segs
    with Arena([Page.GOOD], address=limit - PAGE_SIZE) as last:
        last.write(PAGE_SIZE - 8 * nr_segs, packed_iovec(elements, compat=True))
        address = limit - 8 * nr_segs
        assert import_iovec(WRITE, address, nr_segs, compat=True)[1].count == 4 * nr_segs
        assert list(iovec_from_user(address, nr_segs, compat=True)) == elements
        for call in (
            lambda: import_iovec(WRITE, address + 1, nr_segs, compat=True),
            lambda: import_iovec(WRITE, address + 8, nr_segs, compat=True),
            lambda: import_iovec(WRITE, address, nr_segs),
            lambda: iovec_from_user(address, nr_segs + 1, compat=True),
        ):
            with os_error(errno.EFAULT):
                call()
