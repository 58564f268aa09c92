"""Every public callable is called with arguments of every type, in every state. A refused call must change nothing.

The exception must be one that Python's own functions raise, with our own message; no buffer may stay exported, and the
process must not die.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import re
import resource
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import iovec_rs
import numpy as np
from iovec_rs import WRITE, FaultError, FaultMap, FolioQueue, IovIter, PipeRing, XArray, cpu, fault_handler

from hunt.arguments import Meddler, OfTheUser, Pool
from hunt.finding import Finding, doing, expect

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

PATIENCE = 30.0
"""Seconds. A round takes hundredths of a second."""
CALLS = 40
"""The number of calls in one round, over one pool of arguments."""
LITTLE = 4 << 30
"""The bytes by which the address space may grow, so that a random size does not take the machine's memory."""

REFUSALS = (
    TypeError, ValueError, BufferError, OSError, OverflowError, MemoryError, RuntimeError, IndexError, KeyError,
    AttributeError, StopIteration, OfTheUser,
)  # fmt: skip
LEFT_OUT = (
    "FaultError",
    "PmemRegion.close",
    "ClearError",
    "Direction",
    "IterKind",
    "uninstall",
    "install",
    "clear_badblocks",
    "process_vm_readv",
    "process_vm_writev",
)
"""Names that are not called: they are no functions, or they affect all of this process, or other processes (a random
pid may be in use).
"""
FOREIGN_WORDS = re.compile(
    r"\b(Some|Ok|Err)\(|\bNone\)|unwrap|panicked|\.rs\b|[Mm]utably borrowed|[Aa]lready borrowed|failed to extract|"
    r"cannot be (converted|cast)|argument '\w+': |Py[A-Z][a-z]+\b(?<!PyPy)|TryFromInt|out of range integral type|"
    r"\ba (?:iovec|iterator|array|int|object|address|offset|empty|index|integer|even|odd)\b|"
    r"\b(usize|isize|u64|i64|u32)\b"
)


class Callee(NamedTuple):
    name: str
    function: Callable[..., Any] | None
    method: str
    owner: type | None
    parameters: tuple[inspect.Parameter, ...]


def _parameters(function: Any) -> tuple[inspect.Parameter, ...]:
    try:
        found = tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()
    return tuple(each for each in found if each.name not in ("self", "cls", "kind", "error", "traceback"))


def callables() -> list[Callee]:
    """Every public callable, found by inspection."""
    found: list[Callee] = []

    def of_module(module: ModuleType, prefix: str) -> None:
        for name in module.__all__:
            thing = getattr(module, name)
            if name in LEFT_OUT:
                continue
            if isinstance(thing, ModuleType):
                of_module(thing, f"{name}.")
            elif isinstance(thing, type):
                of_class(thing)
            elif callable(thing):
                found.append(Callee(prefix + name, thing, "", None, _parameters(thing)))

    def of_class(cls: type) -> None:
        if cls.__module__ == "iovec_rs._types":
            return
        found.append(Callee(cls.__name__, cls, "", None, _parameters(cls)))
        for name, thing in list(vars(cls).items()):
            if name.startswith("_") and name not in ("__getitem__", "__contains__", "__len__", "__iter__", "__eq__"):
                continue
            if isinstance(thing, classmethod) or inspect.isbuiltin(thing):
                bound = getattr(cls, name)
                found.append(Callee(f"{cls.__name__}.{name}", bound, "", None, _parameters(bound)))
            elif f"{cls.__name__}.{name}" not in LEFT_OUT and (callable(thing) or inspect.isgetsetdescriptor(thing)):
                found.append(Callee(f"{cls.__name__}.{name}", None, name, cls, _parameters(thing)))

    of_module(iovec_rs, "")
    return found


CALLABLES = callables()


def state(thing: Any, deep: int = 2) -> object:
    """The visible state of an argument. A refused call must leave it equal."""
    if isinstance(thing, IovIter):
        try:
            position = (thing.count, thing.iov_offset, thing.nr_segs, thing.kind, thing.direction, thing.fault)
            return (*position, tuple(thing.ranges()) if thing.kind not in ("pipe", "discard") else ())
        except (ValueError, RuntimeError, TypeError) as error:
            return str(error)
    if isinstance(thing, PipeRing):
        return tuple((bytes(page[at : at + n]), at, n, flags) for page, at, n, flags in thing.slots)
    if isinstance(thing, XArray):
        pages = [thing.load(index) for index in range(8)]
        return tuple(page and (page.readonly, bytes(page)) for page in pages)
    if isinstance(thing, FolioQueue):
        return tuple(IovIter.folioq(WRITE, thing, 0, 0, 1 << 20).ranges())
    if isinstance(thing, FaultMap):
        return tuple(thing)
    if isinstance(thing, np.ndarray):
        return thing.tobytes() if not thing.dtype.hasobject else ()
    if isinstance(thing, (list, tuple)) and deep:
        return tuple(state(each, deep - 1) for each in thing)
    with contextlib.suppress(TypeError, ValueError, BufferError, NotImplementedError):
        return bytes(memoryview(thing))
    return ()


def _holds_meddler(thing: Any) -> bool:
    if isinstance(thing, (list, tuple)):
        return any(map(_holds_meddler, thing))
    if isinstance(thing, dict):
        return any(map(_holds_meddler, thing.values()))
    return isinstance(thing, Meddler) or inspect.isgenerator(thing)


def _draw(pool: Pool, callee: Callee) -> tuple[list[Any], dict[str, Any]]:
    """Mostly arguments that fit. The others, and their number, are random."""
    rng = pool.rng
    wild = rng.choice((0.0, 0.1, 0.1, 0.5, 1.0))
    args: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in callee.parameters:
        if parameter.default is not inspect.Parameter.empty and rng.random() < 0.5:
            if not named and rng.random() < 0.5:
                break
            continue
        value = pool.anything() if rng.random() < wild else pool.fitting(parameter.name)
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if positional and not named and len(args) == callee.parameters.index(parameter) and rng.random() < 0.8:
            args.append(value)
        else:
            named[parameter.name] = value
    if rng.random() < 0.03:
        args.append(pool.anything())
    if rng.random() < 0.03:
        named[rng.choice(("nbytes", "nobody", "i", ""))] = pool.anything()
    if rng.random() < 0.03 and args:
        args.pop()
    return args, named


def _receiver(pool: Pool, owner: type) -> Any:
    if owner is IovIter:
        return pool.rng.choice(pool.iterators)
    everything = [*pool.rings, *pool.xarrays, *pool.queues, *pool.maps, *pool.states, pool.region]
    everything.append(iovec_rs.iovec_from_user([pool.arrays[3], pool.arrays[4]]))
    fitting = [each for each in everything if isinstance(each, owner)]
    return pool.rng.choice(fitting) if fitting else None


Prepared = tuple["Callable[[], object]", list[Any], str, bool]
"""A call, the objects in it, its description, and whether one of its arguments runs code of its own."""


def prepare(pool: Pool, callee: Callee) -> Prepared | None:
    """A call with arguments of the pool; None if the pool has no object to call a method of."""
    receiver = _receiver(pool, callee.owner) if callee.owner else None
    if callee.owner and receiver is None:
        return None
    args, named = _draw(pool, callee)
    words = [ascii(each)[:150] for each in args] + [f"{name}={ascii(each)[:150]}" for name, each in named.items()]
    call = f"{callee.name}({', '.join(words)})" + (f" of {receiver!r}" if callee.owner else "")
    watched = [receiver, *args, *named.values()]

    def call_it() -> object:
        if callee.owner is None:
            assert callee.function is not None
            return callee.function(*args, **named)
        thing = getattr(receiver, callee.method)
        return thing(*args, **named) if callable(thing) else thing

    def run() -> object:
        result = call_it()
        if inspect.iscoroutine(result):
            result.close()  # a coroutine, which only an event loop runs
        return result

    return run, watched, call, any(map(_holds_meddler, watched))


def _once(pool: Pool, callee: Callee) -> None:
    prepared = prepare(pool, callee)
    if prepared is None:
        return
    run, watched, call, meddled = prepared
    doing(call)
    before = state(watched)
    try:
        run()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        doing(f"looking at what was left by {call}")
        if not isinstance(error, REFUSALS):
            raise Finding(f"{callee.name} raises {type(error).__name__}\n  {call}\n  {error}") from error
        match = FOREIGN_WORDS.search(str(error))
        if match and not isinstance(error, OfTheUser) and not any(match[0] in ascii(each) for each in watched):
            raise Finding(f"{callee.name}: words not ours ({match[0]!r})\n  {error}\n  {call}") from error
        partial = isinstance(error, FaultError) or getattr(error, "characters_written", None) is not None
        if not meddled and not partial:
            what = f"{callee.name} refused and changed something"
            expect(before == state(watched), what, call, f"{type(error).__name__}: {error}")


def hunt(rng: random.Random) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, resource.RLIM_INFINITY))
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + LITTLE, resource.RLIM_INFINITY))
    chosen, flush = cpu.isa(), cpu.flush_instruction()
    pool = Pool(rng)
    try:
        for _ in range(CALLS):
            _once(pool, rng.choice(CALLABLES))
            fault_handler.mode("auto")
    finally:
        arrays = pool.close()
        cpu.use_isa(chosen)
        if flush:
            cpu.use_flush_instruction(flush)
    if rng.random() < 0.1:
        gc.collect()
        for each in arrays:
            try:
                each.append(0)
            except BufferError as error:
                raise Finding("a buffer is still exported after everything went") from error
