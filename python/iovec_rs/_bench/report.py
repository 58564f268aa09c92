"""Tables for people, and what a reader has to know of the machine."""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import iovec_rs
from iovec_rs import cpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .harness import Table


def _numpy() -> str:
    try:
        return metadata.version("numpy")
    except metadata.PackageNotFoundError:
        return "none"


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
        "numpy": _numpy(),
        "isa": cpu.isa(),
        "iovec_rs": iovec_rs.__version__,
    }


def render(table: Table) -> str:
    lines = [
        "",
        f"{table.bench}: {table.title}",
        f"{'':34}{table.unit:>11}{'min':>12}{'GB/s':>7}{'ratio':>8}{'target':>8}",
    ]
    for row in table.rows:
        rate = "" if row.rate is None else f"{row.rate:.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        line = f"{row.name:<34}{row.median:>11.1f}{row.minimum:>12.1f}{rate:>7}{ratio:>8}{row.target:>8}  {row.verdict}"
        lines.append(line.rstrip())
    lines += [f"  {note}" for note in table.notes]
    return "\n".join(lines)


def summary(tables: Sequence[Table]) -> str:
    verdicts = Counter(row.verdict for table in tables for row in table.rows if row.verdict)
    if not verdicts:
        return "targets: not judged"
    return "targets: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
