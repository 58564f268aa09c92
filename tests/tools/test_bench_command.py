"""`iovec-rs bench`: every option, wrong options, and a comparison with a wheel that is really installed."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import iovec_rs
import pytest
from iovec_rs import cpu
from iovec_rs._bench import against, worker
from iovec_rs._bench.harness import Case, Contestant, Row, fit
from iovec_rs._bench.memory import Broom, address, placed
from iovec_rs._bench.operations import OPERATIONS
from iovec_rs._bench.sweep import Point, Sweep, limit, render, sweep
from iovec_rs._bench.units import short
from iovec_rs._core import machine_limits
from iovec_rs.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGE = Path(iovec_rs.__file__).resolve().parent

SLOW_COPY = """
import time
_copy = copy_to_iter
def copy_to_iter(*args):
    time.sleep(0.002)
    return _copy(*args)
"""


def a_wheel(folder: Path, *, appended: str = "", name: str = "iovec_rs", tag: str = "cp311-abi3-linux_x86_64") -> Path:
    """A wheel of the package as installed here, with lines appended to its `__init__.py`."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-0.0.1-{tag}.whl"
    info = f"{name}-0.0.1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in PACKAGE.rglob("*"):
            inside = f"iovec_rs/{file.relative_to(PACKAGE)}"
            if inside == "iovec_rs/__init__.py":
                wheel.writestr(inside, file.read_text(encoding="utf-8") + appended)
            elif file.is_file() and "__pycache__" not in file.parts:
                wheel.write(file, inside)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
        wheel.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def bench(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iovec_rs", "bench", "--quick", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], Path]:
    """One quick run of all operations: its output, its JSON and its plot."""
    folder = tmp_path_factory.mktemp("bench")
    plot = folder / "plot.svg"
    done = bench("--json", str(folder / "figures.json"), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "figures.json").read_text(encoding="utf-8")), plot


def test_every_operation_is_shown_with_all_its_contestants(everything: tuple[str, dict[str, Any], Path]) -> None:
    printed, record, _ = everything
    assert [known["operation"] for known in record["sweeps"]] == list(OPERATIONS)
    for known in record["sweeps"]:
        assert f"{known['operation']}: {known['summary']}" in printed.splitlines()
        assert [point["size"] for point in known["points"]] == list(OPERATIONS[known["operation"]].quick_sizes)
        for point in known["points"]:
            assert len(point["rows"]) >= 2
            assert point["limit"] > 0
            assert all(row["median"] >= row["minimum"] > 0 for row in point["rows"])
            assert point["rows"][0]["ratio"] is None
            assert all(row["ratio"] > 0 for row in point["rows"][1:])
            assert all(f"  {row['name']}" in printed for row in point["rows"][1:])
    assert max(len(line) for line in printed.splitlines()[1:]) <= 100


def test_the_rivals_are_those_that_users_have(everything: tuple[str, dict[str, Any], Path]) -> None:
    names = {
        known["operation"]: {row["name"] for row in known["points"][0]["rows"]} for known in everything[1]["sweeps"]
    }
    assert names["copy"] >= {"mv[:] = mv", "ctypes.memmove", "np.copyto"}
    assert names["gather"] >= {'b"".join(views)', "out[p:q] = view", "np.take(out=), even grid only"}
    assert names["write"] >= {"os.pwritev"}
    assert names["read"] >= {"os.preadv"}
    assert names["durable"] >= {"d[:] = s, mmap.flush"}
    assert names["publish"] >= {"d[:] = s, flush_range", "d[:] = s, clflush loop"}
    assert names["consume"] >= {"flush_range, d[:] = s", "clflush loop, d[:] = s"}


def test_the_plot_is_a_picture_of_every_operation(everything: tuple[str, dict[str, Any], Path]) -> None:
    text = everything[2].read_text(encoding="utf-8")
    assert ET.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    for operation in OPERATIONS.values():
        assert operation.summary in text
    assert "limit of the machine" in text


def test_one_operation_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--quick", "publish"]) == 0
    printed = capsys.readouterr().out
    assert "publish: " in printed
    assert "copy: " not in printed


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (["nothing"], "no such operation: nothing (there are: copy, gather,"),
        (["--json", "/nowhere/figures.json"], "/nowhere/figures.json cannot be written"),
        (["--json", "/"], "/ cannot be written"),
        (["--plot", "picture.png"], "picture.png does not end in .svg"),
        (["--plot", "/nowhere/picture.svg"], "/nowhere/picture.svg cannot be written"),
        (["--plot", "picture.svg", "--against", "old.whl"], "--plot draws one version: not with --against"),
        (["--against"], "expected one argument"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], args: list[str], why: str
) -> None:
    assert main(["bench", "--quick", *args]) == 2
    printed = capsys.readouterr()
    assert why in printed.err
    assert printed.out == ""


def without(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def importing(name: str) -> object:
        if name == module:
            raise ImportError(f"No module named {module!r}")
        return import_module(name)

    monkeypatch.setattr("importlib.import_module", importing)


def test_a_plot_without_matplotlib_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    without("matplotlib", monkeypatch)
    assert main(["bench", "--quick", "copy", "--plot", str(tmp_path / "plot.svg")]) == 1
    printed = capsys.readouterr()
    assert "pip install 'iovec_rs[bench]'" in printed.err
    assert "GB/s" not in printed.out


def test_without_numpy_its_contestants_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without("numpy", monkeypatch)
    assert main(["bench", "--quick", "copy", "gather", "scatter"]) == 0
    printed = capsys.readouterr().out
    assert "ctypes.memmove" in printed
    assert "np." not in printed
    assert "grid[" not in printed


def test_contestants_that_disagree_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(iovec_rs, "copy_to_iter", lambda *_: 0)
    assert main(["bench", "--quick", "copy"]) == 1
    assert "produced different bytes" in capsys.readouterr().err


def test_the_flush_instruction_is_put_back(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cpu.flush_instructions():
        with cpu.use_flush_instruction(name):
            assert main(["bench", "--quick", "publish", "consume"]) == 0
            assert cpu.flush_instruction() == name
    capsys.readouterr()


def make_text(_: Path) -> str:
    return "not a zip file"


@pytest.mark.parametrize(
    ("name", "make", "why"),
    [
        ("gone.whl", None, "there is no such file"),
        ("iovec_rs-0.0.1-cp311-abi3-linux_x86_64.whl", make_text, "not a wheel"),
        ("folder.whl", Path.mkdir, "there is no such file"),
    ],
)
def test_what_is_no_wheel_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, make: Callable[[Path], Any] | None, why: str
) -> None:
    wheel = tmp_path / name
    made = make(wheel) if make is not None else None
    if made is not None:
        wheel.write_text(made, encoding="utf-8")
    assert main(["bench", "--quick", "--against", str(wheel)]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"iovec-rs bench: {wheel}: {why}")
    assert printed.out == "", "it is told before anything else is done"


def test_a_zip_file_without_metadata_is_no_wheel(tmp_path: Path) -> None:
    path = tmp_path / "iovec_rs-0.0.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("iovec_rs/__init__.py", "")
    with pytest.raises(against.WheelError, match="not a wheel"):
        against.check(path)


def test_a_wheel_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(against.WheelError, match="a wheel of numpy, not of iovec_rs"):
        against.check(a_wheel(tmp_path, name="numpy"))


def test_a_wheel_of_another_platform_is_refused(tmp_path: Path) -> None:
    wheel = a_wheel(tmp_path, tag="cp311-abi3-win_amd64")
    with pytest.raises(against.WheelError, match="is not a supported wheel on this platform"):
        against.install(wheel, tmp_path / "old")


def test_an_old_version_that_does_not_run_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wheel = a_wheel(tmp_path, appended="raise RuntimeError('broken on purpose')\n")
    assert main(["bench", "--quick", "copy", "--against", str(wheel)]) == 1
    assert "a version does not run: RuntimeError: broken on purpose" in capsys.readouterr().err


def test_an_old_version_that_is_slower_and_lacks_a_function(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wheel = a_wheel(tmp_path, appended=SLOW_COPY + "del Slot\n")
    figures = tmp_path / "figures.json"
    assert main(["bench", "--quick", "copy", "publish", "--against", str(wheel), "--json", str(figures)]) == 0
    record = json.loads(figures.read_text(encoding="utf-8"))
    verdicts = {(change["operation"], change["size"]): change for change in record["changes"]}
    assert verdicts["copy", 64]["verdict"] == "faster"
    assert len(verdicts["copy", 64]["ratios"]) == 2
    assert verdicts["publish", 32]["verdict"] == "left out"
    assert "Slot" in verdicts["publish", 32]["left_out"]
    assert "left out: the old one: AttributeError" in capsys.readouterr().out


def test_a_version_that_is_slower_in_every_pair_and_in_those_that_make_sure_is_a_regression(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The two versions change places: the wheel is the slower one, and is judged as if it were this version."""
    wheel = a_wheel(tmp_path, appended=SLOW_COPY)
    straight = against._measure
    monkeypatch.setattr(against, "_measure", lambda new, old, change, quick: straight(old, new, change, quick))
    changes, _ = against.compare(wheel, [OPERATIONS["copy"]], quick=True, tell=print)
    assert [change.verdict for change in changes] == ["SLOWER", "SLOWER"]
    assert all(len(change.ratios) == 4 for change in changes)
    assert "for the 2 that seem slower" in capsys.readouterr().out
    monkeypatch.setattr("iovec_rs._bench.against.compare", lambda *_: (changes, "0.0.1"))
    assert main(["bench", "copy", "--against", str(wheel)]) == 1
    assert "SLOWER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([1.2, 1.3, 1.06], "SLOWER"),
        ([1.2, 1.3, 1.04], ""),
        ([0.9, 0.8, 0.94], "faster"),
        ([0.9, 0.8, 0.96], ""),
        ([0.5, 2.0], ""),
    ],
)
def test_a_change_counts_if_every_pair_of_processes_shows_it(ratios: list[float], verdict: str) -> None:
    assert against.Change("copy", 64, ratios).verdict == verdict


def test_a_worker_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no such command here: 'run"):
        worker.serve(iter(["run\n"]), sys.stdout, quick=True)


def test_a_case_gets_as_many_rounds_as_fit() -> None:
    case = Case("x", Contestant("ours", int, bytes), [Contestant("rival", int, bytes)], ops=1)
    assert fit(case, 0.0).rounds == 5
    assert fit(case, 1.0).rounds == 301


def test_sizes_are_shown_as_people_write_them() -> None:
    assert [short(n) for n in (64, 1000, 1024, 1536, 4096, 1 << 20, 64 << 20)] == [
        "64",
        "1000",
        "1 Ki",
        "1536",
        "4 Ki",
        "1 Mi",
        "64 Mi",
    ]


def test_a_rival_that_comes_later_keeps_its_column() -> None:
    first = [Row("ours", 10.0, 9.0, 1.5), Row("A", 20.0, 19.0, ratio=2.0)]
    second = [Row("ours", 10.0, 9.0), Row("B", 5.0, 4.0, ratio=0.5), Row("A", 20.0, 19.0, ratio=3.0)]
    lines = render(Sweep("copy", "things", "B", [Point(64, first, 12.5), Point(4096, second)])).splitlines()
    assert lines[1:4] == ["copy: things", "  A  A", "  B  B"]
    assert lines[5].split() == ["64", "10.0", "1.50", "12.5", "2.00"]
    assert lines[6].split() == ["4", "Ki", "10.0", "3.00", "0.50"]


def test_the_limit_is_the_slower_side_with_the_better_way_to_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for figures, expected in (((10.0, 5.0, 8.0), 8.0), ((3.0, 5.0, 8.0), 3.0), ((9.0, 7.0, 2.0), 7.0), (None, None)):
        monkeypatch.setattr("iovec_rs._bench.sweep.machine_limits", lambda _, figures=figures: figures)
        assert limit(64) == expected


@pytest.mark.parametrize(("name", "limits"), [("copy", [64.0, 4096.0]), ("durable", [2.0**27, 2.0**27])])
def test_the_limit_is_that_of_the_cache_or_memory_that_the_bytes_are_in(
    monkeypatch: pytest.MonkeyPatch, name: str, limits: list[float]
) -> None:
    asked: list[int] = []

    def measured(nbytes: int) -> float:
        asked.append(nbytes)
        return float(nbytes)

    monkeypatch.setattr("iovec_rs._bench.sweep.limit", measured)
    *_, known = sweep(OPERATIONS[name], quick=True)
    assert [point.limit for point in known.points] == limits
    assert asked == sorted({int(limit) for limit in limits}), "measured once for all sizes that it holds for"


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 1 << 20])
def test_this_machine_has_a_limit(nbytes: int) -> None:
    known = machine_limits(nbytes)
    assert known is not None
    assert all(rate > 0 for rate in known)


def test_memory_is_placed_where_it_is_wanted() -> None:
    for at in (0, 16, 2064, 4095):
        view = placed(100, at)
        assert (address(view) % 4096, len(view)) == (at, 100)


def test_a_broom_reads_all_of_its_memory() -> None:
    broom = Broom(1 << 16)
    broom.sweep()
    broom.memory[(1 << 16) - 1] = 2
    with pytest.raises(AssertionError):
        broom.sweep()
