"""How copies survive faults, and which handler owns SIGBUS and SIGSEGV.

Programs need none of these functions. The first copy that needs the handler installs it. It passes on every signal that
a copy did not cause to the handler that was there before, and copies reinstall it if other code has replaced it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from iovec_rs import _core

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Status", "install", "mode", "status", "uninstall"]


class Status(NamedTuple):
    """The result of `status`."""

    mode: Literal["auto", "signal", "syscall"]
    installed: bool
    """Whether the handler owns both signals."""
    sigbus: Literal["ours", "default", "ignored", "foreign"]
    sigsegv: Literal["ours", "default", "ignored", "foreign"]
    recovered: int
    """The number of faults recovered from in this process."""


def install() -> None:
    """Installs the handler for SIGBUS and SIGSEGV now. RuntimeError if it cannot be installed."""
    _core.fault_handler_install()


def uninstall() -> None:
    """Reinstates the handlers that were there before. A signal that other code has taken since is left alone.

    The next copy that needs it installs the handler again, unless the mode is "syscall". RuntimeError while any thread
    is in the block of a guard, which needs the handler.
    """
    _core.fault_handler_uninstall()


def status() -> Status:
    """The mode, the owners of the two signals, and the number of faults recovered from."""
    return Status(*_core.fault_handler_status())


class mode:  # noqa: N801 - called like a function
    """Sets how copies survive faults, for all threads; as a context manager, until the block ends.

    "auto" uses the signal handler, or system calls where it cannot be used (if a signal is blocked, for example).
    "signal" raises RuntimeError in that case. "syscall" installs no handler: memory that may vanish is copied by system
    calls.
    """

    def __init__(self, name: Literal["auto", "signal", "syscall"]) -> None:
        self._before = _core.fault_handler_mode()
        _core.fault_handler_set_mode(name)

    def __enter__(self) -> str:
        return _core.fault_handler_mode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _core.fault_handler_set_mode(self._before)
