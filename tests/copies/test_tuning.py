"""The lengths from which copies use another method can be set by name. Unknown names are refused, and no setting
changes a result.
"""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from iovec_rs import (
    READ,
    WRITE,
    IovIter,
    copy_from_iter,
    copy_from_iter_flushcache,
    copy_to_iter,
    copy_to_iter_flushcache,
    cpu,
    memcpy_flushcache,
    memcpy_nocache,
    selftest,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = [
    "nontemporal_from",
    "lines_from",
    "ragged_from",
    "string_chunks_from",
    "strings_from",
    "strings_any_from",
    "far_from",
    "unaided_from",
    "durable_from",
]

SETTINGS = [
    "intel",
    "amd",
    "other",
    "nontemporal_from=1,lines_from=1,ragged_from=1,string_chunks_from=0,far_from=0,durable_from=never",
    "nontemporal_from=1,lines_from=64,ragged_from=never,strings_from=0,strings_any_from=0,durable_from=640",
    "nontemporal_from=1,lines_from=1,ragged_from=1,string_chunks_from=0,far_from=never,unaided_from=0",
    "nontemporal_from=never,strings_from=never,strings_any_from=never,durable_from=0",
]


def set_by_environment(text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from iovec_rs import cpu; print(cpu.tuning())"]
    environment = os.environ | {"IOVEC_RS_TUNING": text}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def lengths(text: str) -> dict[str, str]:
    return dict(part.split("=") for part in text.split(","))


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_count_is_exact_in_every_setting(setting: str) -> None:
    out = io.StringIO()
    with cpu.use_tuning(setting):
        assert selftest.run(out=out), out.getvalue()


def scattered(d: memoryview, s: memoryview) -> int:
    cut = len(s) // 3
    return copy_to_iter_flushcache(s, IovIter.kvec(READ, [d[:cut], d[cut:]]))


def gathered(d: memoryview, s: memoryview) -> int:
    cut = len(s) // 2
    return copy_from_iter_flushcache(d, IovIter.kvec(WRITE, [s[:cut], s[cut:]]))


COPIES: list[Callable[[memoryview, memoryview], int]] = [
    lambda d, s: copy_to_iter(s, IovIter.ubuf(READ, d)),
    lambda d, s: copy_from_iter(d, IovIter.ubuf(WRITE, s)),
    lambda d, s: memcpy_flushcache(d, s).copied,
    lambda d, s: memcpy_nocache(d, s).copied,
    scattered,
    gathered,
]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("isa", cpu.available())
def test_every_copy_is_right_in_every_setting(setting: str, isa: str) -> None:
    rng = random.Random(1)
    data = rng.randbytes(200_000)
    with cpu.use_tuning(setting), cpu.use_isa(isa):
        for size in [*range(1, 200), *rng.sample(range(200, 5000), 60), 32_768, 65_537, 150_000]:
            at, to = rng.randrange(64), rng.randrange(64)
            source, room = memoryview(data)[at : at + size], bytearray(to + size + 64)
            into = memoryview(room)[to : to + size]
            for copy in COPIES:
                into[:] = bytes(size)
                assert copy(into, source) == size
                assert room == bytes(to) + source + bytes(64), (size, at, to)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("size", [1, 8, 48, 64, 100, 512, 513])
def test_runs_of_equal_segments_of_any_length_end_where_they_end(setting: str, size: int) -> None:
    """A run is followed by a longer, a shorter or an empty segment, and some copies end inside a run."""
    rng = random.Random(size)
    sizes = [size] * 70 + [size + 1] + [size] * 40 + [0] + [size] * 3 + [max(size - 1, 1)] + [size] * 50
    parts = [rng.randbytes(each) for each in sizes]
    whole = b"".join(parts)
    with cpu.use_tuning(setting):
        for count in (len(whole), len(whole) - 1, size * 70, size * 70 + 1, size * 35 + size // 2, 0):
            i, out = IovIter.kvec(WRITE, parts), bytearray(len(whole))
            assert copy_from_iter(out, i, count) == count
            assert out == whole[:count] + bytes(len(whole) - count)
            assert i.count == len(whole) - count
            assert copy_from_iter(memoryview(out)[count:], i) == len(whole) - count
            assert out == whole
            rooms = [bytearray(each) for each in sizes]
            i = IovIter.kvec(READ, rooms)
            assert copy_to_iter(whole, i, count) == count
            assert copy_to_iter(memoryview(whole)[count:], i) == len(whole) - count
            assert rooms == parts


def test_what_is_in_use_is_set_again_by_its_own_text() -> None:
    before = cpu.tuning()
    assert list(lengths(before)) == NAMES
    with cpu.use_tuning("intel,durable_from=77") as name:
        assert name == "intel,durable_from=77"
        assert lengths(cpu.tuning())["durable_from"] == "77"
    assert cpu.tuning() == before
    cpu.use_tuning(before)
    assert cpu.tuning() == before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("pentium", "none of intel, amd, other"),
        ("", "none of intel, amd, other"),
        ("durable=1", "none of nontemporal_from, lines_from"),
        ("durable_from=x", "expected bytes, or never"),
        ("durable_from=-1", "expected bytes, or never"),
        ("durable_from=1,amd", "comes first or not at all"),
        ("amd,", "none of intel, amd, other"),
        ("durable_from=1,lines_from=64,durable_from=2", "durable_from is there twice"),
    ],
)
def test_a_text_that_makes_no_sense_is_refused_and_changes_nothing(text: str, why: str) -> None:
    before = cpu.tuning()
    with pytest.raises(ValueError, match=why):
        cpu.use_tuning(text)
    assert cpu.tuning() == before
    if text:
        done = set_by_environment(text)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f'ImportError: IOVEC_RS_TUNING is "{text}": ')
        assert why in last


def test_only_a_text_will_do() -> None:
    with pytest.raises(TypeError, match="name"):
        cpu.use_tuning(640)  # type: ignore[arg-type]


def test_the_environment_sets_lengths_to_start_with() -> None:
    known = lengths(set_by_environment("intel,strings_from=never,lines_from=4096").stdout.strip())
    assert (known["strings_from"], known["lines_from"], known["durable_from"]) == ("never", "4096", "640")
    assert lengths(set_by_environment("").stdout.strip()) == lengths(set_by_environment("").stdout.strip())
