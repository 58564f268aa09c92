"""Runs a hunter's worker repeatedly until its time is up, and turns its deaths and hangs into findings."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from hunt.finding import last_done
from hunt.worker import HEADER, SHARED_BYTES

PATIENCE = 120.0
"""The seconds that one round may take. A hunter with longer rounds defines its own PATIENCE."""
_TESTS = Path(__file__).resolve().parent.parent
_TAIL = 40


@dataclass
class Found:
    """A finding, with the first seed that showed it."""

    seed: int
    text: str
    times: int = 1


@dataclass
class Outcome:
    """The result of one hunter."""

    name: str
    rounds: int = 0
    skipped: str | None = None
    found: dict[str, Found] = field(default_factory=dict)

    def add(self, seed: int, text: str) -> Found | None:
        """Adds a finding. Returns it, or None if it was known."""
        first = text.split("\n", 1)[0]
        key = re.sub(r"0x[0-9a-f]+|\d+", "#", first.split("(", 1)[0] if first.startswith("killed") else first)
        if key in self.found:
            self.found[key].times += 1
            return None
        self.found[key] = Found(seed, text)
        return self.found[key]


def replay(name: str, seed: int) -> str:
    """The command that runs one round again."""
    return f"make hunt HUNTER={name} SEED={seed} ROUNDS=1"


def pursue(name: str, seed: int, seconds: float, rounds: int) -> Outcome:
    """Hunts for this many seconds, or for this many rounds if that is not 0. Prints each finding at once."""
    hunter = importlib.import_module(f"hunt.{name}")
    outcome = Outcome(name)
    outcome.skipped = hunter.unavailable() if hasattr(hunter, "unavailable") else None
    if outcome.skipped:
        return outcome
    patience = getattr(hunter, "PATIENCE", PATIENCE)
    end = time.monotonic() + seconds
    at = seed
    while at < seed + rounds if rounds else time.monotonic() < end:
        left = seed + rounds - at if rounds else 0
        with tempfile.TemporaryDirectory(prefix="hunt-", ignore_cleanup_errors=True) as place:
            at += _one_worker(outcome, at, max(end - time.monotonic(), 0.0), left, patience, Path(place))
    return outcome


def _one_worker(  # noqa: PLR0917
    outcome: Outcome, seed: int, seconds: float, rounds: int, patience: float, place: Path
) -> int:
    """Runs one worker. Returns the number of rounds that it ran, including the one in which it died."""
    shared, report, log = place / "shared", place / "report", place / "log"
    inner = place / "place"
    inner.mkdir()
    shared.write_bytes(HEADER.pack(seed, 0).ljust(SHARED_BYTES, b"\0"))
    report.touch()
    command = [sys.executable, "-m", "hunt.worker", outcome.name, "--seed", str(seed), "--seconds", str(seconds)]
    command += ["--rounds", str(rounds), "--shared", str(shared), "--report", str(report)]
    environment = os.environ | {"PYTHONPATH": str(_TESTS), "TMPDIR": str(inner)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=inner, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        why = _wait(process, shared, patience)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for line in report.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        _announce(outcome, entry["seed"], entry["text"])
    page = shared.read_bytes()
    at, done = HEADER.unpack_from(page)
    outcome.rounds += done
    if why is None:
        return int(done)
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
    _announce(outcome, at, "\n".join([f"{why}: {last_done(page)}", *tail]))
    outcome.rounds += 1
    return int(done) + 1


def _wait(process: subprocess.Popen[bytes], shared: Path, patience: float) -> str | None:
    """Waits for the process. Returns the reason if it did not end by itself."""
    untouched = before = shared.read_bytes()
    since = time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        now = shared.read_bytes()
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > (patience if now != untouched else max(patience, PATIENCE)):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGUSR1)  # dumps the stacks of all threads into the log
                time.sleep(1)
            return f"nothing has happened for {patience:g} s"
    if process.returncode == 0:
        return None
    if process.returncode < 0:
        return f"killed by {signal.Signals(-process.returncode).name}"
    return f"exit code {process.returncode}"


def _announce(outcome: Outcome, seed: int, text: str) -> None:
    found = outcome.add(seed, text)
    if found is not None:
        body = "\n".join("    " + line for line in text.splitlines())
        print(f"FOUND by {outcome.name}, seed {seed}\n{body}\n    replay: {replay(outcome.name, seed)}", flush=True)
