"""The steps of the demo in which memory goes bad during a copy."""

from __future__ import annotations

import mmap
import os
import resource
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    FaultMap,
    IovIter,
    copy_to_iter_mcsafe,
    fault_handler,
    guard,
    import_iovec,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

LEAST = 4 * PAGE_SIZE
LINE = 64


class Experiment(NamedTuple):
    """The outcome of an experiment: facts to print, and the first check that failed, if any."""

    facts: dict[str, str]
    complaint: str = ""


def _cut_mapping(data: bytes, keep: int) -> mmap.mmap:
    """A mapping of a file that held the data and was then truncated to its first `keep` bytes."""
    fd = os.memfd_create("iovec_rs.demo", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, len(data))
        mapping = mmap.mmap(fd, len(data), mmap.MAP_SHARED)
        mapping[:] = data
        os.ftruncate(fd, keep)
    finally:
        os.close(fd)
    return mapping


def fate_of_reading(mapping: mmap.mmap, at: int) -> str:
    """Reads a byte of the mapping in a child process, without protection; returns how that ended."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGBUS, signal.SIG_DFL)  # a crash handler would print a report
            mapping[at]
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return f"killed by {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else "got away with it"


def cut(data: bytes, lengths: Sequence[int]) -> Experiment:
    """Copies a mapped file that was truncated in the middle into segments of these lengths."""
    keep = max(len(data) // 2 // PAGE_SIZE, 1) * PAGE_SIZE
    mapping = _cut_mapping(data, keep)
    segments = [bytearray(length) for length in lengths]
    _, iterator = import_iovec(READ, segments)
    base = IovIter.ubuf(WRITE, mapping).ranges()[0].address
    known = FaultMap()
    fate = fate_of_reading(mapping, keep)
    copied = copy_to_iter_mcsafe(mapping, iterator, fault_map=known)
    fault = iterator.fault
    arrived = b"".join(segments)
    if fault is None:
        return Experiment({}, f"{copied} of {len(data)} bytes were copied, and no fault was reported")
    facts = {
        "plain Python": f"{fate}: mapping[{keep}], tried in a child process",
        "the copy": f"stopped after {copied:,} of {len(data):,} bytes, and said why:",
        "offset": f"{fault.offset:,}, in the {fault.side}",
        "cause": f"{fault.cause} ({signal.Signals(fault.signo).name})" if fault.signo else fault.cause,
        "damage": f"{fault.length:,} bytes from there on, to the end of the mapping",
        "saved": f"{copied:,} bytes, every one identical; none written behind them",
        "interpreter": "alive, the iterator at the first byte not copied",
    }
    checks = {
        f"{copied} bytes came of a source that had {keep}": copied == keep,
        "the bytes saved differ": arrived[:copied] == data[:copied],
        "bytes behind the last one copied were written": not any(arrived[copied:]),
        "the iterator does not stand at the first byte not copied": iterator.count == len(data) - copied,
        f"the fault was reported at {fault}": (fault.offset, fault.address - base, fault.side)
        == (keep, keep, "source"),
        f"the file was cut, but the cause is {fault.cause}": fault.cause == "gone",
        "the map does not know what the fault said": list(known) == [(fault.address, fault.length, "read")],
    }
    return Experiment(facts, next((complaint for complaint, fine in checks.items() if not fine), ""))


def guarded(data: bytes, lengths: Sequence[int]) -> Experiment:
    """Lets Python read a mapped file that was truncated in the middle: in a child without a guard, then with one."""
    del lengths
    size = -(-len(data) // PAGE_SIZE) * PAGE_SIZE
    keep = max(len(data) // 2 // PAGE_SIZE, 1) * PAGE_SIZE
    mapping = _cut_mapping(data.ljust(size, b"\0"), keep)
    fate = fate_of_reading(mapping, keep)
    read = b""
    block = guard(mapping)
    error = None
    try:
        with block:
            read = mapping[:]
    except FaultError as raised:
        error = raised
    if error is None:
        return Experiment({}, f"{len(read)} bytes were read, and no error was raised")
    facts = {
        "plain Python": f"{fate}: mapping[{keep}], tried in a child process",
        "under a guard": "mapping[:] goes on over zeroes, and the block ends with",
        "the error": f"FaultError, {error.fault.cause}: {block.lost:,} bytes lost",
        "the mapping": "the file again: all that it holds, and nothing else",
    }
    checks = {
        f"{len(read)} bytes were read of {size}": len(read) == size,
        "the bytes that are there differ": read[:keep] == data[:keep],
        "what is gone did not read as zeroes": not any(read[keep:]),
        f"{block.lost} bytes were lost of {size - keep}": block.lost == size - keep,
        f"{block.not_restored} bytes stay zeroes": block.not_restored == 0,
        "what is there differs after the block": mapping[:keep] == data[:keep],
        "a read after the block was survived": fate_of_reading(mapping, keep) == fate,
    }
    return Experiment(facts, next((complaint for complaint, fine in checks.items() if not fine), ""))


def known_bad(data: bytes, lengths: Sequence[int]) -> Experiment:
    """Copies around a cache line that a `FaultMap` lists as bad, without accessing it."""
    source = memoryview(bytearray(data))
    base = IovIter.ubuf(WRITE, source).ranges()[0].address
    at = len(data) // 2 + -(base + len(data) // 2) % LINE
    known = FaultMap()
    known.poison(source, at, LINE)
    segments = [bytearray(length) for length in lengths]
    _, iterator = import_iovec(READ, segments)
    faults = fault_handler.status().recovered
    before = copy_to_iter_mcsafe(source, iterator, fault_map=known)
    stop = iterator.fault
    iterator.advance(LINE)
    after = copy_to_iter_mcsafe(source[before + LINE :], iterator, fault_map=known)
    faults = fault_handler.status().recovered - faults
    facts = {
        "known bad": f"{LINE} bytes from byte {at:,} on, as a badblocks list would say",
        "first copy": f"{before:,} bytes, up to the byte before",
        "second copy": f"{after:,} bytes, from the byte behind on",
        "faults": f"{faults}: the bad line was never touched",
    }
    checks = {
        f"the first copy came to {before} bytes, not {at}": before == at,
        f"the second came to {after} bytes, not to the rest": after == len(data) - at - LINE,
        f"the stop was reported as {stop}": stop is not None and (stop.origin, stop.offset) == ("map", at),
        "the bytes differ": b"".join(segments) == data[:at] + bytes(LINE) + data[at + LINE :],
        f"{faults} faults were raised": faults == 0,
    }
    return Experiment(facts, next((complaint for complaint, fine in checks.items() if not fine), ""))
