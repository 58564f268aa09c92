"""FaultMap: its ranges stay sorted and merged, and it reads and writes the lists of other programs."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from iovec_rs import FaultMap, FaultRange, UserRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


@pytest.mark.parametrize(
    "ask", [lambda bad, at: bad.first_in(at, 5), lambda bad, at: at in bad, lambda bad, at: bad.add(at, 1)]
)
def test_a_map_can_be_looked_at_while_its_argument_is_made(ask: Callable[[FaultMap, Any], object]) -> None:
    bad = FaultMap([(5, 5)])

    class Address:
        def __index__(self) -> int:
            return 5 * len(bad)

    answers: list[object] = []
    # It runs in another thread, because a deadlock would make it wait for ever.
    thread = threading.Thread(target=lambda: answers.append(ask(bad, Address())), daemon=True)
    thread.start()
    thread.join(60)
    assert answers == [ask(bad, 5)]


def test_an_iteration_sees_what_is_changed_ahead_of_it() -> None:
    bad = FaultMap([(0, 1), (10, 1), (20, 1), (2**64 - 1, 1)])
    ranges = iter(bad)
    assert next(ranges) == (0, 1, "read")
    bad.clear(10, 1)
    bad.add(2, 3, "both")
    bad.add(0, 2)
    assert list(ranges) == [(1, 1, "read"), (2, 3, "both"), (20, 1, "read"), (2**64 - 1, 1, "read")]
    assert list(ranges) == []
    assert list(FaultMap([(0, 2**64)])) == [(0, 2**64, "read")]


def test_maps_that_are_compared_from_two_sides_at_once() -> None:
    one, other = FaultMap([(1, 1)]), FaultMap([(1, 1)])
    assert one == one  # noqa: PLR0124

    def compare(first: FaultMap, second: FaultMap) -> None:
        for _ in range(20_000):
            assert first == second

    threads = [threading.Thread(target=compare, args=each, daemon=True) for each in [(one, other), (other, one)]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


def test_what_a_range_is_made_of() -> None:
    class Interrupted:
        def __iter__(self) -> Iterator[int]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FaultMap([Interrupted()])  # type: ignore[list-item]
    for wrong, message in [
        (5, "ranges: an iterable of (start, length) is expected, not int"),
        ([5], "ranges[0]: (start, length) or a FaultRange is expected, not int"),
        ([(0, 1), (1, 2, "read", 4)], "ranges[1]: (start, length) or a FaultRange is expected"),
        ([("0", 1)], "start: an int is expected, not str"),
        ([(0, 1, 2)], "access: a str is expected, not int"),
    ]:
        with pytest.raises(TypeError) as caught:
            FaultMap(wrong)  # type: ignore[arg-type]
        assert str(caught.value) == message
    # The item claims a huge length, for which no memory may be allocated.
    with pytest.raises(TypeError, match=r"ranges\[0\]"):
        FaultMap([range(2**62)])  # type: ignore[list-item]


def test_numbers_of_absurd_length_are_named_and_not_shown() -> None:
    with pytest.raises(ValueError, match=r"^start is an int of many digits: expected 0 or more, less than 2\*\*64$"):
        FaultMap().add(10**5000, 1)
    with pytest.raises(ValueError, match=r"first sector is 9{40}\.\.\. \(100000 digits\)") as caught:
        FaultMap.from_badblocks("9" * 100_000 + " 1\n")
    assert len(str(caught.value)) < 200


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
