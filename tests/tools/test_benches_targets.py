"""Targets: which row has which, what a ratio is worth, and what excuses it."""

from __future__ import annotations

import re

import pytest
from iovec_rs._bench.harness import Row, Table

from benches import judge, targets
from benches.summary import read_all
from benches.targets import Allowed, Taken, Target

LEVEL = Target("t", "r", 1.0, level=0.97)
LIMITED = Target("t", "r", 20.0, least="the least")
OF_INTEL = Target("t", "r", 1.35, families={"Intel": Allowed(1.0, "the drain")})


@pytest.mark.parametrize(
    ("wanted", "family", "ratio", "least", "word"),
    [
        (Target("t", "r", 10.0), "AMD", 10.0, None, "met"),
        (Target("t", "r", 10.0), "AMD", 9.99, None, "MISSED"),
        (LEVEL, "AMD", 1.2, None, "met"),
        (LEVEL, "AMD", 0.97, None, "level"),
        (LEVEL, "AMD", 0.96, None, "MISSED"),
        (LIMITED, "AMD", 1.5, None, "MISSED"),  # nothing shows that the machine allows no more
        (LIMITED, "AMD", 1.5, 0.9, "physics"),  # the least reaches 1.67, and ours takes 1.11 times as long
        (LIMITED, "AMD", 1.5, 0.79, "MISSED"),  # ours takes 1.27 times as long
        (LIMITED, "AMD", 18.0, 0.85, "MISSED"),  # the least reaches 21
        (LIMITED, "AMD", 20.0, 0.1, "met"),
        (OF_INTEL, "Intel", 1.05, None, "physics"),
        (OF_INTEL, "Intel", 0.99, None, "MISSED"),
        (OF_INTEL, "AMD", 1.05, None, "MISSED"),
        (OF_INTEL, "unknown", 1.4, None, "met"),
    ],
)
def test_a_ratio_is_judged(wanted: Target, family: str, ratio: float, least: float | None, word: str) -> None:
    assert targets.judge(wanted, family, ratio, least).word == word


def test_a_verdict_says_what_shows_the_limit() -> None:
    assert targets.judge(LIMITED, "AMD", 1.5, 0.75) == (">=20.00", "MISSED", "2.00 is what 'the least' reaches")
    assert targets.judge(OF_INTEL, "Intel", 1.1, None).note == "1.00 can be had: the drain"


def test_the_cheapest_rival_carries_the_target_that_is_of_whichever_is() -> None:
    rows = [Taken("ours", 10.0, None), Taken("dear", 30.0, 3.0), Taken("cheap", 5.0, 0.5)]
    found = targets.verdicts("import: import_iovec of 1024 segments: list of bytes", rows, "AMD")
    assert [(verdict.target, verdict.word) for verdict in found] == [("", ""), ("", ""), (">=0.67", "MISSED")]


def test_a_table_gets_its_targets_and_a_quick_one_no_verdicts() -> None:
    def table() -> Table:
        rows = [Row("memcpy_flushcache", 1.0, 1.0), Row("mv[:] = mv", 1.2, 1.2, ratio=1.2)]
        return Table("durable", "flat, 262144 KiB, memcpy_flushcache", "ns/op", rows)

    intel, quick = table(), table()
    targets.apply(intel, "Intel(R) Xeon(R) Processor", is_quick=False)
    targets.apply(quick, "Intel(R) Xeon(R) Processor", is_quick=True)
    assert [(row.target, row.verdict) for row in intel.rows] == [("", ""), (">=1.40", "physics")]
    assert intel.notes == ["mv[:] = mv: 1.15 can be had: memcpy streams there, too."]
    assert [(row.target, row.verdict) for row in quick.rows] == [("", ""), (">=1.40", "")]
    assert quick.notes == []


def test_every_target_is_of_a_row_that_is_there() -> None:
    """A pattern that fits nothing is a target that nobody checks. Benches and jobs that no record has are left out."""
    unrecorded = ("call: copy_to_iter of ", r"(gather|scatter), \d+ KiB x 64 B at ")
    known = [(table.title, row.name) for record in read_all() for table in record.tables for row in table.rows]
    benches = {title.partition(":")[0] for title, _ in known if ":" in title} | {"flat, ", "(gather|scatter), "}
    judged = [wanted for wanted in targets.TARGETS if wanted.title.startswith(tuple(benches))]
    missing = [
        wanted
        for wanted in judged
        if wanted.rival != targets.CHEAPEST
        and not wanted.rival.endswith("on its cliff")
        and not any(re.fullmatch(wanted.title, title) and re.fullmatch(wanted.rival, name) for title, name in known)
    ]
    assert len(judged) > 20
    assert [wanted.title for wanted in missing if not wanted.title.startswith(unrecorded)] == []


NATIVE = """\
isa avx2, write-backs by clwb

flat, 64 B, hot source + 0, cold destination + 0
                                         ns/op         min   GB/s  ratio
memcpy_flushcache                        100.0        90.0   0.64
pmem_memcpy_persist                      120.0        95.0   0.53   1.20
the least: stores, a fence                90.0        85.0   0.71   0.90

careful, 64 B, hot
                                         ns/op         min   GB/s  ratio
copy_to_iter_mcsafe                        5.8         5.7  11.00
memcpy                                     2.0         1.9  32.00   0.34
"""


def test_the_native_bench_is_judged_as_it_comes() -> None:
    lines = list(judge.judged(NATIVE.splitlines(), "AMD"))
    assert lines[:6] == [
        "isa avx2, write-backs by clwb",
        "",
        "flat, 64 B, hot source + 0, cold destination + 0",
        "                                         ns/op         min   GB/s  ratio  target",
        "memcpy_flushcache                        100.0        90.0   0.64",
        "pmem_memcpy_persist                      120.0        95.0   0.53   1.20  >=1.35  physics",
    ]
    assert lines[7] == "  pmem_memcpy_persist: 1.33 is what 'the least: stores, a fence' reaches."
    assert lines[8:10] == ["", "careful, 64 B, hot"]
    assert lines[-4:] == [
        "copy_to_iter_mcsafe                        5.8         5.7  11.00",
        "memcpy                                     2.0         1.9  32.00   0.34",
        "",
        "targets: 1 physics",
    ]


def test_a_quick_native_run_is_not_judged() -> None:
    lines = list(judge.judged(["quick: too short to be judged", *NATIVE.splitlines()], "AMD"))
    assert any(line.endswith(">=1.35") for line in lines)
    assert lines[-1] == "targets: not judged"


def test_a_line_that_is_no_row_of_its_table_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="careful, 64 B, hot: no row of a table: 'panicked'"):
        list(judge.judged([*NATIVE.splitlines(), "panicked"], "AMD"))
