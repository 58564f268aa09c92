"""Mapfiles compared with GNU ddrescue's own tool: it reads ours with the same meaning, and accepts and refuses the same
texts.

`ddrescuelog` is in Debian's package gddrescue, which `make setup` installs. Without it these tests are skipped, but not
in `.ci/run`, which refuses to start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iovec_rs import FaultMap

TOOL = "ddrescuelog"


@pytest.fixture(scope="module", autouse=True)
def _tool() -> None:
    if shutil.which(TOOL) is None:
        pytest.skip("ddrescuelog is not here: `make setup` installs it")


def ask(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the tool on the text as a mapfile."""
    done = subprocess.run([TOOL, *options, "-"], input=text.encode(), capture_output=True, timeout=120, check=False)
    out, err = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def listed(text: str, types: str, unit: int = 1) -> list[int]:
    """The numbers of the blocks of these types that the tool lists."""
    done = ask(text, f"--block-size={unit}", f"--list-blocks={types}")
    assert done.returncode == 0, done.stderr
    return [int(line) for line in done.stdout.split()]


def bad_bytes(known: FaultMap) -> list[int]:
    return list(chain.from_iterable(range(found.start, found.start + found.length) for found in known))


def areas(text: str) -> dict[str, int]:
    """The number of areas of each kind in the tool's summary."""
    done = ask(text, "--show-status")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"^(?: |mapfile)*(\S+): .* in +(\d+) area", done.stdout, re.MULTILINE)
    return {kind: int(count) for kind, count in found}


# Texts that the tool accepts, with the bytes that it lists as bad. The random texts below have more of them.
ACCEPTED = {
    "0x0 ? 1\n0 0x10 +\n0x10 010 -\n24 8 *\n0x20 8 /\n": range(16, 40),
    "# Mapfile. Created by hand\n# another\n0 +\n0 5 -\n": range(5),
    "0 +\n0 0xff -\n": range(255),
    "0 +\n0 0xFf -\n": range(255),
    "0 +\n0 0XFF -\n": range(255),
    "0 +\n0 010 -\n": range(8),
    "0 +\r\n0 5 -\r\n": range(5),
    "0 + # the status\n0 5 - # a block\n": range(5),
    "0 +\n0 5 -\n5 5 -\n": range(10),
    "0 +\n0 0 -\n0 5 +\n": (),
    "0 +\n5 5 -\n": range(5, 10),
    "0 +\n": (),
    "0 + 1\n": (),
    "0 ?\n0 5 ?\n": (),
    "\n\n0 +\n\n0 5 -\n\n": range(5),
    "0 +\n 0\t5\v-\f\n": range(5),
    "0 +\n0 5 -": range(5),
    "0 +\n0 5-\n": range(5),
    "0 +1\n0 5 -\n": range(5),
    "0+\n0 5 - and more\n": range(5),
    "0 + x\n0 5 -\n": range(5),
    "0 + 1x\n0 5 -\n": range(5),
    "0 + +1\n0 5 -\n": range(5),
    "0 + 010\n0 5 -\n": range(5),
    "0 + 2147483647\n0 5 -\n": range(5),
    "0 + 1\n0 0x +\n": (),
    "0 +\n0 5 +5 5 -\n": (),
    "0 +\n0 5 +\0\n": (),
    "0 +\n0x7FFFFFFFFFFFFFFE 5 -\n": (2**63 - 2,),
    **{f"0 {status}\n0 5 +\n": () for status in "?*/-FG+"},
    **{f"0 +\n0 5 {status}\n": range(5) for status in "*/-"},
}

# Texts that the tool refuses, with the line, which both report, and the column, which only we report.
REJECTED = {
    "0 +\n0 5 +\n6 5 -\n": (3, 1),
    "0 +\n0 5 +\n4 5 -\n": (3, 1),
    "0 +\n0 5 x\n": (2, 5),
    "0 +\n0 5\n": (2, 4),
    "0 +\n0\n": (2, 2),
    "0 +\nzero 5 -\n": (2, 1),
    "0 +\n0 five -\n": (2, 3),
    "0 +\n0 5 F\n": (2, 5),
    "0 +\n0 5 G\n": (2, 5),
    "0 + 0\n": (1, 5),
    "0 + 00\n": (1, 5),
    "0 + -1\n": (1, 5),
    "0 + 0x1\n": (1, 5),
    "0 + 2147483648\n": (1, 5),
    "0 + 4294967296\n": (1, 5),
    "0 + 18446744073709551616\n": (1, 5),
    "0 !\n": (1, 3),
    "0\n": (1, 2),
    "0 5 +\n5 5 -\n": (1, 3),
    "-1 +\n": (1, 1),
    "abc\n": (1, 1),
    "\ufeff0 +\n": (1, 1),
    "0 +\n-5 5 -\n": (2, 1),
    "0 +\n0 -5 -\n": (2, 3),
    "0 +\n0 08 -\n": (2, 4),
    "0 +\n0 1e3 -\n": (2, 4),
    "0 +\n5 0 -\n5 5 +\n": (2, 3),
    "# comment\n\n0 +\n0 5 -\n5 0 -\n": (5, 3),
}

# Texts that only we refuse, because the tool reads them as something that their writer cannot have meant.
ONLY_OURS = {
    "": (1, 1),
    "# nothing but comments\n": (2, 1),
    "0 +\n0 99999999999999999999 -\n": (2, 3),
    "0 + 4294967297\n0 5 -\n": (1, 5),
}


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_tool_accepts_is_read_as_the_tool_reads_it(text: str) -> None:
    assert listed(text, "*/-") == bad_bytes(FaultMap.from_mapfile(text)) == list(ACCEPTED[text])


@pytest.mark.parametrize("text", REJECTED)
def test_what_the_tool_rejects_is_refused_at_the_same_line(text: str) -> None:
    done = ask(text, "--show-status")
    line, column = REJECTED[text]
    assert done.returncode == 2
    assert f"line {line}:" in done.stderr
    with pytest.raises(ValueError, match=f"^mapfile: line {line}, column {column}: "):
        FaultMap.from_mapfile(text)


@pytest.mark.parametrize("text", ONLY_OURS)
def test_what_would_say_that_all_is_well_is_refused(text: str) -> None:
    assert ask(text, "--show-status").returncode == 0
    line, column = ONLY_OURS[text]
    with pytest.raises(ValueError, match=f"^mapfile: line {line}, column {column}: "):
        FaultMap.from_mapfile(text)


WORDS = ["0", "1", "5", "8", "07", "0x5", "0xA", "010", "+", "-", "?", "*", "/", "F", "x", "# c", "\r", "-1", "+5", ""]


@settings(max_examples=250)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), max_size=3))
def test_drawn_lines_are_taken_by_both_or_by_neither(lines: list[str]) -> None:
    text = "\n".join(["0 +", *lines])
    accepted = ask(text, "--show-status").returncode == 0
    try:
        known = FaultMap.from_mapfile(text)
    except ValueError:
        assert not accepted
    else:
        assert accepted
        assert listed(text, "*/-") == bad_bytes(known)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 700), st.integers(1, 60), st.sampled_from(["read", "write", "both"]))),
    st.integers(0, 50),
    st.integers(0, 700),
)
def test_the_tool_reads_a_written_map_as_it_was_meant(ranges: list[tuple[int, int, str]], base: int, size: int) -> None:
    known = FaultMap()
    for start, length, access in ranges:
        known.add(start, length, access)
    bad = [
        at - base for at in bad_bytes(known) if base <= at < base + size and known.first_in(at, 1, "read") is not None
    ]
    text = known.to_mapfile(size, base=base)
    assert listed(text, "-") == bad
    assert listed(text, "+") == [at for at in range(size) if at not in bad]
    assert listed(text, "?*/") == []
    assert listed(text, "-", unit=64) == sorted({at // 64 for at in bad})
    starts = [at for at in bad if at - 1 not in bad]
    if size:
        found = areas(text)
        assert (found["bad-sector"], found["non-tried"]) == (len(starts), 0)
        assert found["extent"] == sum(found[kind] for kind in ("bad-sector", "rescued"))
        inverted = ask(text, "--invert-mapfile")
        assert inverted.returncode == 0
        assert bad_bytes(FaultMap.from_mapfile(inverted.stdout)) == [at for at in range(size) if at not in bad]
    assert ask(text, "--done-status").returncode == bool(bad)


def test_two_written_maps_are_merged_by_the_tool() -> None:
    """A block that either run has rescued is rescued in the result."""
    one, two = FaultMap([(64, 64), (4096, 100)]), FaultMap([(100, 64), (4096, 100)])
    path = "/proc/self/fd/0"
    reader, writer = os.pipe()
    os.write(writer, two.to_mapfile(8192).encode())
    os.close(writer)
    try:
        command = [TOOL, f"--or-mapfile=/proc/self/fd/{reader}", path]
        done = subprocess.run(
            command,
            input=one.to_mapfile(8192),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            pass_fds=[reader],
        )
    finally:
        os.close(reader)
    assert done.returncode == 0, done.stderr
    assert list(FaultMap.from_mapfile(done.stdout)) == [(100, 28, "read"), (4096, 100, "read")]
