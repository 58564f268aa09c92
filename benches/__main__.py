"""``python -m benches [name ...] [--quick] [--json FILE]``, from the root of the repository."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from iovec_rs import __version__, cpu

from benches import (
    bench_call,
    bench_cliff,
    bench_durable,
    bench_fault,
    bench_guard,
    bench_import,
    bench_integrity,
    bench_io,
    bench_memory,
    bench_vectored,
)
from benches.harness import MismatchError, Table, quiet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BENCHES: dict[str, Callable[[bool], Iterator[Table]]] = {
    module.NAME: module.run
    for module in (
        bench_call,
        bench_vectored,
        bench_cliff,
        bench_import,
        bench_memory,
        bench_fault,
        bench_guard,
        bench_durable,
        bench_io,
        bench_integrity,
    )
}


def host() -> dict[str, Any]:
    """What a reader needs in order to compare these figures with others."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "isa": cpu.isa(),
        "iovec_rs": __version__,
    }


def render(table: Table) -> str:
    lines = [
        "",
        f"{table.bench}: {table.title}",
        f"{'':34}{table.unit:>11}{'min':>11}{'GB/s':>8}{'ratio':>8}{'target':>8}",
    ]
    for row in table.rows:
        rate = "" if row.rate is None else f"{row.rate:.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        line = f"{row.name:<34}{row.median:>11.1f}{row.minimum:>11.1f}{rate:>8}{ratio:>8}{row.target:>8}  {row.verdict}"
        lines.append(line.rstrip())
    lines += [f"  {note}" for note in table.notes]
    return "\n".join(lines)


def summary(tables: Sequence[Table]) -> str:
    verdicts = Counter(row.verdict for table in tables for row in table.rows if row.verdict)
    if not verdicts:
        return "targets: not judged"
    return "targets: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benches", description="Time iovec_rs against its rivals.")
    parser.add_argument("name", nargs="*", help=f"which to run, all by default: {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: proves that the code runs, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    args = parser.parse_args(argv)
    names = [name.removeprefix("bench_") for name in args.name] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        parser.error(f"no such bench: {', '.join(unknown)} (there are: {', '.join(BENCHES)})")

    about = host()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    tables: list[Table] = []
    with quiet():
        for name in names:
            try:
                for table in BENCHES[name](args.quick):
                    print(render(table), flush=True)
                    tables.append(table)
            except MismatchError as wrong:
                print(f"{name}: {wrong}", file=sys.stderr)
                return 1
    print(f"\n{summary(tables)}")
    if args.json is not None:
        record = {"host": about, "quick": args.quick, "tables": [table.as_dict() for table in tables]}
        args.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
