"""Ownership after an import: the vector, its copy and the memory. A failed import keeps nothing."""

from __future__ import annotations

import errno
import gc
import mmap
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    READ,
    UIO_FASTIOV,
    WRITE,
    IterKind,
    UserRange,
    copy_from_iter,
    copy_to_iter,
    import_iovec,
    import_ubuf,
    iovec_from_user,
)
from support.arena import Arena, Page, packed_iovec
from support.refusal import os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def memory() -> Iterator[Arena]:
    with Arena([Page.GOOD], bytes(range(256)) * 16) as arena:
        yield arena


def pieces(memory: Arena, nr_segs: int) -> list[UserRange]:
    """Every second triple of bytes."""
    return [memory.range(6 * index, 3) for index in range(nr_segs)]


def content(memory: Arena, nr_segs: int) -> bytes:
    return b"".join(memory.read(6 * index, 3) for index in range(nr_segs))


@pytest.mark.parametrize("fast_segs", [0, 1, 2, UIO_FASTIOV, 1024])
@pytest.mark.parametrize("nr_segs", [0, 1, 2, 8, 9, 100])
def test_the_array_is_returned_if_it_exceeds_fast_segs(memory: Arena, nr_segs: int, fast_segs: int) -> None:
    segments = pieces(memory, nr_segs)
    array, iterator = import_iovec(WRITE, segments, nr_segs, fast_segs)
    assert (array is None) == (nr_segs <= fast_segs)
    if array is not None:
        assert list(array) == segments
    assert iterator.kind == (IterKind.UBUF if nr_segs == 1 else IterKind.IOVEC)
    assert list(iovec_from_user(segments, nr_segs, fast_segs)) == segments


def test_fast_segs_is_8_by_default(memory: Arena) -> None:
    assert UIO_FASTIOV == 8
    assert import_iovec(WRITE, pieces(memory, 8))[0] is None
    assert import_iovec(WRITE, pieces(memory, 9))[0] is not None


def test_array_is_an_immutable_sequence_of_ranges(memory: Arena) -> None:
    segments = pieces(memory, 9)
    array = iovec_from_user(segments)
    assert isinstance(array, Sequence)
    assert len(array) == 9
    assert array[0] == segments[0]
    assert array[-1] == segments[8]
    assert isinstance(array[3], UserRange)
    assert array[3].address == memory.address + 18
    assert segments[4] in array
    assert array.index(segments[5]) == 5
    with pytest.raises(IndexError):
        array[9]
    with pytest.raises(TypeError):
        array[0] = segments[1]  # type: ignore[index]


@pytest.mark.parametrize("nr_segs", [1, 2, 9, 340])
def test_iterator_outlives_its_array_and_the_array_its_iterator(memory: Arena, nr_segs: int) -> None:
    array, iterator = import_iovec(WRITE, pieces(memory, nr_segs), fast_segs=0)
    kept, gone = import_iovec(WRITE, pieces(memory, nr_segs), fast_segs=0)
    del array, gone
    gc.collect()
    scribble = [bytearray(16 * nr_segs) for _ in range(100)]
    collected = bytearray(3 * nr_segs)
    assert copy_from_iter(collected, iterator) == len(collected)
    assert collected == content(memory, nr_segs)
    assert kept is not None
    assert list(kept) == pieces(memory, nr_segs)
    assert len(scribble) == 100


@pytest.mark.parametrize("nr_segs", [1, 2, 9, 340])
def test_vector_may_be_overwritten_or_freed_after_the_import(memory: Arena, nr_segs: int) -> None:
    """Changes of the user's array after the import do not affect the iterator."""
    objects = pieces(memory, nr_segs)
    packed = bytearray(packed_iovec(objects))
    mapped = mmap.mmap(-1, 16 * nr_segs)
    mapped[:] = bytes(packed)
    with Arena([Page.GOOD] * 2, bytes(packed)) as raw:
        vectors: list[object] = [objects, packed, mapped, raw.address, (segment for segment in list(objects))]
        iterators = [import_iovec(WRITE, vector, nr_segs)[1] for vector in vectors]  # type: ignore[arg-type]
    objects.clear()
    packed.clear()
    mapped.close()
    vectors.clear()
    for iterator in iterators:
        collected = bytearray(3 * nr_segs)
        assert copy_from_iter(collected, iterator) == len(collected)
        assert collected == content(memory, nr_segs)


def test_advancing_an_iterator_does_not_change_its_array(memory: Arena) -> None:
    segments = pieces(memory, 9)
    array, iterator = import_iovec(WRITE, segments)
    iterator.advance(5)
    iterator.truncate(7)
    assert array is not None
    assert list(array) == segments
    assert iterator.count == 7


@pytest.mark.parametrize("nr_segs", [1, 2, 9])
def test_bytearrays_under_an_iterator_cannot_be_resized_until_it_is_gone(nr_segs: int) -> None:
    buffers = [bytearray(b"abc") for _ in range(nr_segs)]
    _, iterator = import_iovec(READ, buffers)
    for buffer in buffers:
        with pytest.raises(BufferError):
            buffer.append(0)
    assert copy_to_iter(b"xyz" * nr_segs, iterator) == 3 * nr_segs
    assert buffers == [b"xyz"] * nr_segs
    del iterator, _
    gc.collect()
    for buffer in buffers:
        buffer.append(0)
        assert buffer == b"xyz\0"


def test_a_consumed_iterator_still_holds_its_memory() -> None:
    """It can be reverted, so the memory must stay as long as the iterator lives."""
    buffer = bytearray(b"abc")
    iterator = import_ubuf(READ, buffer)
    iterator.advance(3)
    with pytest.raises(BufferError):
        buffer.clear()
    del iterator
    buffer.clear()
    assert buffer == b""


def test_memory_lives_as_long_as_its_iterator() -> None:
    _, iterator = import_iovec(WRITE, [bytes([index]) * 1000 for index in range(20)])
    gc.collect()
    scribble = [bytes([255]) * 1000 for _ in range(50)]
    collected = bytearray(20_000)
    assert copy_from_iter(collected, iterator) == 20_000
    assert collected == b"".join(bytes([index]) * 1000 for index in range(20))
    assert len(scribble) == 50


class TroubleError(Exception):
    """Raised by a vector during its iteration."""


def troubled(buffers: list[bytearray]) -> Iterator[bytearray]:
    yield from buffers
    raise TroubleError


FAILURES: dict[str, tuple[Callable[[], object], type[Exception], int | None]] = {
    "negative length": (lambda: UserRange(0x1000, -1), OSError, errno.EINVAL),
    "bad address": (lambda: UserRange(1 << 63, 1), OSError, errno.EFAULT),
    "address that is none": (lambda: UserRange(-1, 1), ValueError, None),
    "not a buffer": (object, TypeError, None),
    "read-only": (lambda: bytes(range(7)), BufferError, None),
    "not contiguous": (lambda: memoryview(bytearray(9))[::2], BufferError, None),
}


@pytest.mark.parametrize(("last", "error", "number"), FAILURES.values(), ids=FAILURES.keys())
@pytest.mark.parametrize("nr_good", [0, 1, 9])
def test_a_failed_import_keeps_no_reference(
    nr_good: int, last: Callable[[], object], error: type[Exception], number: int | None
) -> None:
    buffers = [bytearray(b"abc") for _ in range(nr_good)]
    vector = [*buffers, last()]
    before = [sys.getrefcount(item) for item in vector]
    for _ in range(3):
        found = None
        try:
            import_iovec(READ, vector, fast_segs=1)  # type: ignore[arg-type]
        except error as refusal:
            found = getattr(refusal, "errno", None), type(refusal)
        assert found == (number, error)
    assert [sys.getrefcount(item) for item in vector] == before
    for buffer in buffers:
        buffer.append(0)


def test_vector_of_too_many_buffers_keeps_none_of_them() -> None:
    buffers = [bytearray(1) for _ in range(1025)]
    with os_error(errno.EINVAL):
        import_iovec(READ, buffers)
    for buffer in buffers:
        buffer.append(0)
    assert sys.getrefcount(buffers[1000]) == sys.getrefcount(buffers[0]) <= 4


def test_vector_that_raises_while_it_is_iterated_keeps_none_of_its_buffers() -> None:
    buffers = [bytearray(b"abc") for _ in range(5)]
    before = [sys.getrefcount(buffer) for buffer in buffers]
    with pytest.raises(TroubleError):
        import_iovec(READ, troubled(buffers))
    gc.collect()
    assert [sys.getrefcount(buffer) for buffer in buffers] == before
    for buffer in buffers:
        buffer.append(0)


def test_failed_packed_import_releases_the_array() -> None:
    packed = bytearray(packed_iovec([(0x1000, 1), (0x1000, -1)]))
    with os_error(errno.EINVAL):
        import_iovec(READ, packed)
    packed.append(0)
    with pytest.raises(ValueError, match="16"):
        import_iovec(READ, packed)
    packed.append(0)
    assert len(packed) == 34
