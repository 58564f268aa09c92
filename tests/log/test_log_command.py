"""The command `iovec-rs log`."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING

from iovec_rs import PmemLog
from iovec_rs.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


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
