"""The benches run from end to end at tiny sizes, and their harness compares the right contestants."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from iovec_rs import WRITE, IovIter, copy_from_iter_flushcache
from iovec_rs._bench import libpmem
from iovec_rs._bench.harness import (
    Case,
    Contestant,
    MismatchError,
    Row,
    Table,
    measure,
    per_op,
    prove,
    quiet,
    race,
    ratio,
)
from iovec_rs._bench.report import render, summary

from benches import plots, records
from benches.__main__ import BENCHES, main
from benches.durable.ground import Ground
from benches.durable.threads import CPUS, Workers

ROOT = Path(__file__).resolve().parent.parent.parent

# The contestants that every table of a bench must contain, even if others are added later.
CONTESTANTS: dict[str, set[str]] = {
    "call": {"iovec_rs, ubuf", "mv[:] = other"},  # those of the directions have more; see below
    "vectored": {
        "iovec_rs, kvec",
        "iovec_rs, iovec of buffers",
        "iovec_rs, iovec of UserRange",
        "np.copyto loop",
        "ctypes.memmove loop",
    },
    "cliff": {f"(dst - src) mod 4096 = {distance}" for distance in (0, 1, 4, 8, 15, 16, 17, 64, 2048)},
    "import": {"memoryview(b).release() loop", "[memoryview(b) for b in l]", "list(map(memoryview, l))"},
    "memory": {"iovec_rs, iovec of UserRange", "iovec_rs, kvec of memoryviews", "iovec_rs, kvec of bytes"},
    "fault": set(),  # its tables have different subjects
    "durable": set(),  # its tables are by job; see below
    "integrity": set(),  # one table for sums, one for ranges
    "log": set(),  # one table for appends, one for publications
    "io": set(),  # each table has its own contestants
    "guard": set(),  # its tables have different subjects
    "growth": set(),  # its rows are numbers of segments or of ranges
}

# The contestants of the durable tables, by title: ours comes first, then those that need no libpmem.
DURABLE = {
    "flat, 64 KiB, memcpy_flushcache": [
        "memcpy_flushcache",
        "memcpy_nocache",
        "mv[:] = mv",
        "mv[:] = mv, pmem.persist",
        "limit: the fastest copy known",
    ],
    "flat, 64 KiB, copy_from_iter_flushcache": [
        "copy_from_iter_flushcache",
        "mv[:] = mv",
        "limit: the fastest copy known",
    ],
    "256 tensors of 64 KiB to a tmpfs file, copy_from_iter_flushcache": [
        "copy_from_iter_flushcache",
        "ctypes.memmove each",
        "ctypes.memmove each, pmem.persist",
    ],
    "256 tensors of 64 KiB to a tmpfs file, PmemRegion.write": ["PmemRegion.write", "ctypes.memmove each"],
    "256 tensors of 64 KiB to anonymous memory, copy_from_iter_flushcache": [
        "copy_from_iter_flushcache",
        "ctypes.memmove each",
        "ctypes.memmove each, pmem.persist",
    ],
    "1 MiB by two threads and by one": [
        "memcpy_flushcache, two threads",
        "memcpy_flushcache, one thread",
        "mv[:] = mv, two threads",
        "mv[:] = mv, one thread",
    ],
    **{
        f"{job} of 64 KiB in segments of {size} B": [name, "memcpy_flushcache each", "d[:] = s, pmem.persist each"]
        for size in (64, 4096)
        for job, name in (("gather", "copy_from_iter_flushcache"), ("scatter", "copy_to_iter_flushcache"))
    },
}


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of one quick run of all benches, started by the README's command."""
    path = tmp_path_factory.mktemp("benches") / "quick.json"
    command = [sys.executable, "-m", "benches", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    loaded["stdout"] = done.stdout
    return loaded


class Clock:
    """A clock that moves only when work is done, so that figures are exact."""

    def __init__(self) -> None:
        self.now = 0

    def spend(self, nanoseconds: int) -> None:
        self.now += nanoseconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr("iovec_rs._bench.harness.perf_counter_ns", lambda: stopped.now)
    return stopped


def logged(name: str, log: list[str], result: bytes = b"same") -> Contestant:
    return Contestant(name, lambda: log.append(name), lambda: result, lambda: log.append(f"prepare {name}"))


def test_a_quick_run_covers_every_bench_with_identical_bytes(record: dict[str, Any]) -> None:
    assert {table["bench"] for table in record["tables"]} == set(BENCHES) == set(CONTESTANTS)
    assert all(table["identical"] is True for table in record["tables"])


@pytest.mark.parametrize("bench", CONTESTANTS)
def test_every_table_holds_its_contestants_with_figures(record: dict[str, Any], bench: str) -> None:
    tables = [table for table in record["tables"] if table["bench"] == bench]
    for table in tables:
        assert {row["name"] for row in table["rows"]} >= CONTESTANTS[bench], table["title"]
        if bench not in {"memory", "guard", "growth"}:  # not all of their tables compare contestants
            assert all(row["median"] >= row["minimum"] > 0 for row in table["rows"]), table["title"]
            assert table["rows"][0]["ratio"] is None
            assert table["rows"][1]["ratio"] > 0


def test_every_printed_row_can_be_read_again(record: dict[str, Any]) -> None:
    printed = list(records.tables(record["stdout"].splitlines()))
    assert [table.title for table in printed] == [f"{table['bench']}: {table['title']}" for table in record["tables"]]
    for read, table in zip(printed, record["tables"], strict=True):
        assert [row.name for row in read.rows] == [row["name"].strip() for row in table["rows"]], table["title"]
        assert [row.target for row in read.rows] == [row["target"] for row in table["rows"]], table["title"]


@pytest.mark.parametrize("bench", CONTESTANTS)
def test_every_bench_carries_targets_but_a_quick_run_judges_none(record: dict[str, Any], bench: str) -> None:
    rows = [row for table in record["tables"] if table["bench"] == bench for row in table["rows"]]
    assert any(row["target"] for row in rows)
    assert not any(row["verdict"] for row in rows)


def test_calls_are_measured_in_both_directions_and_by_what_is_copied_from(record: dict[str, Any]) -> None:
    tables = {table["title"]: table["rows"] for table in record["tables"] if table["bench"] == "call"}
    directions = [f"{function}, {size} B" for size in (8, 64, 4096) for function in ("copy_to_iter", "copy_from_iter")]
    heap = ["one memoryview", "fresh slices of a memoryview", "bytes", "a bytearray", "an array"]
    heap += ["an array over a bytearray"]
    mapped = ["an mmap", "one memoryview of an mmap", "fresh slices of a memoryview of an mmap"]
    sources = [f"copy_to_iter of {source}, {size} B" for source in heap for size in (64, 4096)]
    sources += [f"copy_to_iter of {source}, {size} B" for source in mapped for size in (64, 2048, 65536)]
    assert list(tables) == directions + sources
    for title in directions:
        names = {row["name"] for row in tables[title]}
        assert names == {"iovec_rs, ubuf", "iovec_rs, kvec", "mv[:] = other", "np.copyto", "ctypes.memmove"}
    for title in sources:
        assert {row["target"] != "" for row in tables[title] if row["ratio"] is not None} == {
            "mmap, 64 B" not in title
        }, title


def test_faults_are_measured_in_all_their_costs(record: dict[str, Any]) -> None:
    names = {row["name"] for table in record["tables"] if table["bench"] == "fault" for row in table["rows"]}
    assert names >= {
        "copy_to_iter_mcsafe",
        "copy_to_iter",
        "mcsafe, an empty map",
        "mcsafe, a million ranges elsewhere",
        "mcsafe, a million ranges around it",
        "memory gone",
        "in one copy",
        "in copies of 1 MiB",
        "a range that cannot be read",
    }


def test_growth_memory_and_threads_are_measured_and_drawn(record: dict[str, Any], tmp_path: Path) -> None:
    tables = [table for table in record["tables"] if table["bench"] == "growth"]
    assert [table["unit"] for table in tables] == ["ns/seg", "ns/seg", "ns/seg", "bytes/seg", "ns/call", "bytes/range"]
    assert plots.points(tables[0])[0] == [1000]
    assert plots.points(tables[4])[0] == [1000], "no ranges have no place on a logarithmic axis"
    (tmp_path / "record.json").write_text(json.dumps({key: record[key] for key in ("host", "tables")}))
    prefixes = [tmp_path / name for name in ("once", "again")]
    for prefix in prefixes:
        assert plots.main([str(tmp_path / "record.json"), str(prefix)]) == 0
    for plot in plots.PLOTS:
        first, second = (Path(f"{prefix}-{plot}.svg").read_bytes() for prefix in prefixes)
        assert first == second, "a record that did not change changes no file"
        assert len(first) < 60_000
        titles = [title for title, _ in plots.PLOTS[plot](record)]
        assert titles
        assert all(title in first.decode() for title in titles)
    memory = (tmp_path / "once-memory.svg").read_text(encoding="utf-8")
    assert "kvec of memoryviews" in memory
    assert "memcpy_flushcache, two threads" in (tmp_path / "once-threads.svg").read_text(encoding="utf-8")


def test_what_a_record_lacks_is_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    path.write_text('{"tables": [], "host": {}}', encoding="utf-8")
    assert plots.main([str(path), str(tmp_path / "zen9")]) == 0
    assert capsys.readouterr().out.count("not drawn, the record has nothing of it") == len(plots.PLOTS)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"host": {}}'])
def test_what_is_no_record_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text, encoding="utf-8")
    assert plots.main([str(path), str(tmp_path / "zen9")]) == 1
    assert f"benches.plots: {path}: " in capsys.readouterr().err
    assert plots.main([str(tmp_path / "none.json"), str(tmp_path / "zen9")]) == 1


def test_both_directions_are_measured(record: dict[str, Any]) -> None:
    titles = " ".join(table["title"] for table in record["tables"])
    for job in ("copy_to_iter, 8 B", "copy_from_iter, 4096 B", "gather (copy_from_iter)", "scatter (copy_to_iter)"):
        assert job in titles


def test_the_durable_jobs_hold_their_contestants_and_libpmem_if_it_is_there(record: dict[str, Any]) -> None:
    tables = {table["title"]: table for table in record["tables"] if table["bench"] == "durable"}
    names = {title: [row["name"] for row in table["rows"]] for title, table in tables.items()}
    assert {title: [name for name in row if not is_libpmem(name)] for title, row in names.items()} == DURABLE
    takes_part = {title for title, row in names.items() if any(is_libpmem(name) for name in row)}
    if libpmem.load() is None:
        assert takes_part == set()
        assert all(libpmem.ABSENT in table["notes"] for table in tables.values())
    else:
        assert takes_part == {title for title, row in DURABLE.items() if "pmem.persist" in " ".join(row)}
        assert not any(libpmem.ABSENT in table["notes"] for table in tables.values())


def is_libpmem(name: str) -> bool:
    return name.startswith("libpmem") or name == "the same with one drain at the end"


def test_a_table_says_that_libpmem_is_absent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(libpmem, "SONAME", "libnowhere.so.1")
    assert libpmem.main() == 1
    assert "libnowhere.so.1" in capsys.readouterr().out
    ground = Ground(quick=True)
    case = Case("x", Contestant("ours", int, bytes), [Contestant("rival", int, bytes)], ops=1, rounds=1)
    assert ground.library is None
    assert ground.measure(case).notes == [libpmem.ABSENT]


def test_a_rewound_durable_iterator_gives_its_bytes_again() -> None:
    ground = Ground(quick=True)
    i = IovIter.kvec(WRITE, [b"one", b"two"])
    rewind = ground.rewinding([i])
    for _ in range(2):
        rewind()
        out = bytearray(6)
        assert copy_from_iter_flushcache(out, i) == 6
        assert out == b"onetwo"


def test_two_workers_sit_on_two_cpus_if_there_are_two() -> None:
    with quiet(), Workers() as workers:
        meet = threading.Barrier(2)

        def sit() -> set[int]:
            meet.wait(timeout=120)
            return os.sched_getaffinity(0)

        seats = [future.result() for future in [workers.submit(sit), workers.submit(sit)]]
    assert all(len(seat) == 1 for seat in seats)
    assert len(set.union(*seats)) == min(2, len(CPUS))


def test_stdout_carries_the_tables_and_fits_a_terminal(record: dict[str, Any]) -> None:
    lines = record["stdout"].splitlines()
    for table in record["tables"]:
        assert f"{table['bench']}: {table['title']}" in lines
    assert lines[-1] == "targets: not judged"
    assert max(len(line) for line in lines[1:]) <= 90


def test_an_unknown_bench_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["nothing"])
    assert stop.value.code == 2
    assert "no such bench: nothing" in capsys.readouterr().err


def test_one_bench_can_be_named_by_its_file_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quick", "bench_import"]) == 0
    printed = capsys.readouterr().out
    assert "import: import_iovec of 1024 segments" in printed
    assert "vectored:" not in printed


def test_a_race_prepares_before_every_sample_and_rotates_the_order() -> None:
    log: list[str] = []
    samples = race([logged(name, log) for name in "abc"], rounds=3, warmup=1)
    assert [name for name in log if len(name) == 1] == list("abcbcacababc")
    assert [f"prepare {name}" for name in log[1::2]] == log[0::2]
    assert [len(taken) for taken in samples] == [3, 3, 3]


def test_a_race_credits_each_sample_to_its_contestant_and_times_no_preparation(clock: Clock) -> None:
    slow = Contestant("slow", lambda: clock.spend(700), bytes, lambda: clock.spend(9_000))
    fast = Contestant("fast", lambda: clock.spend(20), bytes, lambda: clock.spend(5_000))
    assert race([slow, fast], rounds=4) == [[700] * 4, [20] * 4]


def test_different_bytes_stop_a_case_before_any_time_is_taken() -> None:
    log: list[str] = []
    case = Case("x", logged("ours", log), [logged("rival", log, b"other")], ops=1, rounds=5)
    with pytest.raises(MismatchError, match="'rival' and 'ours'"):
        measure("bench", case)
    assert log == ["prepare ours", "ours", "prepare rival", "rival"]


def test_the_proof_destroys_the_output_first_so_an_idle_contestant_cannot_pass() -> None:
    out = bytearray(4)

    def work() -> None:
        out[:] = b"done"

    def scrub() -> None:
        out[:] = bytes(4)

    honest = Contestant("honest", work, lambda: bytes(out))
    idle = Contestant("idle", lambda: None, lambda: bytes(out))
    with pytest.raises(MismatchError):
        prove([honest, idle], scrub)
    assert prove([honest, honest], scrub) == prove([honest], scrub)


def test_the_idle_loop_is_subtracted_and_shared_out_over_the_operations() -> None:
    assert per_op([110, 210, 310], ops=10, idle=10.0) == (20.0, 10.0)
    middle, least = per_op([5, 5, 5], ops=1, idle=50.0)
    assert middle > 0, "a ratio must never divide by nothing"
    assert least > 0


def test_a_ratio_is_taken_round_by_round() -> None:
    ours, theirs = [10, 20, 10, 30, 10], [20, 40, 20, 60, 20]
    assert ratio(ours, theirs) == 2.0
    assert ratio(ours, [30, 40, 30, 60, 10]) == 2.0, "the ratio of the medians would be 3"
    assert ratio([60, 60, 60], [110, 160, 210], idle=10.0) == 3.0
    with pytest.raises(ValueError, match="argument 2"):
        ratio([1, 2], [1])


def test_the_ratio_is_the_rivals_time_over_ours(clock: Clock) -> None:
    costs = {"ours": 1_100, "dear": 3_100, "cheap": 600}
    ours, *rivals = (Contestant(name, partial(clock.spend, ns), bytes) for name, ns in costs.items())
    case = Case(
        "x",
        ours,
        rivals,
        ops=10,
        op_bytes=50,
        rounds=5,
        idle=lambda: clock.spend(100),
    )
    table = measure("bench", case)
    assert [(row.name, row.median, row.minimum) for row in table.rows] == [
        ("ours", 100.0, 100.0),
        ("dear", 300.0, 300.0),
        ("cheap", 50.0, 50.0),
    ]
    assert [row.ratio for row in table.rows] == [None, 3.0, 0.5]
    assert [row.rate for row in table.rows] == [0.5, 50 / 300, 1.0]


def test_the_machine_is_quiet_during_a_run_and_itself_again_afterwards() -> None:
    allowed = os.sched_getaffinity(0)
    assert gc.isenabled()
    with quiet():
        assert len(os.sched_getaffinity(0)) == 1
        assert not gc.isenabled()
    assert os.sched_getaffinity(0) == allowed
    assert gc.isenabled()


def test_the_summary_counts_verdicts() -> None:
    rows = [Row("a", 1.0, 1.0, verdict=verdict) for verdict in ("met", "", "MISSED", "met", "level")]
    table = Table("bench", "title", "ns/op", rows)
    assert summary([table]) == "targets: 1 MISSED, 1 level, 2 met"
    assert "bench: title" in render(table)
