"""The command `iovec-rs log`."""

from __future__ import annotations

import io
import json
import os
import random
import shlex
import subprocess
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PmemLog
from iovec_rs.cli import main

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = f"{shlex.quote(sys.executable)} -m iovec_rs log "


def in_a_shell(line: str, *, unbuffered: bool = False) -> tuple[int, bytes, str]:
    """The exit code of a line of shell, and what it prints."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1" if unbuffered else "", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=False, timeout=120, env=environment)
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A log with one record."""
    path = tmp_path / "log"
    with PmemLog.open(path, size=1 << 16, create=True) as log:
        log.append(b"first")
    return path


def records(path: Path) -> int:
    with PmemLog.open(path, writable=False) as log:
        return log.last + 1


def test_records_are_appended_from_a_file_and_from_the_standard_input(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, file = tmp_path / "log", tmp_path / "record"
    file.write_bytes(b"\0from a file")
    assert main(["log", "append", str(path), str(file)]) == 1  # There is no log, and no size to create one with.
    assert not path.exists()
    assert main(["log", "append", str(path), str(file), "--size", "65536"]) == 0
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"typed")))
    assert main(["log", "append", str(path)]) == 0
    assert capfdbinary.readouterr().out == b"0\n1\n"
    assert main(["log", "dump", str(path), "--sequence", "0"]) == 0
    assert capfdbinary.readouterr().out == b"\0from a file"
    assert main(["log", "dump", str(path)]) == 0
    assert capfdbinary.readouterr().out == b"0\t12\tb'\\x00from a file'\n1\t5\tb'typed'\n"


def test_a_log_is_described_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log"
    with PmemLog.open(path, size=1 << 16, create=True) as log:
        for n in range(3):
            log.append(b"x" * (n + 40))
        place = log.record(1)
        # A writer has the log open at the same time.
        assert main(["log", "info", str(path), "--json"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert (facts["first"], facts["last"], facts["size"], facts["free"]) == (0, 2, 1 << 16, log.free)
    assert main(["log", "verify", str(path)]) == 0
    assert capsys.readouterr().out == "3 records, 0 damaged\n"
    with path.open("r+b") as file:
        file.seek(place.offset)
        file.write(b"y")
    assert main(["log", "verify", str(path)]) == 1
    assert capsys.readouterr().out == f"offset {place.offset}: changed, 41 bytes\n3 records, 1 damaged\n"
    assert main(["log", "verify", str(path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["damaged"] == [
        {"offset": place.offset, "length": 41, "cause": "unknown"}
    ]
    assert main(["log", "dump", str(path)]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("0\t40\tb'xxx")
    assert out[1].startswith("1\tDAMAGED: record 1")


def test_what_cannot_be_opened_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["info"], ["dump"], ["verify"]):
        assert main(["log", *arguments, str(tmp_path / "missing")]) == 1
        assert capsys.readouterr().err.startswith("iovec-rs log: ")
    assert main(["log", "erase", str(tmp_path)]) == 2
    assert main(["log", "info", ""]) == 2
    assert "argument LOG: the path is empty" in capsys.readouterr().err


@pytest.mark.parametrize("place", range(4))
def test_an_option_may_stand_before_between_and_behind_the_other_arguments(
    place: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = tmp_path / "log", tmp_path / "record"
    file.write_bytes(b"record")
    arguments = ["append", str(path), str(file)]
    arguments[place:place] = ["--size", "65536"]
    assert main(["log", *arguments]) == 0
    assert capsys.readouterr() == ("0\n", "")
    with PmemLog.open(path, writable=False) as log:
        assert log.read(0) == b"record"


def test_the_help_names_the_class_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["log", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "append-only log (PmemLog)." in said
    assert "{info,dump,verify,append} LOG [FILE]" in said
    assert "3 if log append has appended the record and could not print its number." in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["dump", "LOG", "0"],
        ["info", "LOG", "file"],
        ["verify", "LOG", "file"],
        ["info", "LOG", "--sequence", "0"],
        ["append", "LOG", "--sequence", "0"],
        ["dump", "LOG", "--size", "65536"],
        ["dump", "LOG", "--json"],
        ["append", "LOG", "--json"],
    ],
    ids=" ".join,
)
def test_an_argument_of_another_action_is_wrong_usage(
    arguments: list[str], path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log", *(str(path) if argument == "LOG" else argument for argument in arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{arguments[0]} does not take it" in said.err
    assert records(path) == 1


@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_record_is_printed_whole_or_the_command_fails(tmp_path: Path, unbuffered: bool) -> None:
    path, out = tmp_path / "log", tmp_path / "out"
    record = random.Random(1).randbytes(3_000_000)
    with PmemLog.open(path, size=4 << 20, create=True) as log:
        log.append(record)
    dump = f"{COMMAND} dump {path} --sequence 0"
    assert in_a_shell(dump, unbuffered=unbuffered) == (0, record, "")
    # A file that takes no more than a part of it: the write that reaches the limit is short, and the next one fails.
    code, _, said = in_a_shell(f"ulimit -f 1000; {dump} > {out}", unbuffered=unbuffered)
    assert (code, said) == (1, "iovec-rs: the standard output: File too large\n")
    assert 0 < out.stat().st_size < len(record)
    code, _, said = in_a_shell(f"({dump}; echo $? >&2) | head -c 1", unbuffered=unbuffered)
    assert said == "1\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("output", ["a full disk", "a pipe that nobody reads"])
def test_an_append_that_cannot_print_its_number_says_that_the_record_is_there(
    path: Path, output: str, unbuffered: str
) -> None:
    if output == "a full disk":
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        read, out = os.pipe()
        os.close(read)

    def append(nbytes: int) -> tuple[int, str]:
        command = [sys.executable, "-m", "iovec_rs", "log", "append", str(path)]
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        done = subprocess.run(
            command, input=bytes(nbytes), stdout=out, stderr=subprocess.PIPE, check=False, timeout=120, env=environment
        )
        return done.returncode, done.stderr.decode()

    why = "No space left on device" if output == "a full disk" else "Broken pipe"
    said = f"record 1 was appended, but its number could not be printed: the standard output: {why}"
    assert append(10) == (3, f"iovec-rs log: {said}\n")
    assert records(path) == 2
    # What was not appended is told in other words, and by another code.
    code, said = append(100_000)
    assert code == 1
    assert "was appended" not in said
    os.close(out)
    assert records(path) == 2


def test_an_append_with_a_closed_stream_appends_nothing(path: Path) -> None:
    code, _, said = in_a_shell(f"{COMMAND} append {path} <&-")
    assert (code, said) == (1, "iovec-rs log: [Errno 9] the standard input is closed\n")
    code, _, said = in_a_shell(f"echo data | {COMMAND} append {path} >&-")
    assert (code, said) == (1, "iovec-rs: the standard output: Bad file descriptor\n")
    assert records(path) == 1


def test_input_that_does_not_wait_is_not_taken_for_its_end(path: Path) -> None:
    told, tell = os.pipe()
    os.set_blocking(told, False)
    os.write(tell, b"the first half of a record")
    command = [sys.executable, "-m", "iovec_rs", "log", "append", str(path)]
    done = subprocess.run(command, stdin=told, capture_output=True, text=True, timeout=120, check=False)
    os.close(told)
    os.close(tell)
    assert (done.returncode, done.stdout) == (1, "")
    assert "the standard input has nothing yet" in done.stderr
    assert records(path) == 1


@pytest.mark.parametrize("source", ["/dev/zero", "< /dev/zero"])
def test_input_without_an_end_is_refused_once_it_is_longer_than_the_log(path: Path, source: str) -> None:
    code, out, said = in_a_shell(f"ulimit -v 4000000; {COMMAND} append {path} {source}")
    assert (code, out) == (1, b"")
    assert said == "iovec-rs log: [Errno 28] the input has more than 65536 bytes, which is the size of the log\n"
    assert records(path) == 1


def test_a_path_that_is_no_text_is_shown_with_escapes(path: Path) -> None:
    strange = path.with_name("a\udcff.log")
    path.rename(strange)
    line = f"PYTHONIOENCODING=utf-8:strict {COMMAND} info {path.parent}/a$'\\xff'.log"
    code, out, said = in_a_shell(line)
    assert (code, said) == (0, "")
    assert out.startswith(b"path        " + os.fsencode(path.parent) + b"/a\\udcff.log\nsize ")
    assert b"\nfree " in out
