"""The table over machines says what is in their records, and is up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs._bench.harness import Row, Table
from iovec_rs._bench.report import render

from benches import summary

if TYPE_CHECKING:
    from pathlib import Path

NATIVE = """
isa avx512, write-backs by clwb

flat, 8 B, hot source + 0, cold destination + 0
                                         ns/op         min   GB/s  ratio  target
memcpy_flushcache                        100.0        90.0   0.08
pmem_memcpy_persist                      105.0        95.0   0.08   1.05  >=1.35  MISSED
memcpy (not durable)                      50.0        45.0   0.16   0.50
"""


def record(folder: Path, name: str) -> summary.Record:
    table = Table("call", "copy_to_iter, 64 B", "ns/op")
    table.rows = [
        Row("iovec_rs, ubuf", 50.0, 48.0),
        Row("mv[:] = other", 30.0, 28.0, ratio=0.6, target=">=0.50", verdict="met"),
        Row("np.copyto", 20.0, 18.0, rate=3.5, ratio=0.4, target=">=1.00", verdict="MISSED"),
        Row("memory", 20.0, 18.0, target="<40", verdict="MISSED"),
    ]
    path = folder / f"{name}.txt"
    path.write_text(f"cpu of a test, cpus 2\n{render(table)}\n{NATIVE}", encoding="utf-8")
    return summary.read(path)


def test_a_record_of_either_harness_is_read(tmp_path: Path) -> None:
    rows = record(tmp_path, "zen9").rows
    assert [(row.name, row.ratio, row.target, row.verdict) for row in rows] == [
        ("iovec_rs, ubuf", None, "", ""),
        ("mv[:] = other", 0.6, ">=0.50", "met"),
        ("np.copyto", 0.4, ">=1.00", "MISSED"),
        ("memory", None, "<40", "MISSED"),
        ("memcpy_flushcache", None, "", ""),
        ("pmem_memcpy_persist", 1.05, ">=1.35", "MISSED"),
        ("memcpy (not durable)", 0.5, "", ""),
    ]
    assert rows[0].title == "call: copy_to_iter, 64 B"
    assert rows[5].title == "flat, 8 B, hot source + 0, cold destination + 0"


def test_what_a_family_does_not_allow_is_physics_there_alone_and_only_down_to_what_it_allows(tmp_path: Path) -> None:
    amd, intel = record(tmp_path, "zen9"), record(tmp_path, "emerald_lake")
    assert amd.counts() == {"met": 1, "MISSED": 3}
    assert intel.counts() == {"met": 1, "MISSED": 2, "physics": 1}
    row = intel.rows[5]
    assert summary.judged(intel, row) == ("physics", "1.00 can be had: the drain takes 135 to 190 ns")
    row.ratio = 0.9
    assert summary.judged(intel, row)[0] == "MISSED"


def test_the_page_has_a_table_over_machines_and_one_of_losses_for_each(tmp_path: Path) -> None:
    text = summary.page([record(tmp_path, "zen9"), record(tmp_path, "emerald_lake")])
    assert "| [zen9](zen9.txt) | cpu of a test, cpus 2 | 1 | 0 | 3 | 0 |" in text
    assert "| [emerald_lake](emerald_lake.txt) | cpu of a test, cpus 2 | 1 | 0 | 2 | 1 |" in text
    assert "| one call, 64 B | `mv[:] = other` | 0.60 | 0.60 |" in text
    lost = text.partition("### emerald_lake")[2].splitlines()[4:]
    assert [line.split(" | ")[1] for line in lost] == ["`memory`", "`np.copyto`", "`pmem_memcpy_persist`"]
    assert lost[-1].endswith("| physics: 1.00 can be had: the drain takes 135 to 190 ns |")


def test_a_file_without_tables_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "zen9.txt"
    path.write_text("cpu of a test\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no table of a bench"):
        summary.read(path)


def test_the_page_is_what_its_records_make_it() -> None:
    records = [summary.read(path) for path in sorted(summary.RESULTS.glob("*.txt"))]
    assert summary.PAGE.read_text(encoding="utf-8") == summary.page(records), "run python -m benches.summary"
    assert {record.family for record in records} == {"AMD", "Intel"}
