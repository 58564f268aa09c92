"""How faults in copied memory are met, and who owns the signals they raise.

Nothing has to be done here: the handler is installed at the first copy, hands on whatever is not a copy's to the
handler that was there before, and takes its place again when somebody else has taken it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from iovec_rs import _core

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Status", "install", "mode", "status", "uninstall"]


class Status(NamedTuple):
    """What `status` reports."""

    mode: Literal["auto", "signal", "syscall"]
    installed: bool
    """Whether both signals are ours."""
    sigbus: Literal["ours", "default", "ignored", "foreign"]
    sigsegv: Literal["ours", "default", "ignored", "foreign"]
    recovered: int
    """Faults recovered from in this process so far."""


def install() -> None:
    """Puts the handler on top for SIGBUS and SIGSEGV now. RuntimeError if something keeps others from doing so."""
    _core.fault_handler_install()


def uninstall() -> None:
    """Puts back what was there before. A signal that somebody else has taken since is left alone.

    The next copy installs the handler again, unless the mode is "syscall". RuntimeError while a guard is entered, in
    whichever thread: it needs the handler.
    """
    _core.fault_handler_uninstall()


def status() -> Status:
    """The mode, who owns the signals, and how many faults were recovered from."""
    return Status(*_core.fault_handler_status())


class mode:  # noqa: N801 - called like a function
    """Meets faults another way from now on, in all threads; as a context manager, until the block ends.

    "auto" uses the signal handler where it can be had and system calls where it cannot (a blocked signal, say).
    "signal" refuses a copy then: RuntimeError. "syscall" never installs anything; memory that can go away is copied by
    the kernel.
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
