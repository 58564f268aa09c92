"""This version against an older one, which is measured again beside it: figures of another day are not compared.

The old wheel is installed into an environment of its own. A pair of processes, one for each version, takes turns, a
sample each, on one CPU; both run the contestants of this version's benches. What differs between two processes of one
version (where their memory lies, above all) stays the same as long as they live, however many samples they take. So
there are several pairs, each version is the first to start in half of them, and a case is slower only if it is so in
every one of them, and in as many again that are made to be sure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from .units import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .operations import Operation

PAIRS = 5
ROUNDS, QUICK_ROUNDS = 41, 2
TOLERANCE = 1.05
"""A case is slower, or faster, by this factor in every pair; less is noise."""
SECONDS = 0.25
"""About how long a case takes in a pair."""

ALIAS = "iovec_rs_bench_of_the_new_version"
HERE = Path(__file__).resolve().parent


class WheelError(Exception):
    """The old version cannot be measured."""


@dataclass(slots=True)
class Change:
    """One case: the new version's time divided by the old one's, by pair of processes."""

    operation: str
    size: int
    ratios: list[float] = field(default_factory=list)
    left_out: str | None = None

    @property
    def verdict(self) -> str:
        if self.left_out is not None:
            return "left out"
        if min(self.ratios) > TOLERANCE:
            return "SLOWER"
        return "faster" if max(self.ratios) < 1 / TOLERANCE else ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def _name_of(wheel: Path) -> str:
    """The name in the wheel's metadata, or WheelError."""
    if not wheel.is_file():
        raise WheelError(f"{wheel}: there is no such file")
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            text = archive.read(inside[0]).decode() if inside else ""
    except (zipfile.BadZipFile, UnicodeDecodeError) as why:
        raise WheelError(f"{wheel}: not a wheel ({why})") from why
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.lower().startswith("name:")]
    if wheel.suffix != ".whl" or not names:
        raise WheelError(f"{wheel}: not a wheel")
    return names[0].lower().replace("-", "_")


def check(wheel: Path) -> None:
    """WheelError if that is no wheel of this package."""
    name = _name_of(wheel)
    if name != "iovec_rs":
        raise WheelError(f"{wheel}: a wheel of {name}, not of iovec_rs")


def install(wheel: Path, folder: Path) -> Path:
    """An environment in `folder` with the wheel and what this one has besides; its interpreter. WheelError if it cannot
    be made."""
    check(wheel)
    try:
        venv.create(folder, with_pip=True)
    except (OSError, subprocess.CalledProcessError) as why:
        raise WheelError(f"no environment for the old version can be made (Debian: python3-venv): {why}") from why
    python = folder / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise WheelError(f"{wheel}: {lines[0].removeprefix('ERROR: ')}")
    return python


class Worker:
    """A process that measures one version, which it finds by `path`. WheelError if it ends before it is told to."""

    def __init__(self, python: Path | str, path: Sequence[Path], quick: bool) -> None:
        command = [str(python), "-P", "-m", f"{ALIAS}.worker", *(["quick"] if quick else [])]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONHOME"}
        environment["PYTHONPATH"] = os.pathsep.join(map(str, path))
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.version: str = self._answer()["version"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            error = (self.process.communicate()[1].strip().splitlines() or ["no reason given"])[-1]
            raise WheelError(f"a version does not run: {error}")
        known: dict[str, Any] = json.loads(line)
        return known

    def ask(self, command: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def run(self) -> int:
        """One sample, in nanoseconds."""
        took: int = self.ask("run")["took"]
        return max(took, 1)

    def close(self) -> None:
        self.process.communicate("end\n")


@contextmanager
def _worker(python: Path | str, path: Sequence[Path], quick: bool) -> Iterator[Worker]:
    worker = Worker(python, path, quick)
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.close()


def _ratio(new: Worker, old: Worker, rounds: int) -> float:
    """The median of what the rounds' ratios are. Who begins changes every round."""
    ratios: list[float] = []
    for turn in range(rounds):
        if turn % 2:
            mine, his = new.run(), old.run()
        else:
            his, mine = old.run(), new.run()
        ratios.append(mine / his)
    return median(ratios)


def _rounds(new: Worker, old: Worker, quick: bool) -> int:
    if quick:
        return QUICK_ROUNDS
    return max(5, min(ROUNDS, int(SECONDS * 1e9 / (new.run() + old.run()))))


def _measure(new: Worker, old: Worker, change: Change, quick: bool) -> None:
    for name, worker in (("this version", new), ("the old one", old)):
        error = worker.ask(f"build {change.operation} {change.size}")["error"]
        if error is not None:
            change.left_out = f"{name}: {error}"
            return
    _ratio(new, old, 2)  # warm
    change.ratios.append(_ratio(new, old, _rounds(new, old, quick)))


class _Versions:
    """How either version is started."""

    def __init__(
        self, new: tuple[Path | str, Sequence[Path]], old: tuple[Path | str, Sequence[Path]], quick: bool
    ) -> None:
        self.new, self.old, self.quick = new, old, quick
        self.old_version = ""

    def measure(self, changes: Sequence[Change], turn: int) -> None:
        """A pair of processes for all of these."""
        with ExitStack() as stack:
            first, second = (self.new, self.old) if turn % 2 else (self.old, self.new)
            workers = [stack.enter_context(_worker(*each, self.quick)) for each in (first, second)]
            new, old = workers if turn % 2 else reversed(workers)
            self.old_version = old.version
            for change in changes:
                if change.left_out is None:
                    _measure(new, old, change, self.quick)


def compare(
    wheel: Path, operations: Sequence[Operation], quick: bool, tell: Callable[[str], object]
) -> tuple[list[Change], str]:
    """Every case, and the old version's number."""
    changes = [
        Change(operation.name, size)
        for operation in operations
        for size in (operation.quick_sizes if quick else operation.sizes)
    ]
    pairs = 2 if quick else PAIRS
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="iovec_rs-bench-")))
        tell(f"installing {wheel.name}")
        python = install(wheel, scratch / "old")
        bench = scratch / "bench"
        shutil.copytree(HERE, bench / ALIAS, ignore=shutil.ignore_patterns("__pycache__"))
        _lend_numpy(scratch / "old")
        versions = _Versions((sys.executable, [bench, HERE.parent.parent]), (python, [bench]), quick)
        for number in range(pairs):
            tell(f"pair {number + 1} of {pairs}")
            versions.measure(changes, number)
        doubtful = [change for change in changes if change.verdict == "SLOWER"]
        for number in range(pairs if doubtful else 0):
            tell(f"pair {number + 1} of {pairs}, for the {len(doubtful)} that seem slower")
            versions.measure(doubtful, number)
    return changes, versions.old_version


def _lend_numpy(environment: Path) -> None:
    """The old version is judged with the same numpy: where this one finds it."""
    from .optional import numpy  # noqa: PLC0415

    module = numpy()
    if module is None:
        return
    home = Path(module.__file__).resolve().parent
    libraries = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    for part in (home, home.parent / "numpy.libs"):
        if part.exists() and not (libraries / part.name).exists():
            (libraries / part.name).symlink_to(part)


def render(changes: Sequence[Change], version: str) -> str:
    lines = ["", f"time of this version divided by that of {version}", f"{'':24}{'ratio':>8}{'least':>8}{'most':>8}"]
    for change in changes:
        name = f"{change.operation} {short(change.size)}"
        if change.left_out is not None:
            lines.append(f"{name:<24}  left out: {change.left_out}"[:100])
            continue
        figures = (median(change.ratios), min(change.ratios), max(change.ratios))
        line = f"{name:<24}" + "".join(f"{figure:>8.2f}" for figure in figures)
        lines.append(f"{line}  {change.verdict}".rstrip())
    return "\n".join(lines)
