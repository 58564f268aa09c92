"""Every public function and method is called with each of its arguments wrong in turn: the message must be in plain
words.

The message names the argument. If that is a number, it shows the number and says what is expected. It has none of
PyO3's own phrases about integral type conversions and objects that cannot be converted.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import tempfile
from typing import TYPE_CHECKING, Any

import iovec_rs
import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultMap,
    FolioQueue,
    IovecArray,
    IovIter,
    PipeRing,
    UserRange,
    XArray,
    cpu,
    fault_handler,
    io,
    iovec_from_user,
    pmem,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOREIGN = re.compile(
    r"integral type conversion|cannot be converted|cannot be interpreted|Already (mutably )?borrowed"
    r"|^argument '|\ba (iovec|xarray)\b"
    r"|unwrap|panicked|Some\(|None\)|Err\(|\bisize\b|\busize\b|\bu(8|16|32|64)\b|\bi32\b|PyErr|dyn |\{|::"
)

HUGE = 2**100
"""A number that no argument accepts."""


class Odd:
    """An object that no argument accepts."""


def fitting(function: str, parameter: str) -> Any:
    """A value that fits the parameter of this name of this function."""
    is_source = any(word in function for word in ("from_iter", "write", "vmsplice", "sendmsg"))
    made: dict[str, Callable[[], Any]] = {
        "i": lambda: IovIter.ubuf(WRITE if is_source else READ, bytearray(PAGE_SIZE)),
        "local": lambda: IovIter.ubuf(WRITE if is_source else READ, bytearray(8)),
        "addr": lambda: bytearray(64),
        "buffer": lambda: bytearray(64),
        "folio": lambda: bytearray(PAGE_SIZE),
        "page": lambda: bytearray(PAGE_SIZE),
        "data": lambda: b"data",
        "dst": lambda: IovIter.ubuf(READ, bytearray(8)) if function == "copy_iter" else bytearray(8),
        "src": lambda: IovIter.ubuf(WRITE, bytes(8)) if function == "copy_iter" else bytes(8),
        "direction": lambda: READ,
        "type": lambda: READ,
        "segments": lambda: [bytearray(8)],
        "uvector": lambda: [bytearray(8)],
        "bvecs": lambda: [(bytearray(8), 0, 8)],
        "folios": lambda: [bytearray(PAGE_SIZE)],
        "pages": lambda: {0: bytearray(PAGE_SIZE)},
        "ranges": lambda: [(1, 2)],
        "pipe": PipeRing,
        "xarray": XArray,
        "queue": lambda: FolioQueue([bytearray(PAGE_SIZE)]),
        "fault_map": FaultMap,
        "state": lambda: IovIter.ubuf(READ, bytearray(8)).save_state(),
        "hash": hashlib.sha256,
        "callback": lambda: lambda *_: None,
        "step": lambda: lambda *_: None,
        "access": lambda: "read",
        "source": lambda: "",
        "name": lambda: "auto",
        "compat": lambda: False,
        "value": lambda: UserRange(0, 0),
        "remote": list,
        "pid": os.getpid,
        "namespace": lambda: "namespace0.0",
        "map": FaultMap,
        "pieces": lambda: [(0, 0, 1)],
        "incomplete": lambda: False,
    }
    return made[parameter]() if parameter in made else 1


NUMBERS = {
    "addr_mask", "ancbufsize", "base", "capacity", "count", "csum", "fast_segs", "first_slot", "flags", "index",
    "len_mask", "length", "maxpages", "maxsegs", "maxsize", "nbytes", "nr_segs", "offset", "pid", "size",
    "slots", "start",
}  # fmt: skip
"""The names of parameters that are numbers."""

ANY_NUMBER = {("FaultMap.first_in", "length")}
"""Functions of a map accept any number: bytes behind the last address are not bad."""


def subjects() -> Iterator[tuple[str, Callable[[], Callable[..., object]]]]:
    """Yields each callable by name, with a function that makes it: functions, constructors, and methods of new
    objects.
    """
    for module in (iovec_rs, io, pmem, cpu, fault_handler):
        for name in module.__all__:
            found = getattr(module, name)
            if inspect.isroutine(found):
                yield f"{module.__name__}.{name}", lambda found=found: found  # type: ignore[misc]
    objects: dict[str, Callable[[], Any]] = {
        "IovIter": lambda: IovIter.iovec(READ, [bytearray(PAGE_SIZE)]),
        "PipeRing": PipeRing,
        "XArray": XArray,
        "FolioQueue": lambda: FolioQueue([bytearray(PAGE_SIZE)]),
        "FaultMap": FaultMap,
        "IovecArray": lambda: iovec_from_user([bytearray(8)]),
        "IterState": lambda: IovIter.ubuf(READ, bytearray(8)).save_state(),
    }
    for name, make in objects.items():
        cls: type = getattr(iovec_rs, name)
        if cls not in (IovIter, IovecArray) and name != "IterState":
            yield f"iovec_rs.{name}", lambda cls=cls: cls  # type: ignore[misc]
        for method in dir(cls):
            if not method.startswith("_") and callable(getattr(cls, method)):
                yield f"{name}.{method}", lambda make=make, method=method: getattr(make(), method)  # type: ignore[misc]


ALL = dict(subjects())

NOT_TRIED = {
    "iovec_rs.guard": "takes any number of buffers, by position",
    "IovIter.__enter__": "takes nothing",
}


def parameters(call: Callable[..., object]) -> list[str]:
    try:
        found = inspect.signature(call).parameters.values()
    except ValueError:
        return []
    return [each.name for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]


def complaint(name: str, parameter: str, value: object) -> BaseException | None:
    """The exception of a call in which only one argument is wrong."""
    call = ALL[name]()
    function = name.rpartition(".")[2]
    positional, named = [], {}
    with tempfile.TemporaryFile() as file:
        file.write(bytes(64))
        for each in inspect.signature(call).parameters.values():
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
                continue
            if each.name == parameter:
                given = value
            elif each.default is not each.empty:
                continue
            else:
                given = file if each.name in {"fd", "sock"} else fitting(function, each.name)
            if each.kind is each.KEYWORD_ONLY or each.default is not each.empty:
                named[each.name] = given
            else:
                positional.append(given)
        try:
            call(*positional, **named)
        except Exception as error:
            return error
    return None


def words(error: BaseException) -> str:
    return "\n".join([str(error), *getattr(error, "__notes__", [])])


@pytest.mark.parametrize("name", sorted(ALL.keys() - NOT_TRIED.keys()))
def test_wrong_arguments_are_refused_in_plain_words(name: str) -> None:
    for parameter in parameters(ALL[name]()):
        for value in [Odd(), 1.5, "text", b"bytes", None, -1, HUGE, -HUGE, [Odd()], [(Odd(),)], {}]:
            error = complaint(name, parameter, value)
            if error is not None:
                assert not FOREIGN.search(words(error)), f"{parameter}={value!r}: {error!r}"
        if parameter not in NUMBERS or (name, parameter) in ANY_NUMBER:
            continue
        wrong = complaint(name, parameter, Odd())
        assert isinstance(wrong, TypeError), f"{parameter}: {wrong!r}"
        assert all(word in words(wrong) for word in (parameter, "int", "Odd")), f"{parameter}: {wrong!r}"
        beyond = complaint(name, parameter, HUGE)
        assert isinstance(beyond, ValueError), f"{parameter}: {beyond!r}"
        assert all(word in words(beyond) for word in (parameter, str(HUGE))), f"{parameter}: {beyond!r}"
        assert re.search(r"less than 2\*\*\d\d|at most \d|past 2\*\*64", words(beyond)), f"{parameter}: {beyond!r}"
