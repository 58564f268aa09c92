"""The other end of `against`: runs our contestant of one case at a time, over whichever version is installed.

It reads a command a line and answers each by a line of JSON: `build OPERATION SIZE`, `run`, `end`.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Contestant


def _built(operation: str, size: int, quick: bool) -> Contestant:
    from .harness import prove  # noqa: PLC0415 - an old version may lack what this imports, which is an answer
    from .operations import OPERATIONS  # noqa: PLC0415

    case = OPERATIONS[operation].build(size, quick)
    prove([case.ours, *case.rivals[:1]], case.scrub)
    return case.ours


def serve(commands: Iterable[str], answers: TextIO, quick: bool) -> None:
    def answer(**known: Any) -> None:
        print(json.dumps(known), file=answers, flush=True)

    from iovec_rs import __version__  # noqa: PLC0415

    answer(version=__version__)
    ours: Contestant | None = None
    for line in commands:
        match line.split():
            case ["build", operation, size]:
                ours = None  # its memory goes before there is more
                try:
                    ours = _built(operation, int(size), quick)
                except Exception as error:
                    answer(error=f"{type(error).__name__}: {error}")
                else:
                    answer(error=None)
            case ["run"] if ours is not None:
                ours.prepare()
                run = ours.run
                start = perf_counter_ns()
                run()
                answer(took=perf_counter_ns() - start)
            case ["end"]:
                return
            case _:
                raise ValueError(f"no such command here: {line!r}")


def main() -> int:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    serve(sys.stdin, sys.stdout, "quick" in sys.argv[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
