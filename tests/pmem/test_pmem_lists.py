"""Lists of bad blocks, as kernels truncate them and as users of ndctl and ddrescue publish them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from iovec_rs import PAGE_SIZE, FaultMap

SECTOR = 512
SYSFS_LIMIT = PAGE_SIZE - 1
"""The most characters that one read of a sysfs file returns."""


def listed(found: FaultMap) -> list[tuple[int, int]]:
    return [(one.start, one.length) for one in found]


def shown_by_sysfs(extents: list[tuple[int, int]]) -> str:
    return "".join(f"{first} {count}\n" for first, count in extents)[:SYSFS_LIMIT]


@pytest.mark.parametrize("count", [1, 77, 512])
@pytest.mark.parametrize("first", [10**7, 10**9 + 7, 999_999_900])
def test_a_list_longer_than_a_page_is_read_as_far_as_its_lines_are_whole(first: int, count: int) -> None:
    extents = [(first + 4096 * n, count) for n in range(512)]
    text = shown_by_sysfs(extents)
    assert len(text) == SYSFS_LIMIT
    found = FaultMap.from_badblocks(text)
    assert found.incomplete
    assert listed(found) == [(start * SECTOR, length * SECTOR) for start, length in extents[: text.count("\n")]]


@pytest.mark.parametrize("last", ["123456789 5", "123456789 51", "123456789 ", "12345", "1"])
def test_a_last_line_that_may_be_truncated_is_left_out(last: str) -> None:
    lines = "1000000000 100\n" * 250
    digits = SYSFS_LIMIT - len(lines) - len(last) - len(" 1\n")
    text = f"{1:0{digits}} 1\n" + lines + last
    assert len(text) == SYSFS_LIMIT
    found = FaultMap.from_badblocks(text)
    assert found.incomplete
    assert 123456789 * SECTOR not in found
    assert (10**9) * SECTOR in found


def test_an_empty_line_makes_the_map_incomplete() -> None:
    """The file of a device without a list has one empty line; that of an empty list has none."""
    assert FaultMap.from_badblocks("\n").incomplete
    assert not FaultMap.from_badblocks("").incomplete
    assert not FaultMap.from_badblocks("8 8\n100 1").incomplete


@pytest.mark.parametrize(
    "text",
    [
        "1024\n2048\n",  # e2fsprogs
        "5 -3\n",
        "-5 3\n",
        "18446744073709551616 1\n",
        "1 18446744073709551616\n",
        "36028797018963968 1\n",
        "1 8 9\n",
        "0x10 8\n",
        "1, 8\n",
        "1 8\x00\n",
        "1\u00a08\n",
        "\u0661 8\n",
    ],
)
def test_a_malformed_list_is_an_error_with_line_and_column(text: str) -> None:
    with pytest.raises(ValueError, match=r"badblocks: line \d+, column \d+"):
        FaultMap.from_badblocks(text)


NAMESPACE: dict[str, Any] = {
    "dev": "namespace2.0",
    "mode": "fsdax",
    "size": 33820770304,
    "sector_size": 4096,
    "badblock_count": 8,
    "badblocks": [{"offset": 8208, "length": 8, "dimms": ["nmem0"]}],
}
REGION: dict[str, Any] = {
    "dev": "region2",
    "type": "pmem",
    "badblock_count": 8,
    "badblocks": [{"offset": 12304, "length": 8, "dimms": ["nmem0", "nmem2"]}],
    "namespaces": [NAMESPACE],
}
ALONE = {key: value for key, value in REGION.items() if key != "namespaces"}
IN_NAMESPACE, IN_REGION = [(8208 * SECTOR, 8 * SECTOR)], [(12304 * SECTOR, 8 * SECTOR)]


@pytest.mark.parametrize(
    "listing",
    [
        NAMESPACE,
        [NAMESPACE],
        REGION,
        [REGION],
        [{"provider": "ACPI.NFIT", "dev": "ndbus0", "dimms": [{"dev": "nmem0"}], "regions": [REGION]}],
        {"dimms": [{"dev": "nmem0"}], "regions": [REGION]},
    ],
)
def test_a_regions_list_is_not_added_to_its_namespaces(listing: object) -> None:
    """Both list the same blocks, each counted from its own start."""
    text = json.dumps(listing)
    assert listed(FaultMap.from_ndctl(text)) == IN_NAMESPACE
    assert listed(FaultMap.from_ndctl(text, namespace="namespace2.0")) == IN_NAMESPACE
    assert listed(FaultMap.from_ndctl(text, base=100)) == [(IN_NAMESPACE[0][0] + 100, 8 * SECTOR)]


def test_a_regions_list_is_taken_only_by_its_name() -> None:
    assert listed(FaultMap.from_ndctl(json.dumps(REGION), namespace="region2")) == IN_REGION
    assert listed(FaultMap.from_ndctl(json.dumps(ALONE), namespace="region2")) == IN_REGION
    with pytest.raises(ValueError, match=r'region2 without its namespaces: expected .* namespace="region2"'):
        FaultMap.from_ndctl(json.dumps(ALONE))
    with pytest.raises(ValueError, match="one of those listed: region2"):
        FaultMap.from_ndctl(json.dumps(ALONE), namespace="namespace2.0")


@pytest.mark.parametrize("text", ["", "\n", "[\n]\n", "[]"])
def test_nothing_listed_is_nothing_bad(text: str) -> None:
    found = FaultMap.from_ndctl(text)
    assert (len(found), found.incomplete) == (0, False)
    with pytest.raises(ValueError, match="none at all"):
        FaultMap.from_ndctl(text, namespace="namespace0.0")


@pytest.mark.parametrize(
    "listing",
    [
        {"memdev": "mem9", "media_errors": [{"offset": "0x40000000", "length": 64}]},  # cxl list
        [{"chardev": "dax0.0", "size": 17179869184, "align": 2097152, "mode": "devdax"}],  # daxctl list
        [{"dev": "nmem0", "id": "8680-57341200"}],  # ndctl list -D
        {"badblocks": [{"offset": 1, "length": 1}]},
        {"hello": "world"},
        [NAMESPACE, {"hello": "world"}],
        [[NAMESPACE]],
        17,
        "namespace0.0",
        None,
        NAMESPACE | {"badblocks": [{"offset": "0x2010", "length": 8}]},
        NAMESPACE | {"badblocks": [{"offset": -1, "length": 8}]},
        NAMESPACE | {"badblocks": [{"offset": True, "length": 8}]},
        NAMESPACE | {"badblocks": [{"offset": 8208.0, "length": 8}]},
        NAMESPACE | {"badblocks": [{"offset": 2**63, "length": 8}]},
        NAMESPACE | {"badblocks": [{"offset": 8, "length": 2**70}]},
        NAMESPACE | {"badblocks": [{"offset": 8}]},
        NAMESPACE | {"badblocks": 8},
        {key: value for key, value in NAMESPACE.items() if key != "badblocks"},
    ],
)
def test_json_without_a_list_of_bad_blocks_is_refused(listing: object) -> None:
    with pytest.raises(ValueError, match=r"source is|ndctl: line 1, column \d+"):
        FaultMap.from_ndctl(json.dumps(listing))


@pytest.mark.parametrize("text", ["\ufeff{}", "libndctl: failed\n[]", json.dumps(NAMESPACE)[:-20], "[" * 100_000])
def test_malformed_json_is_an_error_with_line_and_column(text: str) -> None:
    with pytest.raises(ValueError, match=r"ndctl: line \d+, column \d+"):
        FaultMap.from_ndctl(text)


def test_more_blocks_counted_than_listed_is_incomplete() -> None:
    found = FaultMap.from_ndctl(json.dumps(NAMESPACE | {"badblock_count": 21968}))
    assert (listed(found), found.incomplete) == (IN_NAMESPACE, True)
    assert not FaultMap.from_ndctl(json.dumps(NAMESPACE)).incomplete


POSTED = {
    "version 1.14, without a pass": "# Rescue Logfile. Created by GNU ddrescue version 1.14\n"
    "# current_pos  current_status\n"
    "0x46FFF000     -\n#      pos        size  status\n0x00000000  0x1000  +\n0x00001000  0x0200  -\n0x1200 0x100 +\n",
    "spaces at the ends": "\n # current_pos  current_status \n 0x3A414E00     + \n"
    " 0x0  0x1000  + \n 0x1000  0x0200  - \n",
    "CRLF and tabs": "# Mapfile\r\n0x0\t?\t1\r\n0x0\t0x1000\t+\r\n0x1000\t0x200\t*\r\n0x1200\t0x100\t+\r\n",
    "comments behind": "0x0 + 1 # done\n0x0 0x1000 + # fine\n0x1000 0x200 / # not scraped\n",
    "fill mode": "0x1000 F 1\n0x0 0x1000 +\n0x1000 0x200 -\n",
    "generate mode, decimal": "0 G\n0 4096 +\n4096 512 -\n4608 256 +\n",
    "octal and signs": "0 +\n+0 010000 +\n010000 01000 -",
    "a position beyond the blocks": "0x7FFFFFFFFFFFFFFF / 12\n0x0 0x1000 +\n0x1000 0x200 -\n",
    "comments in other scripts": "# \u00fc\u4e2d.img\n# \x00 odd\n0x0 + 1\n0x0 0x1000 +\n0x1000 0x200 -\n",
}


@pytest.mark.parametrize("name", POSTED)
def test_published_mapfiles_are_read(name: str) -> None:
    for base in (0, 1 << 40):
        found = FaultMap.from_mapfile(POSTED[name], base=base)
        assert (listed(found), found.incomplete) == ([(base + 0x1000, 0x200)], False)


def test_a_mapfile_with_bytes_that_were_not_tried_is_incomplete() -> None:
    found = FaultMap.from_mapfile("0x0 ? 1\n0x0 0x1000 +\n0x1000 0x200 -\n0x1200 0x7FFFFFFFFFFFEDFF ?\n")
    assert (listed(found), found.incomplete) == ([(0x1000, 0x200)], True)
    assert len(FaultMap.from_mapfile("0x0     +\n0x00000000  0x00000000  ?\n")) == 0


@pytest.mark.parametrize(
    "text",
    [
        "# Rescue Logfile. Created by GNU ddrescue version 1.2\n0x00000000  0x1000  -\n0x1000  0x200  /\n",
        "      1 # Rescue Logfile\n      2 0x00000000  0x1000  -\n",
        "0 + 1\n0 0x1000 +\n0x2000 0x200 -\n",
        "0 + 1\n0 0x1000 +\n0x800 0x200 -\n",
        "0 + 1\n0 0x1000 +\n0x1000 0x2",
        "> 0 + 1\n> 0 0x1000 +\n",
        "\ufeff0 + 1\n0 0x1000 +\n",
        "\uff10 + 1\n0 0x1000 +\n",
        "# Mapfile. Created by GNU ddrescue version 1.27\n",
        "",
    ],
)
def test_a_malformed_mapfile_is_an_error_with_line_and_column(text: str) -> None:
    with pytest.raises(ValueError, match=r"mapfile: line \d+, column \d+"):
        FaultMap.from_mapfile(text)


def test_a_mapfile_of_many_lines_survives_the_round_trip() -> None:
    count = 1 << 18
    blocks = "".join(f"0x{n << 12:08X}  0x1000  {'-' if n % 2 else '+'}\n" for n in range(count))
    found = FaultMap.from_mapfile("0 + 1\n" + blocks)
    assert len(found) == count // 2
    assert FaultMap.from_mapfile(found.to_mapfile(1 << 30)) == found
