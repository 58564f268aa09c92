"""A call of a copy function goes through the fast entry, or through PyO3's wrapper if its arguments are unusual. Both
behave alike.
"""

from __future__ import annotations

import array
import gc
import inspect
import pickle
import sys
import threading
from typing import TYPE_CHECKING, Any

import iovec_rs
import numpy as np
import pytest
from iovec_rs import READ, WRITE, IovIter, UserRange, copy_from_iter, copy_to_iter

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT_WAY_IN = (
    "copy_to_iter",
    "copy_to_iter_full",
    "copy_to_iter_mcsafe",
    "copy_to_iter_flushcache",
    "copy_from_iter",
    "copy_from_iter_full",
    "copy_from_iter_nocache",
    "copy_from_iter_full_nocache",
    "copy_from_iter_flushcache",
)


@pytest.fixture(params=SHORT_WAY_IN)
def copy(request: pytest.FixtureRequest) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(iovec_rs, request.param)
    return function


def fresh(copy: Callable[..., Any], size: int = 8) -> tuple[bytearray, IovIter]:
    direction = READ if copy.__name__.startswith("copy_to") else WRITE
    return bytearray(range(1, size + 1)), IovIter.ubuf(direction, bytearray(size))


def test_it_is_a_function_of_the_module_like_any_other(copy: Callable[..., Any]) -> None:
    name = copy.__name__
    assert repr(copy) == f"<built-in function {name}>"
    assert (copy.__module__, copy.__qualname__) == ("iovec_rs._core", name)
    assert list(inspect.signature(copy).parameters)[:3] == ["addr", "i", "nbytes"]
    assert inspect.signature(copy).parameters["nbytes"].default is None
    assert copy.__doc__
    assert not copy.__doc__.startswith(name)
    assert pickle.loads(pickle.dumps(copy)) is copy


def test_every_way_to_pass_the_same_arguments(copy: Callable[..., Any]) -> None:
    calls: list[tuple[Callable[[Any, Any], Any], int]] = [
        (copy, 8),
        (lambda addr, i: copy(addr, i, None), 8),
        (lambda addr, i: copy(addr, i, 3), 3),
        (lambda addr, i: copy(addr, i, nbytes=3), 3),
        (lambda addr, i: copy(addr, i, **{"".join(["nby", "tes"]): 3}), 3),
        (lambda addr, i: copy(addr, i=i), 8),
        (lambda addr, i: copy(i=i, addr=addr), 8),
        (lambda addr, i: copy(nbytes=3, i=i, addr=addr), 3),
        (lambda addr, i: copy(*[addr], i=i, nbytes=3), 3),
    ]
    for number, (call, copied) in enumerate(calls):
        addr, i = fresh(copy)
        result = call(addr, i)
        assert result is True or result == copied, number
        assert i.count == 8 - copied, number


def test_wrong_arguments_get_the_exceptions_of_the_wrapper(copy: Callable[..., Any]) -> None:
    addr, i = fresh(copy)
    name = copy.__name__
    wrong: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (copy, TypeError, f"{name}() missing 2 required positional arguments: 'addr' and 'i'"),
        (lambda: copy(addr), TypeError, f"{name}() missing 1 required positional argument: 'i'"),
        (lambda: copy(addr, i, 1, 2), TypeError, f"{name}() takes from 2 to 3 positional arguments but 4 were given"),
        (lambda: copy(addr, i, 1, nbytes=1), TypeError, f"{name}() got multiple values for argument 'nbytes'"),
        (lambda: copy(addr, i, size=1), TypeError, f"{name}() got an unexpected keyword argument 'size'"),
        (lambda: copy(addr, "i"), TypeError, "i: an IovIter is expected, not str"),
        (lambda: copy("addr", i), TypeError, "addr: a buffer is expected, not str"),
        (lambda: copy(addr, i, "1"), TypeError, "nbytes: an int is expected, not str"),
        (lambda: copy(addr, i, -1), ValueError, "nbytes is -1: expected 0 or more, less than 2**64"),
        (lambda: copy(addr, i, np.int8(-1)), ValueError, "nbytes is -1: expected 0 or more, less than 2**64"),
    ]
    for call, kind, message in wrong:
        with pytest.raises(kind) as caught:
            call()
        assert (type(caught.value), str(caught.value)) == (kind, message)
        assert i.count == 8


def test_no_reference_is_kept_or_lost(copy: Callable[..., Any]) -> None:
    addr, i = fresh(copy)
    nbytes = 10**6
    objects = (addr, i, nbytes, copy)
    gc.collect()  # garbage of earlier tests may refer to the function
    before = [sys.getrefcount(each) for each in objects]
    for _ in range(100):
        with pytest.raises(ValueError, match="1000000"):
            copy(addr, i, nbytes)
        with pytest.raises(ValueError, match="1000000"):
            copy(addr, i, nbytes=nbytes)
        with pytest.raises(ValueError, match="1000000"):
            copy(nbytes=nbytes, addr=addr, i=i)
        copy(addr, i, 0)
    assert [sys.getrefcount(each) for each in objects] == before
    addr.append(1)  # BufferError if it were still exported


def test_a_raw_range_comes_in_too() -> None:
    memory = bytearray(8)
    target = IovIter.ubuf(READ, memory)
    (where,) = target.ranges()
    assert copy_from_iter(UserRange(where.address, 8), IovIter.ubuf(WRITE, b"12345678")) == 8
    assert memory == b"12345678"


def test_an_iterator_in_use_is_refused_and_the_copy_under_way_is_whole() -> None:
    size = 64 << 20
    source, i = bytes(size), IovIter.ubuf(READ, bytearray(size))
    refused: list[BaseException] = []
    copied = []
    runner = threading.Thread(target=lambda: copied.append(copy_to_iter(source, i)))
    runner.start()
    while runner.is_alive():
        try:
            copy_to_iter(b"", i)
        except RuntimeError as error:
            refused.append(error)
            break
    runner.join()
    assert copied == [size]
    assert i.count == 0
    assert [str(error) for error in refused] == [
        f"<IovIter ubuf READ count={size} iov_offset=0 nr_segs=1> is in use: another thread is copying through it"
    ]


def test_copies_of_8_kib_let_others_run_and_smaller_ones_do_not() -> None:
    assert not _another_runs(copies=20_000, size=(8 << 10) - 1)
    assert _another_runs(copies=10_000_000, size=8 << 10)


def _another_runs(copies: int, size: int) -> bool:
    """Whether a thread that waits for the interpreter gets it during this many copies. The switch interval is so long
    that the interpreter does not make the copying thread give way.
    """
    source, i = bytes(size), IovIter.ubuf(READ, bytearray(size))
    start = i.save_state()
    gate, came = threading.Lock(), threading.Event()
    gate.acquire()

    def other() -> None:
        gate.acquire()
        came.set()

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        gate.release()
        for _ in range(copies):
            copy_to_iter(source, i)
            i.restore(start)
            if came.is_set():
                break
        return came.is_set()
    finally:
        sys.setswitchinterval(interval)
        thread.join()


def test_counts_that_come_again_and_those_that_do_not() -> None:
    source, target = bytearray(1 << 16), bytearray(1 << 16)
    counts = [256, 257, 257, 300, 257, 300, 300, 256, 1 << 16, 1 << 16, 0, 1 << 16, 299]

    def copies() -> list[int]:
        return [copy_to_iter(source, IovIter.ubuf(READ, target), count) for count in counts]

    elsewhere: list[int] = []
    thread = threading.Thread(target=lambda: elsewhere.extend(copies()))
    thread.start()
    here = copies()
    thread.join()
    assert here == elsewhere == counts


def test_many_sources_of_every_sort_one_after_the_other() -> None:
    target = bytearray(64)
    memory = memoryview(bytearray(range(256)) * 16)
    sources: list[Any] = [memory[start : start + 64] for start in range(0, 4096, 64)]
    sources += [bytearray([number] * 64) for number in range(16)]
    sources += [bytes([number] * 64) for number in range(16)]
    sources += [array.array("B", [number] * 64) for number in range(16)]
    for source in [*sources, *sources, *reversed(sources)]:
        assert copy_to_iter(source, IovIter.ubuf(READ, target)) == 64
        assert target == bytes(source)
