"""Fault maps as values: they are joined, complemented, copied, pickled, and written as lists of bad blocks."""

from __future__ import annotations

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iovec_rs import Fault, FaultMap, FaultRange, McResult

SIZE = 200
ACCESS = ("read", "write", "both")
RANGES = st.lists(st.builds(FaultRange, st.integers(0, SIZE), st.integers(1, 40), st.sampled_from(ACCESS)), max_size=12)


def incomplete() -> FaultMap:
    return FaultMap.from_badblocks("\n")


def stands_against(fault_map: FaultMap, access: str) -> set[int]:
    return {at for at in range(2 * SIZE) if fault_map.first_in(at, 1, access)}


@given(RANGES, RANGES)
def test_a_union_has_what_either_has_in_either_way(left: list[FaultRange], right: list[FaultRange]) -> None:
    a, b = FaultMap(left), FaultMap(right)
    joined = a | b
    for access in ("read", "write"):
        assert stands_against(joined, access) == stands_against(a, access) | stands_against(b, access)
    assert (a, b) == (FaultMap(left), FaultMap(right))
    assert joined == b | a == FaultMap([*left, *right])
    assert not joined.incomplete


@given(RANGES, st.integers(0, SIZE))
def test_a_complement_has_the_bytes_that_the_map_has_not(ranges: list[FaultRange], size: int) -> None:
    fault_map = FaultMap(ranges)
    rest = fault_map.complement(size)
    assert [at in rest for at in range(2 * SIZE)] == [at < size and at not in fault_map for at in range(2 * SIZE)]
    assert all(found.access == "read" for found in rest)


def test_a_complement_of_the_whole_line() -> None:
    assert list(FaultMap().complement(1 << 64)) == [FaultRange(0, 1 << 64, "read")]
    assert list(FaultMap([(0, 1 << 64)]).complement(1 << 64)) == []
    assert list(FaultMap([(5, (1 << 64) - 5)]).complement(1 << 64)) == [FaultRange(0, 5, "read")]
    with pytest.raises(ValueError, match=r"size is 18446744073709551617: expected at most 2\*\*64"):
        FaultMap().complement((1 << 64) + 1)
    for size in (-1, 1 << 200):
        with pytest.raises(ValueError, match="size is"):
            FaultMap().complement(size)


def test_only_a_map_is_joined() -> None:
    with pytest.raises(TypeError):
        FaultMap() | [(1, 2)]  # type: ignore[operator]
    fault_map = FaultMap([(1, 2)])
    fault_map |= fault_map
    assert fault_map == FaultMap([(1, 2)])


def test_maps_are_joined_with_each_other_by_two_threads() -> None:
    a, b = FaultMap([(k * 10, 3) for k in range(500)]), FaultMap([(k * 10 + 5, 3) for k in range(500)])
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(lambda: [a | b for _ in range(300)][-1])
        other = pool.submit(lambda: [b | a for _ in range(300)][-1])
        assert one.result(120) == other.result(120) == FaultMap([*a, *b])


@given(RANGES, st.booleans(), st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_copies_and_pickles_are_equal_and_apart(ranges: list[FaultRange], cut: bool, protocol: int) -> None:
    fault_map = FaultMap(ranges) | incomplete() if cut else FaultMap(ranges)
    for twin in (
        copy.copy(fault_map),
        copy.deepcopy(fault_map),
        copy.deepcopy([fault_map])[0],
        pickle.loads(pickle.dumps(fault_map, protocol)),
    ):
        assert twin == fault_map
        assert twin.incomplete == fault_map.incomplete == cut
        twin.add(5000, 1)
        assert 5000 not in fault_map


def test_the_whole_line_is_pickled() -> None:
    fault_map = FaultMap([(0, 1 << 64, "both")])  # type: ignore[list-item]
    assert pickle.loads(pickle.dumps(fault_map)) == fault_map


def test_records_are_pickled_and_copied() -> None:
    fault = Fault("source", 5, 4096, 4096, "gone", "signal", 7, 2, 0)
    for record in (fault, McResult(5, 2, fault), McResult(7, 0, None), FaultRange(1, 2, "write")):
        for twin in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
            assert twin == record
            assert type(twin) is type(record)


def test_what_is_made_of_an_incomplete_map_is_incomplete() -> None:
    whole = FaultMap([(1, 2)])
    assert (whole | incomplete()).incomplete
    assert (incomplete() | whole).incomplete
    assert incomplete().complement(10).incomplete
    assert not whole.complement(10).incomplete
    assert FaultMap.from_badblocks(incomplete().to_badblocks()).incomplete


@given(RANGES, st.integers(0, 60), st.integers(1, 50))
def test_a_list_of_bad_blocks_is_rounded_outwards(ranges: list[FaultRange], base: int, sector_size: int) -> None:
    fault_map = FaultMap(ranges)
    text = fault_map.to_badblocks(base=base, sector_size=sector_size)
    back = FaultMap.from_badblocks(text, base=base, sector_size=sector_size)
    bad = {(at - base) // sector_size for at in range(base, 2 * SIZE) if at in fault_map}
    assert [at in back for at in range(base, SIZE)] == [(at - base) // sector_size in bad for at in range(base, SIZE)]
    # The kernel writes extents in order, of which no two touch.
    extents = [tuple(map(int, line.split())) for line in text.splitlines()]
    assert all(a[0] + a[1] < b[0] for a, b in itertools.pairwise(extents))


def test_a_list_of_bad_blocks_as_the_kernel_would_write_it() -> None:
    fault_map = FaultMap([(512, 1), (1023, 2), (4096, 512)])
    assert fault_map.to_badblocks() == "1 2\n8 1\n"
    assert fault_map.to_badblocks(base=1024) == "0 1\n6 1\n"
    assert fault_map.to_badblocks(sector_size=4096) == "0 2\n"
    assert FaultMap().to_badblocks() == ""
    with pytest.raises(ValueError, match="sector_size is 0: expected 1 or more"):
        fault_map.to_badblocks(sector_size=0)
