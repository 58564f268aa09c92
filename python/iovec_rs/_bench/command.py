"""`iovec-rs bench`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from . import against, plot, sweep
from .harness import MismatchError, quiet
from .operations import OPERATIONS
from .optional import pyplot
from .report import host

if TYPE_CHECKING:
    import argparse


def run(args: argparse.Namespace) -> bool:
    """Measures what is asked for. False if the contestants disagreed about the bytes, or this version is slower than
    the one it is compared with; MissingError or WheelError where that cannot be told."""
    wanted = [OPERATIONS[name] for name in args.operation or OPERATIONS]
    about = host()
    record: dict[str, Any] = {"host": about, "quick": args.quick}
    title = ", ".join(f"{key} {value}" for key, value in about.items())
    # What cannot be had is told before minutes are spent.
    if args.plot is not None:
        pyplot()
    if args.against is not None:
        against.check(args.against)
    print(title)
    if args.against is not None:
        changes, version = against.compare(
            args.against, wanted, args.quick, lambda what: print(f"  {what}", file=sys.stderr, flush=True)
        )
        print(against.render(changes, version))
        record |= {"against": version, "changes": [change.as_dict() for change in changes]}
        _write(args, record)
        return args.quick or not any(change.verdict == "SLOWER" for change in changes)

    sweeps = []
    try:
        with quiet():
            for operation in wanted:
                *_, known = sweep.sweep(operation, args.quick)
                print(sweep.render(known), flush=True)
                sweeps.append(known)
    except MismatchError as wrong:
        print(f"iovec-rs bench: {wrong}", file=sys.stderr)
        return False
    print(
        "\nns, GB/s: ours, for one copy, or for one segment where there are segments; medians."
        "\nlimit: GB/s of loads alone or stores alone, the slower of the two, in the cache or the memory"
        "\n       that the bytes are in. Copies do not reach it there: they do both."
        "\nA to ...: how many times as long as ours each takes, round by round; above 1 we are faster."
    )
    record["sweeps"] = [known.as_dict() for known in sweeps]
    _write(args, record)
    if args.plot is not None:
        plot.draw(sweeps, title, args.plot)
    return True


def _write(args: argparse.Namespace, record: dict[str, Any]) -> None:
    if args.json is not None:
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
