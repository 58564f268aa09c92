"""FaultMap: ranges that stay sorted and merged, and the lists that other programs keep."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iovec_rs import FaultMap, FaultRange, UserRange

ACCESS = {"read": 1, "write": 2, "both": 3}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "clear"]),
        st.integers(0, 40),
        st.integers(0, 20),
        st.sampled_from(["read", "write", "both"]),
    ),
    max_size=30,
)


@given(STEPS)
def test_a_map_agrees_with_one_of_every_byte(steps: list[tuple[str, int, int, str]]) -> None:
    bad, bits = FaultMap(), [0] * 64
    for what, start, length, access in steps:
        if what == "add":
            bad.add(start, length, access)
        else:
            bad.clear(start, length)
        for at in range(start, start + length):
            bits[at] = bits[at] | ACCESS[access] if what == "add" else 0
        expected: list[FaultRange] = []
        names = {1: "read", 2: "write", 3: "both"}
        for at, bit in enumerate(bits):
            if bit and expected and at and bits[at - 1] == bit:
                expected[-1] = expected[-1]._replace(length=expected[-1].length + 1)
            elif bit:
                expected.append(FaultRange(at, 1, names[bit]))  # type: ignore[arg-type]
        assert (list(bad), len(bad)) == (expected, len(expected))
        assert [at in bad for at in range(64)] == [bool(bit) for bit in bits]
        for name, mask in ACCESS.items():
            hits = [r for r in expected if ACCESS[r.access] & mask and r.start < 30 and r.start + r.length > 7]
            assert bad.first_in(7, 23, name) == (hits[0] if hits else None)


def test_a_part_of_a_buffer_is_marked_and_told_relative_to_it() -> None:
    buffer = bytearray(100)
    bad = FaultMap()
    bad.poison(buffer, 10, 20)
    bad.poison(buffer, 90, access="both")
    assert bad.within(buffer) == [(10, 20, "read"), (90, 10, "both")]
    assert bad.within(memoryview(buffer)[15:95]) == [(0, 15, "read"), (75, 5, "both")]
    bad.unpoison(buffer, 0, 95)
    assert bad.within(buffer) == [(95, 5, "both")]
    bad.poison(UserRange(4096, 64))
    assert 4100 in bad
    for wrong in [(101, None), (0, 101), (50, 51), (-1, 1)]:
        with pytest.raises(ValueError, match=r"offset|length"):
            bad.poison(buffer, *wrong)
    assert len(bad) == 2


def test_the_line_ends_at_two_to_the_64() -> None:
    bad = FaultMap([(2**64 - 1, 1)])
    assert 2**64 - 1 in bad
    with pytest.raises(ValueError, match="2\\*\\*64"):
        bad.add(2**64 - 1, 2)
    with pytest.raises(ValueError, match="access"):
        bad.add(0, 1, "execute")
    with pytest.raises(TypeError, match=r"ranges\[1\]"):
        FaultMap([(0, 1), (1,)])  # type: ignore[list-item]
    assert FaultMap([(0, 4)]) == FaultMap([FaultRange(0, 2, "read"), (2, 2)])


def test_badblocks_merge_and_a_full_table_is_told() -> None:
    bad = FaultMap.from_badblocks("8 1\n9 2\n\n100 1\n", base=4096)
    assert list(bad) == [(4096 + 8 * 512, 3 * 512, "read"), (4096 + 100 * 512, 512, "read")]
    assert not bad.incomplete
    assert FaultMap.from_badblocks("".join(f"{2 * n} 1\n" for n in range(512))).incomplete
    with pytest.raises(ValueError, match="line 2"):
        FaultMap.from_badblocks("8 1\n9 x\n")


def test_ndctl_lists_in_all_their_shapes() -> None:
    one = {"dev": "namespace0.0", "mode": "fsdax", "badblock_count": 3, "badblocks": [{"offset": 8, "length": 3}]}
    two = {"dev": "namespace1.0", "mode": "raw", "badblock_count": 1, "badblocks": [{"offset": 100, "length": 1}]}
    both = [(8 * 512, 3 * 512, "read"), (100 * 512, 512, "read")]
    nested = {"provider": "ACPI.NFIT", "dev": "ndbus0", "regions": [{"dev": "region0", "namespaces": [one, two]}]}
    for text in (json.dumps([one, two]), f"{json.dumps(one)}\n{json.dumps(two)}", json.dumps([nested])):
        assert list(FaultMap.from_ndctl(text)) == both
        assert list(FaultMap.from_ndctl(text, namespace="namespace1.0")) == both[1:]
    with pytest.raises(ValueError, match=r"namespace0\.0"):
        FaultMap.from_ndctl(json.dumps(one), namespace="namespace7.7")
    with pytest.raises(ValueError, match="sector mode"):
        FaultMap.from_ndctl(json.dumps({"dev": "namespace0.0", "mode": "sector", "badblock_count": 3}))
    with pytest.raises(ValueError, match="human"):
        FaultMap.from_ndctl(json.dumps({**one, "badblocks": [{"offset": "4.00 KiB", "length": 3}]}))
    with pytest.raises(ValueError, match=r"ndctl: line 1, column 1"):
        FaultMap.from_ndctl("{")


MAPFILES = {
    "0x0 ? 1\n0 0x10 +\n0x10 010 -\n24 8 *\n0x20 8 /\n": [(16, 24, "read")],
    "# comment\r\n0 +\r\n0 0xFf +\r\n": [],
    "5 F\n5 5 -\n": [(5, 5, "read")],
    "0 +\n": [],
}


@pytest.mark.parametrize("text", MAPFILES)
def test_mapfiles_are_read(text: str) -> None:
    assert list(FaultMap.from_mapfile(text)) == MAPFILES[text]


@pytest.mark.parametrize(
    "text", ["", "0 ! 1\n", "0 + 0\n", "0 +\n0 5 +\n6 5 -\n", "0 +\n0 5 +\n4 5 -\n", "0 +\n0 5 x\n", "0 +\n0 5\n"]
)
def test_a_malformed_mapfile_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ValueError, match="line"):
        FaultMap.from_mapfile(text)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(1, 60)), max_size=8), st.integers(1, 600))
def test_a_written_mapfile_says_what_the_map_does(ranges: list[tuple[int, int]], size: int) -> None:
    bad = FaultMap(ranges)
    again = FaultMap.from_mapfile(bad.to_mapfile(size))
    inside = FaultMap([(start, min(length, size - start)) for start, length in ranges if start < size])
    assert again == inside
