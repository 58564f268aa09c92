"""`iovec-rs log`: shows, verifies and extends a log on the command line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from iovec_rs._log import PmemLog
from iovec_rs._streams import OutputError, complain, read_input
from iovec_rs._types import CorruptError, FaultError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

ACTIONS = ("info", "dump", "verify", "append")

OPTIONS = {"file": ("FILE", "append"), "size": ("--size", "append"), "sequence": ("--sequence", "dump")}
"""Which arguments only one action takes, and how they are written."""

PREVIEW = 32
"""How many bytes of each record are shown."""


class UsageError(Exception):
    """An argument that the action would ignore."""


class UntoldError(Exception):
    """A record was appended, and its number could not be printed. Whoever appends it again has it twice."""


def check(args: argparse.Namespace) -> None:
    """Refuses what another action than `args.action` takes."""
    for name, (written, action) in OPTIONS.items():
        if args.action != action and getattr(args, name) is not None:
            raise UsageError(f"{written} is for {action}: {args.action} does not take it")
    if args.json and args.action not in ("info", "verify"):
        raise UsageError(f"--json is for info and verify: {args.action} does not take it")


def run(args: argparse.Namespace) -> bool:
    """Runs `args.action`. Returns whether the log is intact."""
    check(args)
    if args.action == "append":
        return append(args.log, args.file, args.size)
    with PmemLog.open(args.log, writable=False) as log:
        if args.action == "dump":
            return dump(log, args.sequence)
        return info(log, args.json) if args.action == "info" else verify(log, args.json)


def append(path: Path, file: Path | None, size: int | None) -> bool:
    # A device has no length.
    data = read_input(file, size or path.stat().st_size or sys.maxsize)
    with PmemLog.open(path, size=size, create=size is not None) as log:
        if log.recovered:
            complain(f"a torn tail of {log.recovered} bytes was cut")
        number = log.append(data)
    try:
        print(number, flush=True)
    except OutputError as error:
        raise UntoldError(f"record {number} was appended, but its number could not be printed: {error}") from error
    return True


def info(log: PmemLog, as_json: bool) -> bool:
    names = ("path", "size", "granularity", "first", "last", "nbytes", "free")
    facts = {name: getattr(log, name) for name in names}
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:<12}{value}")
    return True


def dump(log: PmemLog, sequence: int | None) -> bool:
    if sequence is not None:
        sys.stdout.buffer.write(log.read(sequence))
        return True
    is_well = True
    for number in range(log.first, log.last + 1):
        try:
            data, length = log.read(number), log.record(number).length
        except IndexError:
            continue  # Discarded meanwhile.
        except (CorruptError, FaultError) as error:
            print(f"{number}\tDAMAGED: {error.strerror}")
            is_well = False
        else:
            rest = "..." if length > PREVIEW else ""
            print(f"{number}\t{length}\t{data[:PREVIEW]!r}{rest}")
    return is_well


def verify(log: PmemLog, as_json: bool) -> bool:
    # The first before the last: a writer may append and discard in between.
    first = log.first
    records, found = log.last + 1 - first, log.verify()
    if as_json:
        damaged = [{"offset": fault.offset, "length": fault.length, "cause": fault.cause} for fault in found]
        print(json.dumps({"records": records, "damaged": damaged}, indent=2))
        return not found
    for fault in found:
        what = "changed" if fault.cause == "unknown" else f"bad memory ({fault.cause})"
        print(f"offset {fault.offset}: {what}, {fault.length} bytes")
    print(f"{records} records, {len(found)} damaged")
    return not found
