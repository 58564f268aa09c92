"""The examples run, and do what they are there to show."""

from __future__ import annotations

import itertools
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from iovec_rs import PAGE_SIZE, CorruptError, FaultError

from examples.kv_cache import KEY_SIZE, DamagedError, Place, SlotStore, block

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCKS = [block(seed) for seed in range(3)]
NBYTES = sum(tensor.nbytes for tensor in BLOCKS[0])


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
            "block 0: as it was saved",
            "block 1: as it was saved",
            f"damaged: block 2: these are not the {NBYTES} bytes that were saved",
            "block 3: as it was saved",
            f"damaged: block 4: poison at byte 9000, {NBYTES - 9000} bytes are lost",
            "block 5: as it was saved",
            "block 6: not there",
        ]
    assert path.stat().st_size == 8 * NBYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def path_in_memory() -> Iterator[Path]:
    """For thousands of saves, which a disk would take a minute for."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        yield Path(directory, "cache")


@pytest.fixture
def store(path: Path) -> Iterator[SlotStore]:
    with SlotStore(path, NBYTES, 4) as store:
        for index, tensors in enumerate(BLOCKS):
            store.save(b"%d" % index, tensors)
        yield store


def loaded(store: SlotStore, key: bytes) -> int | None:
    """Which of the blocks is there by that name; `None` if there is none."""
    fresh = [np.empty_like(tensor) for tensor in BLOCKS[0]]
    if not store.load(key, fresh):
        return None
    same = [seed for seed, tensors in enumerate(BLOCKS) if all(map(np.array_equal, fresh, tensors))]
    assert len(same) == 1
    return same[0]


@pytest.mark.usefixtures("way")
def test_blocks_behind_the_end_of_a_cut_file_are_damaged_and_those_before_are_not(store: SlotStore, path: Path) -> None:
    below, middle, above = sorted(store.places, key=lambda key: store.places[key].offset)
    os.truncate(path, store.places[middle].offset + 3 * PAGE_SIZE)
    with pytest.raises(DamagedError, match=f"gone at byte {3 * PAGE_SIZE}, {NBYTES - 3 * PAGE_SIZE} "):
        loaded(store, middle)
    with pytest.raises(DamagedError, match=f"gone at byte 0, {NBYTES} bytes are lost"):
        loaded(store, above)
    store.drop(above)
    with pytest.raises(FaultError):
        store.save(b"new", BLOCKS[2])
    store.save(b"new", BLOCKS[2])  # The slot that failed is not used again.
    assert loaded(store, b"new") == 2
    assert loaded(store, below) == int(below)


def test_blocks_outlive_the_store(store: SlotStore, path: Path) -> None:
    store.save(b"1", BLOCKS[0])
    store.drop(b"2")
    store.close()
    with SlotStore(path, NBYTES, 4) as again:
        assert [loaded(again, b"%d" % index) for index in range(4)] == [0, 0, None, None]
        used = [place.offset // again.size for place in again.places.values()]
        assert sorted(again.free() + used) == [0, 1, 2, 3]
        assert again.lost == []


def test_the_oldest_makes_room_and_the_log_goes_round(path_in_memory: Path) -> None:
    path = path_in_memory
    with SlotStore(path, NBYTES, 3) as store:
        store.save(b"kept", BLOCKS[0])
        for number in range(2000):  # 128 bytes each: the log is 64 KiB long
            store.record(b"%d" % number, Place(-1, 0, 0))
        assert store.log.first > 1000
    with SlotStore(path, NBYTES, 3) as store:
        assert loaded(store, b"kept") == 0
        for number in range(5):
            store.save(b"kept", BLOCKS[number % 3])
            store.save(b"block %d" % number, BLOCKS[2])
    with SlotStore(path, NBYTES, 3) as store:
        assert store.places.keys() == {b"kept", b"block 3", b"block 4"}
        assert [loaded(store, key) for key in (b"kept", b"block 3", b"block 4")] == [1, 2, 2]


def test_every_slot_of_many_can_be_saved_to_again_and_again(path_in_memory: Path) -> None:
    path = path_in_memory
    tensors = [np.arange(16)]
    with SlotStore(path, 128, 600) as store:
        for turn in range(3):
            for number in range(600):
                store.save(bytes([number % 256, number // 256, turn]) + bytes(range(KEY_SIZE - 3)), tensors)
        assert len(store.places) == 600
        assert store.log.first > 600
    with SlotStore(path, 128, 600) as store:
        assert {key[2] for key in store.places} == {2}
        assert store.load(next(iter(store.places)), [np.zeros(16, int)])


def test_what_is_refused_costs_no_slot_and_drops_no_block(store: SlotStore) -> None:
    store.save(b"\xff\xfe", BLOCKS[0])
    before = dict(store.places)
    for _ in range(5):
        with pytest.raises(ValueError, match=f"the key has {KEY_SIZE + 1} bytes: at most {KEY_SIZE}"):
            store.save(bytes(KEY_SIZE + 1), BLOCKS[0])
        with pytest.raises(BufferError):
            store.save(b"strided", [BLOCKS[0][0][:, :, ::2]])
    assert store.places == before
    store.region.write(store.places[b"\xff\xfe"].offset, b"x")
    with pytest.raises(DamagedError, match=r"^\\xff\\xfe: these are not"):
        loaded(store, b"\xff\xfe")


def test_a_store_whose_slots_are_all_bad_says_so(path: Path) -> None:
    with SlotStore(path, NBYTES, 1) as store:
        store.bad.add(0)
        with pytest.raises(OSError, match="no slot is left"):
            store.save(b"first", BLOCKS[0])


def test_entries_that_are_alike_do_not_pile_up_in_the_log(path_in_memory: Path) -> None:
    with SlotStore(path_in_memory, PAGE_SIZE, 2) as store:
        for _ in range(1500):  # Two slots in turn, the same bytes: each entry is the one before last once more.
            store.save(b"same", [b"bytes"])
        moved = store.log.last + 1 - 1500
        assert moved < 10


def test_a_fault_of_the_tensors_is_not_held_against_the_slot(store: SlotStore, tmp_path: Path) -> None:
    with (tmp_path / "tensors").open("w+b") as file:
        file.truncate(2 * PAGE_SIZE)
        with mmap.mmap(file.fileno(), 2 * PAGE_SIZE) as tensors:
            file.truncate(PAGE_SIZE)
            for _ in range(5):
                with pytest.raises(FaultError):
                    store.save(b"gone", [tensors])
    assert len(store.free()) == 1
    assert [loaded(store, key) for key in (b"0", b"1", b"2", b"gone")] == [0, 1, 2, None]


@pytest.mark.parametrize(("nbytes", "slots"), [(PAGE_SIZE, 4), (2 * PAGE_SIZE, 8), (3 * PAGE_SIZE, 2), (PAGE_SIZE, 20)])
def test_a_cache_may_be_opened_with_other_slots(path: Path, nbytes: int, slots: int) -> None:
    with SlotStore(path, PAGE_SIZE, 8) as store:
        for number in range(8):
            store.save(b"%d" % number, [b"%d" % number])
        ends = {key: place.offset + PAGE_SIZE for key, place in store.places.items()}
    with SlotStore(path, nbytes, slots) as store:
        kept = [key for key, end in ends.items() if end <= nbytes * slots]
        assert list(store.places) == kept
        for number in range(8, 8 + 3 * slots):
            store.save(b"%d" % number, [b"%d" % number])
            for key in store.places:
                data = bytearray(len(key))
                assert store.load(key, [data])
                assert data == key
        assert len(store.places) == slots


def test_more_slots_than_the_log_has_room_for_are_refused_and_nothing_stays_open(path: Path) -> None:
    with SlotStore(path, PAGE_SIZE, 8) as store:
        store.save(b"key", [b"value"])
    with pytest.raises(ValueError, match="5000 slots need a log of"):
        SlotStore(path, PAGE_SIZE, 5000)
    with SlotStore(path, PAGE_SIZE, 8) as store:
        assert store.load(b"key", [bytearray(5)])


def test_a_slot_that_was_scribbled_over_and_an_entry_that_was_are_told(store: SlotStore, path: Path) -> None:
    store.region.write(store.places[b"1"].offset + 77, b"x")
    with pytest.raises(DamagedError, match=f"1: these are not the {NBYTES} bytes"):
        loaded(store, b"1")
    offset = store.log.record(0).offset
    store.close()
    with Path(f"{path}.log").open("r+b") as log:
        log.seek(offset + 3)
        log.write(b"\xff")
    with SlotStore(path, NBYTES, 4) as again:
        assert [type(error) for error in again.lost] == [CorruptError]
        assert loaded(again, b"0") is None
        assert loaded(again, b"2") == 2


def test_tensors_that_do_not_fit_are_refused_and_the_block_is_what_it_was(store: SlotStore) -> None:
    large = [*BLOCKS[1], np.zeros(PAGE_SIZE, "u1")]
    with pytest.raises(ValueError, match=f"tensors have {NBYTES + PAGE_SIZE} bytes: a slot takes at most"):
        store.save(b"0", large)
    assert loaded(store, b"0") == 0
    with pytest.raises(DamagedError, match=f"0: these are not the {NBYTES} bytes"):
        store.load(b"0", large)


def save_forever(path: Path, acknowledge: int) -> NoReturn:
    """Saves blocks by four names in turn, and says so, until it is killed."""
    try:
        signal.alarm(120)
        with SlotStore(path, NBYTES, 5) as store:
            for number in itertools.count():
                store.save(b"%d" % (number % 4), BLOCKS[number % 3])
                os.write(acknowledge, struct.pack("<Q", number))
    finally:
        os._exit(1)


def test_a_restart_finds_every_block_that_was_acknowledged_before_the_writer_was_killed(path: Path) -> None:
    for saves in (1, 2, 5, 9, 14, 20, 3, 7):
        for file in (path, Path(f"{path}.log")):
            file.unlink(missing_ok=True)
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            save_forever(path, tell)
        os.close(tell)
        for _ in range(saves):
            acknowledged = struct.unpack("<Q", os.read(told, 8))[0]
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while data := os.read(told, 8):
            acknowledged = struct.unpack("<Q", data)[0]
        os.close(told)
        with SlotStore(path, NBYTES, 5) as store:
            assert store.lost == []
            for key in range(min(4, acknowledged + 1)):
                newest = acknowledged - (acknowledged - key) % 4
                # The one in flight may have come as far as its record.
                expected = {newest % 3, (newest + 4) % 3} if newest + 4 == acknowledged + 1 else {newest % 3}
                assert loaded(store, b"%d" % key) in expected


def test_sums_of_files_that_are_there_are_not_spoilt_by_one_that_was_cut() -> None:
    program = [sys.executable, str(ROOT / "examples" / "guarded_sums.py")]
    done = subprocess.run(program, check=True, capture_output=True, text=True, timeout=120)
    found = done.stdout.splitlines()
    assert re.fullmatch(r"b.npy: \d+ bytes could not be had: gone", found[0])
    assert found[1:] == ["a.npy 262144.0", "b.npy damaged", "c.npy 262144.0"]
