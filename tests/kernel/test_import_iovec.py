"""import_iovec compared with the kernel's own: writev to /dev/null imports a vector, returns its count and moves no
data.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    MAX_RW_COUNT,
    READ,
    UIO_FASTIOV,
    UIO_MAXIOV,
    WRITE,
    Direction,
    IovecArray,
    IovIter,
    IterKind,
    UserRange,
    import_iovec,
)
from support.arena import PAGE_SIZE, Arena, Page, packed_iovec

from kernel.import_model import ELEMENT, Accepted, model_import
from kernel.syscalls import null_device, readv, require_comparable_kernel, user_limit, writev

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Element = tuple[int, int]
Vector = int | bytes | list[UserRange]

ARRAY_PAGES = UIO_MAXIOV * ELEMENT // PAGE_SIZE + 2
BAD_PAGES = (Page.PROTECTED, Page.UNMAPPED, Page.GONE)
WORD = 1 << 64


@dataclass(frozen=True)
class Oracle:
    """The kernel as the oracle: the limit of its user space, and memory for any array in front of a page that cannot be
    read.
    """

    null: int
    limit: int
    room: Arena

    def place(self, elements: Sequence[Element], readable: int) -> int:
        """Places the vector's array so that only its first bytes are before the bad page. Returns its address."""
        offset = ARRAY_PAGES * PAGE_SIZE - readable
        self.room.write(offset, packed_iovec(elements)[:readable])
        return self.room.address + offset

    def agreed(self, address: int, elements: Sequence[Element], readable: int) -> Accepted | int:
        """The outcome of importing this vector, on which kernel and model must agree."""
        expected = model_import(elements, readable, self.limit)
        answer = writev(self.null, address, len(elements))
        assert answer == (expected if isinstance(expected, int) else expected.total)
        assert readv(self.null, address, len(elements)) == min(answer, 0)
        return expected

    def compare(self, elements: Sequence[Element], readable: int | None = None, fast_segs: int = UIO_FASTIOV) -> None:
        """Imports one vector by the kernel, by the model and in every form that can express it, and compares the
        outcomes.
        """
        nr_segs = len(elements)
        whole = nr_segs * ELEMENT
        readable = whole if readable is None else readable
        address = self.place(elements, readable)
        expected = self.agreed(address, elements, readable)
        vectors: list[Vector] = [address]
        if readable == whole:
            vectors += [packed_iovec(elements), [UserRange(base, as_object(length)) for base, length in elements]]
        for vector, direction in product(vectors, (READ, WRITE)):
            check(direction, vector, nr_segs, fast_segs, expected)


def as_object(length: int) -> int:
    """Uses both spellings of a length beyond the signed range, which means the same as the negative number with the
    same bits.
    """
    return length - WORD if length >> 63 and length % 2 else length


@pytest.fixture(scope="module", params=BAD_PAGES, ids=lambda page: page.name.lower())
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    require_comparable_kernel()
    with null_device() as null, Arena([Page.GOOD] * ARRAY_PAGES + [request.param]) as room:
        yield Oracle(null, user_limit(null), room)


def attempt(
    direction: Direction, vector: Vector, nr_segs: int, fast_segs: int
) -> tuple[IovecArray | None, IovIter] | int:
    try:
        return import_iovec(direction, vector, nr_segs, fast_segs)
    except OSError as error:
        return -(error.errno or 0)


def check(direction: Direction, vector: Vector, nr_segs: int, fast_segs: int, expected: Accepted | int) -> None:
    outcome = attempt(direction, vector, nr_segs, fast_segs)
    if isinstance(expected, int) or isinstance(outcome, int):
        assert outcome == expected
        return
    array, iterator = outcome
    assert (array is None) == (nr_segs <= fast_segs)
    if array is not None:
        assert tuple(array) == expected.segments
    assert iterator.count == expected.total
    assert iterator.kind == (IterKind.UBUF if nr_segs == 1 else IterKind.IOVEC)
    assert (iterator.direction, iterator.nr_segs, iterator.iov_offset) == (direction, nr_segs, 0)
    assert iterator.ranges() == expected.remaining()


def boundary_addresses(limit: int) -> tuple[int, ...]:
    around_limit = (limit - PAGE_SIZE, limit - 8, limit - 1, limit, limit + 1, limit + PAGE_SIZE - 1, limit + PAGE_SIZE)
    return (0, 1, PAGE_SIZE, *around_limit, 1 << 56, 1 << 62, (1 << 63) - 1, 1 << 63, WORD - PAGE_SIZE, WORD - 1)


def boundary_lengths(limit: int) -> tuple[int, ...]:
    around_cut = (MAX_RW_COUNT - 1, MAX_RW_COUNT, MAX_RW_COUNT + 1, (1 << 31) - 1, 1 << 31, 1 << 32)
    negative = (1 << 63, (1 << 63) + 1, WORD - MAX_RW_COUNT, WORD - 2, WORD - 1)
    return (0, 1, 7, 8, 9, PAGE_SIZE, PAGE_SIZE + 1, *around_cut, limit - 1, limit, limit + 1, (1 << 63) - 1, *negative)


def random_element(rng: random.Random, limit: int) -> Element:
    """An element that is accepted, anywhere in user space, and often so long that the transfer limit is reached."""
    length = rng.choice((0, 1, 8, 13, PAGE_SIZE, 1 << 20, 1 << 29, 1 << 30, MAX_RW_COUNT, (1 << 31) - 1, 1 << 40))
    length = max(length - rng.choice((0, 0, 1, 2)), 0)
    return rng.choice((0, limit - length, rng.randrange(limit - length))), length


def random_bad_element(rng: random.Random, limit: int) -> Element:
    return rng.choice(boundary_addresses(limit)), rng.choice(boundary_lengths(limit))


def random_vector(rng: random.Random, limit: int, nr_segs: int) -> list[Element]:
    elements = [random_element(rng, limit) for _ in range(nr_segs)]
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2)) if nr_segs else 0):
        elements[rng.randrange(nr_segs)] = random_bad_element(rng, limit)
    return elements


def test_every_boundary_address_and_length_alone_and_in_every_company(oracle: Oracle) -> None:
    for element in product(boundary_addresses(oracle.limit), boundary_lengths(oracle.limit)):
        for elements in ([element], [element, (0, 5)], [(0, 5), element], [(0, MAX_RW_COUNT), element, (PAGE_SIZE, 3)]):
            oracle.compare(elements)


def test_random_vectors_are_accepted_refused_and_cut_alike(oracle: Oracle) -> None:
    rng = random.Random(f"accepted, refused, cut: {oracle.room.pages[-1].name}")
    for _ in range(10_000):
        elements = random_vector(rng, oracle.limit, rng.choice((0, 1, 1, 2, 2, 3, 4, 5, 7, 8, 9, 12)))
        oracle.compare(elements, fast_segs=rng.choice((0, 1, UIO_FASTIOV)))


def test_random_vectors_whose_array_cannot_be_read_to_its_end(oracle: Oracle) -> None:
    rng = random.Random(f"cut short: {oracle.room.pages[-1].name}")
    for _ in range(10_000):
        elements = random_vector(rng, oracle.limit, rng.choice((1, 2, 2, 3, 5, 8, 9, 11)))
        oracle.compare(elements, rng.randrange(len(elements) * ELEMENT), rng.choice((0, UIO_FASTIOV)))


@pytest.mark.parametrize("nr_segs", [1, 2, 8, 9, 16])
def test_array_that_stops_at_every_byte_with_a_negative_length_at_every_position(oracle: Oracle, nr_segs: int) -> None:
    """The first element that is wrong decides the error: one that cannot be read, or one whose length is negative."""
    for readable, negative in product(range(nr_segs * ELEMENT + 1), range(-1, nr_segs)):
        elements = [(0x1000 * index, WORD - 1 if index == negative else index) for index in range(nr_segs)]
        address = oracle.place(elements, readable)
        check(WRITE, address, nr_segs, UIO_FASTIOV, oracle.agreed(address, elements, readable))


@pytest.mark.parametrize("nr_segs", [UIO_MAXIOV - 1, UIO_MAXIOV, UIO_MAXIOV + 1, UIO_MAXIOV + 2])
def test_longest_vector_and_the_first_too_long(oracle: Oracle, nr_segs: int) -> None:
    rng = random.Random(nr_segs)
    for _ in range(10):
        elements = random_vector(rng, oracle.limit, nr_segs)
        oracle.compare(elements, fast_segs=rng.choice((0, UIO_FASTIOV, UIO_MAXIOV)))
        oracle.compare(elements, rng.randrange(nr_segs * ELEMENT))


@pytest.mark.parametrize("nr_segs", [0, 1, 2, 8, 9, UIO_MAXIOV, UIO_MAXIOV + 1, 1 << 20, (1 << 31) - 1, (1 << 63) - 1])
def test_array_at_an_address_that_can_hold_none(oracle: Oracle, nr_segs: int) -> None:
    """For an empty vector the array is not read, a vector that is too long fails before that, and all others fail at
    the address.
    """
    bad_page = oracle.room.address + ARRAY_PAGES * PAGE_SIZE
    addresses = {address - gap for address in boundary_addresses(oracle.limit) for gap in (0, 8, 16)}
    expected = 0 if nr_segs == 0 else -errno.EFAULT if nr_segs <= UIO_MAXIOV else -errno.EINVAL
    for address in sorted(addresses | {bad_page, bad_page + 1}):
        if address >= 0:
            assert writev(oracle.null, address, nr_segs) == expected
            check(WRITE, address, nr_segs, UIO_FASTIOV, expected or Accepted(0, ()))


def test_array_in_the_last_page_of_user_space(oracle: Oracle) -> None:
    """An array may end exactly at the limit. One that extends beyond it is refused, whatever its first elements are."""
    with Arena([Page.GOOD], address=oracle.limit - PAGE_SIZE) as last:
        for nr_segs, first_length, room in product((1, 2, 3, 9), (5, WORD - 1), range(0, 10 * ELEMENT, 8)):
            elements = [(0, first_length)] + [(0, 1)] * (nr_segs - 1)
            whole = nr_segs * ELEMENT
            expected = model_import(elements, whole, oracle.limit) if room >= whole else -errno.EFAULT
            address = oracle.limit - room
            last.write(PAGE_SIZE - room, packed_iovec(elements)[:room])
            assert writev(oracle.null, address, nr_segs) == (expected if isinstance(expected, int) else expected.total)
            check(WRITE, address, nr_segs, UIO_FASTIOV, expected)
