"""The examples run, and do what they are there to show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from iovec_rs import PAGE_SIZE, FaultError
from iovec_rs.pmem import PmemRegion

from examples.kv_cache import HEADER, DamagedError, SlotStore, block

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS = [block(seed) for seed in range(3)]
NBYTES = sum(tensor.nbytes for tensor in BLOCKS[0])


def programs_of_the_readme() -> dict[str, str]:
    """Its Python blocks, by the heading that they stand under."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^#+ ([^\n]+)\n+```python\n(.*?)```", text, re.MULTILINE | re.DOTALL)
    return dict(found)


README = programs_of_the_readme()
CLAIM = re.compile(r"^ *(.+?)  # ([-0-9]+|<.+>|\w+\(.+\))(?::|$)")
"""A line of a program that says what its expression comes to. Three dots stand for anything."""


def test_the_readme_begins_with_four_programs() -> None:
    assert list(README) == [
        "The crash that does not happen",
        "Any code over a file that may go away",
        "Writes that are durable when they return",
        "The cursor",
    ]


@pytest.mark.parametrize("heading", README)
def test_a_program_of_the_readme_does_what_it_says(heading: str, tmp_path: Path) -> None:
    program, claims = [], []
    for line in README[heading].splitlines():
        claim = CLAIM.match(line)
        if claim is None:
            program.append(line)
        else:
            indent = line[: len(line) - len(line.lstrip())]
            program.append(f"{indent}print(repr({claim[1]}))")
            claims.append(claim[2])
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    printed = done.stdout.splitlines()
    assert len(claims) >= 2
    assert len(printed) == len(claims)
    for said, came in zip(claims, printed, strict=True):
        assert re.fullmatch(re.escape(said).replace(r"\.\.\.", ".*"), came), (said, came)


def run(*arguments: str | Path) -> list[str]:
    command = [sys.executable, "examples/kv_cache.py", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_the_kv_cache_reports_what_is_damaged_and_reads_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    for arguments in ((), (path,), (path,)):
        first, *rest = run(*arguments)
        assert f"saved 6 blocks of 16 tensors, {NBYTES} bytes each" in first
        assert rest == [
            "slot 0: as it was saved",
            "slot 1: as it was saved",
            f"damaged: slot 2: these are not the {NBYTES} bytes that were saved",
            "slot 3: as it was saved",
            f"damaged: slot 4: poison at byte 9000, {NBYTES + HEADER.size - 9000} bytes are lost",
            "slot 5: as it was saved",
            "slot 6: empty",
        ]
    assert path.stat().st_size == 8 * (NBYTES + PAGE_SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def store(path: Path) -> Iterator[SlotStore]:
    with PmemRegion.open(path, size=4 * (NBYTES + PAGE_SIZE), create=True) as region:
        store = SlotStore(region, NBYTES)
        for index, tensors in enumerate(BLOCKS):
            store.save(index, tensors)
        yield store


def is_loaded(store: SlotStore, index: int) -> bool:
    fresh = [np.empty_like(tensor) for tensor in BLOCKS[0]]
    return store.load(index, fresh) and all(map(np.array_equal, fresh, BLOCKS[index]))


@pytest.mark.usefixtures("way")
def test_slots_behind_the_end_of_a_cut_file_are_damaged_and_those_before_are_not(store: SlotStore, path: Path) -> None:
    os.truncate(path, store.slot + 3 * PAGE_SIZE)
    assert is_loaded(store, 0)
    with pytest.raises(
        DamagedError, match=f"slot 1: gone at byte {3 * PAGE_SIZE}, {NBYTES + HEADER.size - 3 * PAGE_SIZE} "
    ):
        is_loaded(store, 1)
    with pytest.raises(DamagedError, match=f"slot 2: gone at byte 0, {NBYTES + HEADER.size} bytes are lost"):
        is_loaded(store, 2)
    with pytest.raises(FaultError):
        store.save(2, BLOCKS[2])


def test_slots_outlive_the_region(store: SlotStore, path: Path) -> None:
    with PmemRegion.open(path, writable=False) as region:
        again = SlotStore(region, NBYTES)
        assert [is_loaded(again, index) for index in range(3)] == [True, True, True]
        assert not again.load(3, BLOCKS[0])
        assert store.region.size == region.size


def test_a_slot_has_a_header_only_while_its_data_are_whole(
    store: SlotStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power after any of the writes leaves what was saved before, what is saved now, or an empty slot."""
    region, states = store.region, []

    class Recorder:
        def write(self, offset: int, data: Any) -> int:
            done = region.write(offset, data)
            states.append(path.read_bytes()[: store.slot])
            return done

    with monkeypatch.context() as patch:
        patch.setattr(store, "region", Recorder())
        store.save(0, BLOCKS[1])
    found = []
    for state in states:
        region.write(0, state)
        fresh = [np.empty_like(tensor) for tensor in BLOCKS[0]]
        found.append(store.load(0, fresh))
    assert found == [False, False, True]
    assert all(map(np.array_equal, fresh, BLOCKS[1]))


def test_tensors_that_do_not_fit_are_refused_and_the_slot_keeps_what_it_has(store: SlotStore) -> None:
    large = [*BLOCKS[1], np.zeros(PAGE_SIZE, "u1")]
    with pytest.raises(ValueError, match=f"tensors have {NBYTES + PAGE_SIZE} bytes: a slot takes at most"):
        store.save(0, large)
    assert is_loaded(store, 0)
    with pytest.raises(DamagedError, match=f"slot 0: these are not the {NBYTES} bytes"):
        store.load(0, large)


def test_sums_of_files_that_are_there_are_not_spoilt_by_one_that_was_cut() -> None:
    program = [sys.executable, str(ROOT / "examples" / "guarded_sums.py")]
    done = subprocess.run(program, check=True, capture_output=True, text=True, timeout=120)
    found = done.stdout.splitlines()
    assert re.fullmatch(r"b.npy: \d+ bytes could not be had: gone", found[0])
    assert found[1:] == ["a.npy 262144.0", "b.npy damaged", "c.npy 262144.0"]
