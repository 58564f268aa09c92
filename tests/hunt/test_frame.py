"""The hunt itself reports a death, a hang, an exception and a finding, each with the seed that replays it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hunt.__main__ import HUNTERS, summary
from hunt.decoy import DIES, FINDS, HANGS, RAISES
from hunt.pursuit import Outcome, pursue

if TYPE_CHECKING:
    import pytest


def test_every_end_of_a_round_is_a_finding_and_the_next_round_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = pursue("decoy", 0, 0, 12)
    found = {each.text.split("\n", 1)[0]: each.seed for each in outcome.found.values()}
    assert found == {
        f"killed by SIGKILL: round {DIES}": DIES,
        f"nothing has happened for 5 s: round {HANGS}": HANGS,
        "ZeroDivisionError: a panic, say": RAISES,
        "wrong bytes at 4096": FINDS,
    }
    assert outcome.rounds == 12
    assert f"replay: make hunt HUNTER=decoy SEED={DIES} ROUNDS=1" in capsys.readouterr().out
    assert "hang" not in summary([outcome])
    assert f"SEED={HANGS} ROUNDS=1" in summary([outcome])


def test_a_replayed_round_finds_the_same() -> None:
    outcome = pursue("decoy", FINDS, 0, 1)
    assert [each.text.split("\n", 1)[0] for each in outcome.found.values()] == ["wrong bytes at 4096"]


def test_the_same_thing_at_another_place_is_one_finding() -> None:
    outcome = Outcome("decoy")
    assert outcome.add(1, "wrong bytes at 4096") is not None
    assert outcome.add(2, "wrong bytes at 17") is None
    assert outcome.add(3, "wrong count 17") is not None
    assert [found.times for found in outcome.found.values()] == [2, 1]


def test_no_hunter_is_forgotten() -> None:
    frame = {"__init__", "__main__", "arguments", "decoy", "finding", "pursuit", "scene", "test_frame", "worker"}
    files = {path.stem for path in Path(__file__).parent.glob("*.py")}
    assert set(HUNTERS) == files - frame
