"""The CPU's features, and the instruction set and the length limits that copies use.

The best instruction set is detected once; the environment variable `IOVEC_RS_ISA=scalar|sse2|avx2|avx512` chooses
another. The lengths from which copies change their method follow from the CPU's vendor and caches; `IOVEC_RS_TUNING`
sets others for an experiment: see `use_tuning`.
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
    """The CPU features that this package looks for, and whether each is present."""
    return _core.cpu_features()


def isa() -> str:
    """The instruction set in use: by default the widest whose vectors this CPU moves in one piece."""
    return _core.isa()


def available() -> list[str]:
    """The instruction sets that this CPU has, the widest last."""
    return _core.isas()


def tuning() -> str:
    """The lengths in bytes from which copies change their method, as `use_tuning` takes them: `name=bytes`, separated
    by commas.
    """
    return _core.tuning()


def flush_instruction() -> str | None:
    """The instruction that writes cache lines back: "clwb", "clflushopt" or "clflush". None if this CPU has none."""
    return _core.flush_instruction()


def flush_instructions() -> list[str]:
    """The write-back instructions that this CPU has, the best last."""
    return _core.flush_instructions()


class _Choice:
    """A setting for all threads; as a context manager, until the block ends."""

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
    """Sets the instruction set for all threads; as a context manager, until the block ends.

    ValueError if this CPU does not have it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _core.isa, _core.use_isa)


class use_flush_instruction(_Choice):  # noqa: N801 - called like a function
    """Sets the write-back instruction for all threads; as a context manager, until the block ends.

    ValueError if this CPU does not have it.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _core.flush_instruction, _core.use_flush_instruction)


class use_tuning(_Choice):  # noqa: N801 - called like a function
    """Sets the lengths from which copies change their method, for all threads; as a context manager, until the block
    ends.

    `"intel"`, `"amd"` or `"other"` applies the rules for that vendor to this CPU's caches. `"name=bytes"` sets one
    length, `"name=never"` none. Several are separated by commas, a vendor first, each name once. The lengths change how
    long a copy takes, never its result. ValueError for anything else, with the list of names.

    nontemporal_from: copies of this many bytes or more use nontemporal stores for their long chunks. lines_from,
    ragged_from: the length in bytes from which chunks of whole cache lines, and other chunks, are long.
    string_chunks_from: chunks of `strings_any_from` bytes or more are long only in copies of this many bytes or more.
    strings_from, strings_any_from: the length in bytes from which `rep movsb` is used, between addresses that agree
    modulo a cache line, and between any two. far_from: nontemporal copies of this many bytes or more prefetch their
    source far ahead. unaided_from: other nontemporal copies of this many bytes or more prefetch only the beginning of
    their source. durable_from: `memcpy_flushcache` uses nontemporal stores for this many bytes or more, ordinary stores
    and write-backs for fewer.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _core.tuning, _core.use_tuning)
