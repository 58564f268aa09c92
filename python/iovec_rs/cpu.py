"""What the CPU has, and which instruction set the copies use.

The best set is detected once; `IOVEC_RS_ISA=scalar|sse2|avx2|avx512` in the environment names another to start with.
From which lengths on copies go another way is decided by what the CPU says of itself, and set by `IOVEC_RS_TUNING` for
an experiment: see `use_tuning`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iovec_rs import _core

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = [
    "available",
    "features",
    "flush_instruction",
    "flush_instructions",
    "isa",
    "tuning",
    "use_flush_instruction",
    "use_isa",
    "use_tuning",
]


def features() -> dict[str, bool]:
    """The CPU features this package looks at, and whether they are there."""
    return _core.cpu_features()


def isa() -> str:
    """The instruction set in use: the widest that this CPU moves in one piece, unless another was chosen."""
    return _core.isa()


def available() -> list[str]:
    """The instruction sets this CPU has, the widest one last."""
    return _core.isas()


def tuning() -> str:
    """From which lengths on copies go another way, in bytes: `name=bytes` each, as `use_tuning` takes it."""
    return _core.tuning()


def flush_instruction() -> str | None:
    """The instruction that writes cache lines back: "clwb", "clflushopt" or "clflush". None if this CPU has none."""
    return _core.flush_instruction()


def flush_instructions() -> list[str]:
    """The write-back instructions this CPU has, the best one last."""
    return _core.flush_instructions()


class _Choice:
    """A choice made for all threads; as a context manager, until the block ends."""

    def __init__(self, name: str, chosen: Callable[[], str | None], choose: Callable[[str], None]) -> None:
        self._before = chosen()
        self._choose = choose
        choose(name)
        self._name = name

    def __enter__(self) -> str:
        return self._name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._before is not None:
            self._choose(self._before)


class use_isa(_Choice):  # noqa: N801 - called like a function
    """Uses the named instruction set from now on, in all threads; as a context manager, until the block ends.

    ValueError if this CPU does not have it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _core.isa, _core.use_isa)


class use_flush_instruction(_Choice):  # noqa: N801 - called like a function
    """Writes lines back with the named instruction from now on, in all threads; as a context manager, in the block.

    ValueError if this CPU does not have it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _core.flush_instruction, _core.use_flush_instruction)


class use_tuning(_Choice):  # noqa: N801 - called like a function
    """Uses the lengths that a text names from now on, in all threads; as a context manager, until the block ends.

    `"intel"`, `"amd"` or `"other"` takes the rules for that vendor, with the caches of this CPU; `"name=bytes"` sets
    one length (`never` is no length at all); several are separated by commas, a vendor first. They change how long a
    copy takes, never what it does. ValueError if the text makes no sense: it says which names there are.

    nontemporal_from: copies of so many bytes and more store their long chunks past the caches.
    lines_from, ragged_from: chunks that are whole cache lines, and others, are long from so many bytes on.
    strings_from, strings_any_from: `rep movsb` copies so many bytes and more, between addresses that agree modulo a
    cache line, and between any two.
    far_from: streams of so many bytes and more ask far ahead for their source.
    durable_from: `memcpy_flushcache` stores so many bytes and more past the caches, fewer through them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _core.tuning, _core.use_tuning)
