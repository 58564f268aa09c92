"""The ``iovec-rs`` command. A command is one function below, decorated with its name, help and arguments."""

from __future__ import annotations

import argparse
import json
import platform
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import iovec_rs
from iovec_rs import _log_command, _streams, cpu, demo, selftest
from iovec_rs._streams import complain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Run = TypeVar("Run", bound="Callable[[argparse.Namespace], int]")

OK, FAILURE, USAGE, UNTOLD, INTERRUPTED = 0, 1, 2, 3, 130  # 2 is what argparse exits with, too
CODES = (
    "Exits with 0; with 1 if it failed or found damage, 2 if an argument is wrong, 3 if log append has appended the "
    "record and could not print its number."
)


class Argument(NamedTuple):
    """The arguments of one later call of ArgumentParser.add_argument."""

    flags: tuple[str, ...]
    options: dict[str, Any]


class Command(NamedTuple):
    name: str
    summary: str
    arguments: tuple[Argument, ...]
    run: Callable[[argparse.Namespace], int]


COMMANDS: list[Command] = []


def argument(*flags: str, **options: Any) -> Argument:
    return Argument(flags, options)


def command(name: str, summary: str, *arguments: Argument) -> Callable[[Run], Run]:
    """Register the decorated function, which returns the exit code, as a command."""

    def register(run: Run) -> Run:
        COMMANDS.append(Command(name, summary, arguments, run))
        return run

    return register


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return number


def some_path(text: str) -> Path:
    """No path at all would be the folder that the command runs in."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    return Path(text)


def operation(text: str) -> str:
    from iovec_rs._bench.operations import OPERATIONS  # noqa: PLC0415 - no other command needs it

    if text not in OPERATIONS:
        raise argparse.ArgumentTypeError(f"no such operation: {text} (there are: {', '.join(OPERATIONS)})")
    return text


def new_file(text: str) -> Path:
    """Checks the path before the work, which takes minutes."""
    path = Path(text)
    if not path.parent.is_dir() or path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: there is no such folder, or it is one")
    return path


def svg(text: str) -> Path:
    if not text.endswith(".svg"):
        raise argparse.ArgumentTypeError(f"{text} does not end in .svg, which is what is drawn")
    return new_file(text)


def facts() -> dict[str, Any]:
    """The report of ``info``, in its order."""
    return {
        "version": iovec_rs.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "page_size": iovec_rs.PAGE_SIZE,
        "cache_line_size": iovec_rs.CACHE_LINE_SIZE,
        "isa": cpu.isa(),
        "write_back": cpu.flush_instruction(),
        "cpu_features": sorted(name for name, there in cpu.features().items() if there),
        "limits": {
            "UIO_MAXIOV": iovec_rs.UIO_MAXIOV,
            "UIO_FASTIOV": iovec_rs.UIO_FASTIOV,
            "MAX_RW_COUNT": iovec_rs.MAX_RW_COUNT,
        },
    }


@command(
    "info",
    "show the version, the limits and the instruction set in use",
    argument("--json", action="store_true", help="as one JSON object"),
)
def info(args: argparse.Namespace) -> int:
    known = facts()
    if args.json:
        print(json.dumps(known, indent=2))
        return OK
    limits = known.pop("limits")
    known["cpu_features"] = " ".join(known["cpu_features"]) or "none"
    labelled = {name.replace("_", " "): value for name, value in known.items()} | limits
    for name, value in labelled.items():
        print(textwrap.fill(f"{name:<16}{value}", width=80, subsequent_indent=" " * 16))
    return OK


@command(
    "demo",
    "scatter real files over memory, gather them back, prove every byte",
    argument("--root", type=some_path, metavar="DIR", help="whose files to take (default: Python's own library)"),
    argument("--files", type=positive, default=demo.FILES, metavar="N", help="how many at most (default: %(default)s)"),
)
def run_demo(args: argparse.Namespace) -> int:
    return OK if demo.run(args.root, args.files) else FAILURE


@command(
    "selftest",
    "try whether bad memory is survived here, and whether every count is exact",
    argument("--json", action="store_true", help="as one JSON object"),
)
def run_selftest(args: argparse.Namespace) -> int:
    return OK if selftest.run(args.json) else FAILURE


@command(
    "log",
    "show, print, check or extend an append-only log (PmemLog)",
    argument("action", choices=_log_command.ACTIONS, help="append takes one record from FILE or the standard input"),
    argument("log", type=some_path, metavar="LOG", help="the log's file"),
    argument("file", type=some_path, nargs="?", metavar="FILE", help="append: where the record's bytes are"),
    argument("--sequence", type=int, metavar="N", help="dump: the bytes of this record alone, as they are"),
    argument("--size", type=positive, metavar="BYTES", help="append: make a log of this size if there is none"),
    argument("--json", action="store_true", help="info and verify: as one JSON object"),
)
def run_log(args: argparse.Namespace) -> int:
    try:
        return OK if _log_command.run(args) else FAILURE
    except _log_command.UsageError as error:
        complain(f"iovec-rs log: {error}")
        return USAGE
    except _log_command.UntoldError as error:
        complain(f"iovec-rs log: {error}")
        return UNTOLD
    except (OSError, ValueError, IndexError, MemoryError) as error:
        complain(f"iovec-rs log: {str(error) or 'out of memory'}")
        return FAILURE


@command(
    "bench",
    "measure this machine: copies beside the other ways that Python has",
    argument("operation", nargs="*", type=operation, help="copy, gather, scatter, ...; all by default, in minutes"),
    argument("--quick", action="store_true", help="tiny sizes: shows that all of it runs, measures nothing"),
    argument("--json", type=new_file, metavar="FILE", help="also write the figures to FILE"),
    argument("--plot", type=svg, metavar="FILE.svg", help="also draw throughput against size (needs matplotlib)"),
    argument(
        "--against",
        type=some_path,
        metavar="WHEEL",
        help="measure an older wheel beside this version instead; exit 1 if this one is slower, beyond noise",
    ),
)
def run_bench(args: argparse.Namespace) -> int:
    from iovec_rs._bench import against, command, optional  # noqa: PLC0415 - no other command needs it

    if args.against is not None and args.plot is not None:
        complain("iovec-rs bench: --plot draws one version: not with --against")
        return USAGE
    try:
        return OK if command.run(args) else FAILURE
    except (against.WheelError, optional.MissingError) as error:
        complain(f"iovec-rs bench: {error}")
        return FAILURE


class Parser(argparse.ArgumentParser):
    """Takes options between positional arguments: before Python 3.13, argparse takes a positional argument that may be
    missing to be missing if an option stands before it.
    """

    is_within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self.is_within:
            return super().parse_known_args(args, namespace)
        self.is_within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self.is_within = False


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="iovec-rs", description="Linux's iov_iter, in user space.", epilog=CODES)
    parser.add_argument("--version", action="version", version=f"iovec-rs {iovec_rs.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True, parser_class=Parser)
    for entry in COMMANDS:
        description = f"{entry.summary[0].upper()}{entry.summary[1:]}."
        sub = commands.add_parser(entry.name, help=entry.summary, description=description, epilog=CODES)
        for flags, options in entry.arguments:
            sub.add_argument(*flags, **options)
        sub.set_defaults(run=entry.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns its exit code: 0 done, 1 failed, 2 wrong usage, 3 appended but not printed."""
    try:
        with _streams.standard():
            try:
                args = build_parser().parse_args(argv)
            except SystemExit as stop:  # argparse has printed its message or the help
                return stop.code if isinstance(stop.code, int) else OK
            code: int = args.run(args)
            return code
    except _streams.OutputError as error:
        if not error.is_closed_pipe:  # whose reader has read enough
            complain(f"iovec-rs: {error}")
        return FAILURE
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        reason = error.strerror or str(error)
        where = f": {error.filename}" if error.filename is not None else ""
        complain(f"iovec-rs: {reason}{where}")
        return FAILURE
