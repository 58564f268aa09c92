"""What the CPU has, and which instruction set the copies use.

The best set is detected once; `IOVEC_RS_ISA=scalar|sse2|avx2|avx512` in the environment names another to start with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import _core

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["available", "features", "isa", "use_isa"]


def features() -> dict[str, bool]:
    """The CPU features this package looks at, and whether they are there."""
    return _core.cpu_features()


def isa() -> str:
    """The instruction set in use."""
    return _core.isa()


def available() -> list[str]:
    """The instruction sets this CPU has, the best one last."""
    return _core.isas()


class use_isa:  # noqa: N801 - called like a function
    """Uses the named instruction set from now on, in all threads; as a context manager, until the block ends.

    ValueError if this CPU does not have it.
    """

    def __init__(self, name: str) -> None:
        self._before = _core.isa()
        _core.use_isa(name)

    def __enter__(self) -> str:
        return _core.isa()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _core.use_isa(self._before)
