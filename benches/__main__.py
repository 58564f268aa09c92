"""``python -m benches [name ...] [--quick] [--json FILE]``, from the root of the repository."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs._bench.harness import MismatchError, Table, quiet
from iovec_rs._bench.report import host, render, summary

from benches import (
    bench_call,
    bench_cliff,
    bench_durable,
    bench_fault,
    bench_growth,
    bench_guard,
    bench_import,
    bench_integrity,
    bench_io,
    bench_log,
    bench_memory,
    bench_vectored,
    targets,
)

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
        bench_growth,
        bench_durable,
        bench_io,
        bench_integrity,
        bench_log,
    )
}


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
                    targets.apply(table, about["cpu"], args.quick)
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
