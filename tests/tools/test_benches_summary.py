"""The tables made from the records agree with them and are up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from iovec_rs._bench.harness import Row, Table
from iovec_rs._bench.report import render

from benches import figures, records, summary

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


def record(folder: Path, name: str, cpu: str, version: str = "1234567 of 2026-01-02") -> records.Record:
    table = Table("call", "copy_to_iter, 64 B", "ns/op")
    table.rows = [
        Row("iovec_rs, ubuf", 50.0, 48.0),
        Row("mv[:] = other", 30.0, 28.0, ratio=0.6, target=">=0.50", verdict="met"),
        Row("np.copyto", 20.0, 18.0, rate=3.5, ratio=0.4, target=">=1.00", verdict="MISSED"),
        Row("memory", 20.0, 18.0, target="<40", verdict="MISSED"),
        Row("a map", 20.0, 18.0, ratio=2.0, target="+100 ns", verdict="met"),
        Row("a long time", 112520124.0, 109271992.0),
    ]
    path = folder / f"{name}.txt"
    path.write_text(f"commit {version}\ncpu {cpu}, cpus 2\n{render(table)}\n{NATIVE}", encoding="utf-8")
    return records.read(path)


def test_a_record_of_either_harness_is_read(tmp_path: Path) -> None:
    known = record(tmp_path, "zen9", "AMD EPYC")
    assert (known.machine, known.version, known.family) == ("zen9", "1234567 of 2026-01-02", "AMD")
    assert [table.title for table in known.tables] == [
        "call: copy_to_iter, 64 B",
        "flat, 8 B, hot source + 0, cold destination + 0",
    ]
    assert [row for table in known.tables for row in table.rows] == [
        ("iovec_rs, ubuf", 50.0, None, "", ""),
        ("mv[:] = other", 30.0, 0.6, ">=0.50", "met"),
        ("np.copyto", 20.0, 0.4, ">=1.00", "MISSED"),
        ("memory", 20.0, None, "<40", "MISSED"),
        ("a map", 20.0, 2.0, "+100 ns", "met"),
        ("a long time", 112520124.0, None, "", ""),
        ("memcpy_flushcache", 100.0, None, "", ""),
        ("pmem_memcpy_persist", 105.0, 1.05, ">=1.35", "MISSED"),
        ("memcpy (not durable)", 50.0, 0.5, "", ""),
    ]


def test_ratios_are_judged_by_todays_targets_and_other_verdicts_stay(tmp_path: Path) -> None:
    known = record(tmp_path, "zen9", "AMD EPYC")
    assert [(row.name, found.target, found.word) for _, row, found in known.rows() if found.word] == [
        ("mv[:] = other", ">=0.95", "MISSED"),
        ("np.copyto", ">=1.00", "MISSED"),
        ("memory", "<40", "MISSED"),
        ("a map", "+100 ns", "met"),
        ("pmem_memcpy_persist", ">=1.35", "MISSED"),
    ]


def test_the_page_has_a_table_over_machines_with_their_versions_and_one_of_losses_for_each(tmp_path: Path) -> None:
    amd = record(tmp_path, "zen9", "AMD EPYC")
    intel = record(tmp_path, "emerald_lake", "Intel(R) Xeon(R)", "89abcde of 2025-12-31")
    (tmp_path / "zen9-growth.svg").touch()
    text = summary.page([amd, intel], tmp_path)
    plots = "[growth](zen9-growth.svg)"
    assert f"| [zen9](zen9.txt) ({plots}) | 1234567 of 2026-01-02 | cpu AMD EPYC, cpus 2 | 1 | 0 | 0 | 4 |" in text
    assert "| [emerald_lake](emerald_lake.txt) | 89abcde of 2025-12-31 | cpu Intel(R) Xeon(R), cpus 2 | 1 | 0 |" in text
    assert "| one copy of 64 B; of 4 KiB | `mv[:] = other` | 0.60; not measured | 0.60; not measured |" in text
    lost = text.partition("### emerald_lake, 89abcde of 2025-12-31")[2].splitlines()[4:]
    assert [line.split(" | ")[1] for line in lost] == ["`memory`", "`np.copyto`", "`mv[:] = other`", PERSIST]
    assert "| physics: 1.00 can be had: " in lost[-1]


PERSIST = "`pmem_memcpy_persist`"


def test_figures_stand_between_their_markers_and_name_the_machine(tmp_path: Path) -> None:
    known = record(tmp_path, "zen9", "AMD EPYC")
    text = f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n"
    renewed = figures.renewed("README.md", text, [known])
    assert renewed.startswith(f"before\n{figures.BEGIN}\n")
    assert renewed.endswith(f"{figures.END}\nafter\n")
    assert "(zen9: AMD EPYC, " in renewed
    assert "commit 1234567 of 2026-01-02" in renewed
    assert "| one copy of 64 B; of 4 KiB | `mv[:] = other` | 0.60; not measured |" in renewed
    assert "old" not in renewed
    assert "gathered" not in renewed, "what was not measured is not shown"
    with pytest.raises(ValueError, match=r"README\.md: not between"):
        figures.renewed("README.md", "no markers", [known])


@pytest.mark.parametrize(
    ("ratios", "shown"),
    [([0.944], "0.94"), ([1.96], "1.96"), ([2.04], "2.0"), ([19.4], "19"), ([0.85, 1.2], "0.85 to 1.20")],
)
def test_a_ratio_is_shown_as_exactly_as_it_is_known(ratios: list[float], shown: str) -> None:
    assert figures.span(ratios) == shown


def test_a_file_without_tables_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "zen9.txt"
    path.write_text("cpu of a test\n", encoding="utf-8")
    with pytest.raises(ValueError, match="no table of a bench"):
        records.read(path)


def test_the_pages_are_what_the_records_make_them() -> None:
    known = summary.read_all()
    assert summary.PAGE.read_text(encoding="utf-8") == summary.page(known), "run python -m benches.summary"
    assert {record.family for record in known} == {"AMD", "Intel"}
    assert all(record.version for record in known), "make record writes the commit first"
    for page in figures.PAGES:
        text = (summary.ROOT / page).read_text(encoding="utf-8")
        assert figures.renewed(page, text, known) == text, "run python -m benches.summary"
