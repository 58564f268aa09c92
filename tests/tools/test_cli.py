"""The command iovec-rs: its output, its exit codes, and that its demo really checks what it claims."""

from __future__ import annotations

import io
import json
import os
import platform
import random
import shlex
import subprocess
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Any

import iovec_rs
import pytest
from iovec_rs import _damaged, cpu, demo
from iovec_rs.cli import COMMANDS, main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIZES = (0, 1, 2, 7, 64, 4095, 4096, 4097, 70_001, 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of awkward sizes, some empty, in two folders, with other things that are not regular files."""
    rng = random.Random(1)
    (tmp_path / "inner").mkdir()
    for number, size in enumerate(SIZES):
        folder = tmp_path / "inner" if number % 2 else tmp_path
        (folder / f"{number}.bin").write_bytes(rng.randbytes(size))
    os.mkfifo(tmp_path / "a-pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    return tmp_path


def iovec_rs_process(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "iovec_rs", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def damage(change: Callable[[demo.Work], None]) -> demo.Step:
    def run(work: demo.Work) -> demo.Outcome:
        change(work)
        return demo.Outcome(0, 0, 0)

    return demo.Step("damage the memory", run)


def with_step_after(title: str, step: demo.Step) -> list[demo.Step]:
    at = next(index for index, each in enumerate(demo.STEPS) if each.title.startswith(title))
    return [*demo.STEPS[: at + 1], step, *demo.STEPS[at + 1 :]]


def test_info_as_json_agrees_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["page_size"] == iovec_rs.PAGE_SIZE
    assert known["cache_line_size"] == iovec_rs.CACHE_LINE_SIZE
    assert (known["isa"], known["write_back"]) == (cpu.isa(), cpu.flush_instruction())
    assert known["kernel"] == platform.release()
    assert known["limits"] == {
        "UIO_MAXIOV": iovec_rs.UIO_MAXIOV,
        "UIO_FASTIOV": iovec_rs.UIO_FASTIOV,
        "MAX_RW_COUNT": iovec_rs.MAX_RW_COUNT,
    }
    assert known["cpu_features"] == sorted(name for name, there in cpu.features().items() if there)
    assert known["version"] == iovec_rs.__version__ == metadata.version("iovec_rs")


def test_info_as_text_holds_the_same_facts_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    for fact in ("version", "page_size", "cache_line_size", "isa", "kernel"):
        assert any(line.startswith(fact.replace("_", " ")) and str(known[fact]) in line for line in text.splitlines())
    for limit, value in known["limits"].items():
        assert f"{limit:<16}{value}" in text
    assert set(known["cpu_features"]) <= set(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_info_reports_the_instruction_set_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with cpu.use_isa("scalar"):
        assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["isa"] == "scalar"


def test_the_installed_command_is_this_function() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="iovec-rs")
    assert script.load() is main


def test_the_module_runs_as_a_program() -> None:
    done = iovec_rs_process("info", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["page_size"] == iovec_rs.PAGE_SIZE
    assert done.stderr == ""


def test_the_module_program_passes_the_exit_code_on(tree: Path) -> None:
    assert iovec_rs_process("demo", "--root", str(tree)).returncode == 0
    assert iovec_rs_process("demo", "--root", str(tree / "0.bin")).returncode == 1
    assert iovec_rs_process("frobnicate").returncode == 2


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["frobnicate"],
        ["info", "--frobnicate"],
        ["info", "extra"],
        ["demo", "--files", "0"],
        ["demo", "--files", "-3"],
        ["demo", "--files", "many"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_exit_code_2_with_a_message_on_stderr(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("usage: iovec-rs")
    assert "Traceback" not in printed.err


def test_help_lists_every_command_and_is_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert {"info", "demo"} <= {command.name for command in COMMANDS}
    assert all(command.name in text and command.summary.split()[0] in text for command in COMMANDS)


def test_the_version_is_the_one_that_info_reports(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    version = capsys.readouterr().out.split()[-1]
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["version"] == version


def test_the_demo_moves_every_file_of_a_tree_and_counts_them(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--root", str(tree)]) == 0
    lines = capsys.readouterr().out.splitlines()
    last = lines[-1]
    assert last.startswith(f"demo: {len(SIZES)} files, ")
    assert last.endswith(f" segments, {sum(SIZES)} bytes: every byte identical")
    for number, step in enumerate(demo.STEPS, start=1):
        assert f"{number}. {step.title}" in lines
    assert sum("plain Python" in line and "ratio" in line for line in lines) >= 3
    assert max(map(len, lines[1:])) <= 80, "the first line holds the path, which is as long as it is"


def test_the_demo_takes_no_more_files_than_asked_for(tree: Path) -> None:
    out = io.StringIO()
    assert demo.run(tree, 5, out)
    assert out.getvalue().splitlines()[-1].startswith("demo: 5 files, ")


def test_the_demo_spreads_many_files_over_several_full_vectors(tmp_path: Path) -> None:
    rng = random.Random(2)
    for number in range(450):
        (tmp_path / f"{number:03}").write_bytes(rng.randbytes(rng.randint(0, 300)))
    seen: list[int] = []
    step = damage(lambda work: seen.extend(len(batch.segments) for batch in work.batches))
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "STEPS", with_step_after("read", step))
        assert demo.run(tmp_path, 450, out), out.getvalue()
    assert len(seen) > 1
    assert max(seen) <= iovec_rs.UIO_MAXIOV
    assert min(seen[:-1]) > iovec_rs.UIO_MAXIOV - 12, "a vector is closed only when the next file does not fit"


def test_the_demo_runs_over_pythons_own_library_by_default() -> None:
    out = io.StringIO()
    assert demo.run(files=40, out=out)
    assert out.getvalue().splitlines()[-1].startswith("demo: 40 files, ")


@pytest.mark.parametrize("make", ["nothing", "only empty files", "only folders"])
def test_a_root_without_anything_to_copy_is_a_friendly_failure(
    make: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if make == "only empty files":
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()
    elif make == "only folders":
        (tmp_path / "a" / "b").mkdir(parents=True)
    assert main(["demo", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"iovec-rs: no file with anything in it below: {tmp_path}\n"


def test_a_root_that_does_not_exist_is_a_friendly_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    assert main(["demo", "--root", str(missing)]) == 1
    assert capsys.readouterr().err == f"iovec-rs: Not a directory: {missing}\n"


def test_one_flipped_bit_in_scattered_memory_is_found_and_located(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(work: demo.Work) -> None:
        batch = work.batches[0]
        victim = next(file for file in batch.files if file.path.name == "8.bin")
        segments = next(list(parts) for file, parts in batch.parts(batch.segments) if file is victim)
        at = 12_345
        for segment in segments:
            if at < len(segment):
                segment[at] ^= 1
                return
            at -= len(segment)
        raise AssertionError("the file has no such byte")

    monkeypatch.setattr(demo, "STEPS", with_step_after("scatter", damage(flip)))
    assert main(["demo", "--root", str(tree)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"demo: FAILED in step 4: {tree / '8.bin'} differs from byte 12345 on"


def test_a_segment_too_short_is_found(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shorten(work: demo.Work) -> None:
        del next(segment for segment in work.batches[0].segments if segment)[-1]

    monkeypatch.setattr(demo, "STEPS", with_step_after("read", damage(shorten)))
    out = io.StringIO()
    assert demo.run(tree, out=out) is False
    assert "demo: FAILED in step 3: " in out.getvalue()


def facts_of(out: str) -> dict[str, str]:
    """The indented lines below the steps with bad memory."""
    return {line[5:19].strip(): line[19:] for line in out.splitlines() if line.startswith(" " * 5)}


def test_the_demo_survives_a_file_that_is_cut_and_says_what_was_saved(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--root", str(tree)]) == 0
    facts = facts_of(capsys.readouterr().out)
    keep = sum(SIZES) // 2 // iovec_rs.PAGE_SIZE * iovec_rs.PAGE_SIZE
    assert facts["plain Python"].startswith("killed by SIGBUS: ")
    assert facts["the copy"].startswith(f"stopped after {keep:,} of {sum(SIZES):,} bytes")
    assert facts["offset"] == f"{keep:,}, in the source"
    assert facts["cause"] == "gone (SIGBUS)"
    assert facts["saved"].startswith(f"{keep:,} bytes")
    assert facts["faults"].startswith("0:")


def test_the_demo_pads_what_is_too_little_to_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small").write_bytes(b"x")
    assert main(["demo", "--root", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert facts_of(out)["saved"].startswith(f"{2 * iovec_rs.PAGE_SIZE:,} bytes")
    assert out.endswith("demo: 1 files, 1 segments, 1 bytes: every byte identical\n")


def test_the_demo_sees_a_careful_copy_that_claims_too_much(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def claim(addr: Any, i: iovec_rs.IovIter, **options: Any) -> int:
        copied = iovec_rs.copy_to_iter_mcsafe(addr, i, **options)
        return copied + (i.count > 0)

    monkeypatch.setattr(_damaged, "copy_to_iter_mcsafe", claim)
    assert main(["demo", "--root", str(tree)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("demo: FAILED in step 6: ")
    assert "bytes came of a source that had" in last


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"\x01", 1), (b"\x00\x01", 0x100), (b"\xff\xff\x01\x00", 1), (b"\xff\xff", 0xFFFF), (b"abc", 0x62C4)],
)
def test_the_checksum_by_hand_is_the_internet_checksum(data: bytes, expected: int) -> None:
    assert demo.internet_checksum(data) == expected


def test_a_reader_that_goes_away_ends_the_command_quietly(tree: Path) -> None:
    command = [sys.executable, "-m", "iovec_rs", "demo", "--root", str(tree)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaints = process.stderr.read()
        assert process.wait(120) == 1
    assert complaints == b""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["info", "info --json", "demo --files 1", "--help", "--version", "log --help"])
def test_output_that_cannot_be_written_is_a_failure_that_is_told_once(command: str, unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered, "PYTHONDEVMODE": "1"}
    for closed, reason in ((">/dev/full", "No space left on device"), (">&-", "Bad file descriptor")):
        line = f"{shlex.quote(sys.executable)} -m iovec_rs {command} {closed}"
        done = subprocess.run(
            ["bash", "-c", line], capture_output=True, text=True, timeout=120, env=environment, check=False
        )
        assert (done.returncode, done.stderr) == (1, f"iovec-rs: the standard output: {reason}\n")


def test_nobody_to_complain_to_is_no_reason_for_another_exit_code() -> None:
    for command, code in (("info", 0), ("frobnicate", 2), ("demo --root /nowhere", 1), ("log dump /nowhere", 1)):
        line = f"{shlex.quote(sys.executable)} -m iovec_rs {command} 2>&-"
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code
        assert "iovec-rs: " not in done.stdout
        assert "usage" not in done.stdout


def test_a_file_that_is_opened_never_gets_the_number_of_a_closed_stream() -> None:
    program = (
        "import os\n"
        "from iovec_rs import cli\n"
        "cli.main(['info'])\n"
        "descriptor = os.open('/', os.O_RDONLY)\n"
        "os._exit(descriptor)\n"
    )
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(program)} <&- >&- 2>&-"
    assert subprocess.run(["bash", "-c", line], timeout=120, check=False).returncode > 2


def test_an_empty_path_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["demo", "--root", ""], ["bench", "--against", ""], ["log", "info", ""], ["log", "append", "x", ""]):
        assert main(argv) == 2
        assert capsys.readouterr().err.startswith("usage: iovec-rs")
