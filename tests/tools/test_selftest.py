"""`iovec-rs selftest`: what it covers, what it prints, and that it detects a copy that is wrong or that kills the
process.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import iovec_rs
import pytest
from iovec_rs import McResult, cpu, fault_handler, selftest, testing
from iovec_rs.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

KERNEL_CASES = 1536
REAL_CASES = 48
ITERATORS = {"ubuf", "iovec", "kvec", "bvec", "pipe", "xarray", "folioq"}


def report(capsys: pytest.CaptureFixture[str], expected: int) -> dict[str, Any]:
    assert main(["selftest", "--json"]) == expected
    known: dict[str, Any] = json.loads(capsys.readouterr().out)
    return known


def test_every_kind_and_every_instruction_set_passes(capsys: pytest.CaptureFixture[str]) -> None:
    known = report(capsys, 0)
    checks = {check["name"]: check for check in known["checks"]}
    kinds = {name.rpartition(", ")[2].split()[0] for name in checks if name.startswith("copy_to_iter_mcsafe")}
    assert kinds == ITERATORS
    careful = [check for check in known["checks"] if check["group"] == selftest.CAREFUL]
    assert [check["passed"] for check in careful] == [KERNEL_CASES] * (len(ITERATORS) + 2)
    for isa in cpu.available():
        for way in ("handler", "system calls"):
            assert checks[f"truncated mapping, {way}, {isa}"]["passed"] == REAL_CASES
    assert (known["failed"], known["passed"]) == (0, sum(check["passed"] for check in known["checks"]))
    assert known["version"] == iovec_rs.__version__


def test_the_keys_are_those_that_programs_know(capsys: pytest.CaptureFixture[str]) -> None:
    """These keys and ids are guaranteed, because monitoring depends on them."""
    known = report(capsys, 0)
    assert list(known) == ["version", "signals", "checks", "passed", "failed"]
    assert list(known["signals"]) == ["sigbus", "sigsegv", "met_by", "reason"]
    assert all(list(known["signals"][name]) == ["before", "owner"] for name in ("sigbus", "sigsegv"))
    keys = ["id", "group", "name", "passed", "failed", "first", "skipped"]
    assert all(list(check) == keys for check in known["checks"])
    ids = [check["id"] for check in known["checks"]]
    careful = [*sorted(ITERATORS), "ubuf-of-a-raw-range"]
    flat = "careful/memcpy_mcsafe"
    assert sorted(ids[: len(careful) + 1]) == sorted(
        [flat, *(f"careful/copy_to_iter_mcsafe/{kind}" for kind in careful)]
    )
    cut = [f"real/truncated-mapping/{way}/{isa}" for way in ("handler", "system-calls") for isa in cpu.available()]
    assert ids[len(careful) + 1 :][: len(cut)] == cut
    assert all(entry.startswith("real/poisoned-page") for entry in ids[len(careful) + 1 + len(cut) :])


def test_poison_is_tried_where_the_kernel_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with testing.poisoned(1, [(0, 1)]):
            offered = True
    except OSError:
        offered = False
    poison = [check for check in report(capsys, 0)["checks"] if check["name"].startswith("poisoned page")]
    assert [bool(check["skipped"]) for check in poison] == ([False] * 2 * len(cpu.available()) if offered else [True])
    assert all(check["passed"] == REAL_CASES or check["skipped"] for check in poison)


def test_the_text_ends_with_the_count_and_tells_the_owners_of_the_signals(capsys: pytest.CaptureFixture[str]) -> None:
    passed = report(capsys, 0)["passed"]
    assert main(["selftest"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{passed} passed, 0 failed"
    assert any(line.split()[:2] == ["SIGBUS", "ours,"] for line in lines)
    assert any(line.split()[:2] == ["SIGSEGV", "ours,"] for line in lines)
    assert max(map(len, lines)) <= 80


def test_a_foreign_handler_below_is_named(tmp_path: Any) -> None:
    command = [sys.executable, "-X", "faulthandler", "-m", "iovec_rs", "selftest", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    signals = json.loads(done.stdout)["signals"]
    assert signals["sigbus"] == {"before": "foreign", "owner": "ours"}
    assert (signals["met_by"], signals["reason"]) == ("signal", "")


def test_a_blocked_signal_is_told_and_the_rest_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
    try:
        known = report(capsys, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert known["signals"]["met_by"] == "syscall"
    assert "SIGBUS is blocked in this thread" in known["signals"]["reason"]
    checks = {check["name"]: check for check in known["checks"]}
    assert "SIGBUS is blocked" in checks["truncated mapping, handler, scalar"]["skipped"]
    assert checks["truncated mapping, system calls, scalar"]["passed"] == REAL_CASES


def one_more(dst: Any, src: Any, **options: Any) -> McResult:
    """A broken copy, which reports one byte more than it copied."""
    copied, remaining, fault = iovec_rs.memcpy_mcsafe(dst, src, **options)
    return McResult(copied, remaining, fault) if remaining == 0 else McResult(copied + 1, remaining - 1, fault)


def last_byte_wrong(addr: Any, i: iovec_rs.IovIter, nbytes: int | None = None, **options: Any) -> int:
    flipped = bytearray(addr)
    flipped[-1] ^= 1
    return iovec_rs.copy_to_iter_mcsafe(flipped, i, nbytes, **options)


def test_an_over_claim_of_one_byte_is_seen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "memcpy_mcsafe", one_more)
    known = report(capsys, 1)
    checks = {check["name"]: check for check in known["checks"]}
    flat = checks["memcpy_mcsafe"]
    # Copies that nothing stops are whole, and the broken copy reports them rightly.
    assert (flat["passed"], flat["failed"]) == (512, 2 * 512)
    assert flat["first"] == "source, 0 bytes before the bad one: 1 copied, 511 left"
    real = checks["truncated mapping, handler, scalar"]
    assert (real["passed"], real["failed"]) == (REAL_CASES // 2, REAL_CASES // 2)
    assert known["failed"] == sum(check["failed"] for check in known["checks"])
    out = io.StringIO()
    assert selftest.run(out=out) is False
    assert out.getvalue().splitlines()[-1] == f"{known['passed']} passed, {known['failed']} failed"


def test_a_wrong_byte_is_seen_in_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "copy_to_iter_mcsafe", last_byte_wrong)
    for kind in selftest.TARGETS:
        wrong = [complaint for complaint in selftest.careful_cases(kind) if complaint]
        if kind == "memcpy_mcsafe":
            assert wrong == []
        else:
            assert len(wrong) >= 512, kind
            assert wrong[0] == "none, 0 bytes before the bad one: wrong bytes"


def test_a_copy_that_is_not_survived_fails_its_check_and_no_more() -> None:
    def die() -> selftest.Check:
        fault_handler.uninstall()
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(64, 1)
        raise AssertionError

    check = selftest.in_child(die, "group", "name")
    assert check == ("group", "name", 0, 1, "the process died of SIGSEGV", "")
    silent = selftest.in_child(lambda: os._exit(3), "group", "name")
    assert silent.first == "the process ended without a result"
    fine = selftest.Check("group", "name", 5)
    assert selftest.in_child(lambda: fine, "group", "name") == fine


@pytest.fixture(autouse=True)
def _handler_back() -> Iterator[None]:
    yield
    fault_handler.install()
