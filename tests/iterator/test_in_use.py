"""An iterator can be looked at while another thread copies through it; all else is refused by its name."""

from __future__ import annotations

import gc
import hashlib
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    DEST,
    READ,
    SOURCE,
    WRITE,
    Direction,
    FaultMap,
    IovIter,
    copy_from_iter,
    copy_iter,
    copy_to_iter,
    copy_to_iter_mcsafe,
    hash_and_copy_to_iter,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 128 << 20

LOOKS: dict[str, tuple[Callable[[IovIter], object], object]] = {
    "repr": (repr, f"<IovIter ubuf READ count={SIZE} iov_offset=0 nr_segs=1>"),
    "kind": (lambda i: i.kind, "ubuf"),
    "direction": (lambda i: i.direction, READ),
    "count": (lambda i: i.count, SIZE),
    "len": (len, SIZE),
    "bool": (bool, True),
    "iov_offset": (lambda i: i.iov_offset, 0),
    "nr_segs": (lambda i: i.nr_segs, 1),
    "fault": (lambda i: i.fault, None),
}


@pytest.fixture(scope="module")
def source() -> bytearray:
    return bytearray(SIZE)


@pytest.fixture(scope="module")
def busy(source: bytearray) -> Iterator[IovIter]:
    """An iterator that a thread copies through most of the time."""
    i = IovIter.ubuf(READ, bytearray(SIZE))
    start, stop = i.save_state(), threading.Event()

    def work() -> None:
        while not stop.is_set():
            assert copy_to_iter(source, i) == SIZE
            while True:
                try:
                    i.restore(start)
                    break
                except RuntimeError:  # the test uses it for a moment
                    pass

    thread = threading.Thread(target=work)
    thread.start()
    yield i
    stop.set()
    thread.join()


@pytest.mark.parametrize("name", LOOKS)
def test_it_shows_what_it_was_when_the_copy_began(busy: IovIter, name: str) -> None:
    look, expected = LOOKS[name]
    # Between two copies it has nothing left, for a moment.
    seen: set[str] = set()
    end = time.monotonic() + 60
    while str(expected) not in seen and time.monotonic() < end:
        seen.add(str(look(busy)))
        time.sleep(0)
    assert str(expected) in seen
    assert len(seen) <= 2


USES: dict[str, Callable[[IovIter], object]] = {
    "a copy": lambda i: copy_to_iter(b"", i),
    "a careful copy": lambda i: copy_to_iter_mcsafe(b"", i, fault_map=FaultMap([(1, 1)])),
    "a copy of another kind of call": lambda i: copy_to_iter(i=i, addr=b""),
    "one side of a copy": lambda i: copy_iter(i, IovIter.ubuf(WRITE, b"")),
    "a move": lambda i: i.advance(0),
    "a position": lambda i: i.save_state(),
    "a duplicate": lambda i: i.dup(),
    "a question": lambda i: i.npages(1),
    "its ranges": lambda i: i.ranges(),
    "its views": lambda i: i.views(),
    "a zero": lambda i: i.zero(0),
}


@pytest.mark.parametrize("name", USES)
def test_a_use_is_refused_by_the_name_of_the_iterator(busy: IovIter, name: str) -> None:
    message = f"<IovIter ubuf READ count={SIZE} iov_offset=0 nr_segs=1> is in use: another thread is copying through it"
    refused: list[str] = []
    end = time.monotonic() + 60
    while not refused and time.monotonic() < end:
        try:
            USES[name](busy)
        except RuntimeError as error:
            refused.append(str(error))
        time.sleep(0)
    assert refused == [message]


IN_A_CHILD = """
import os, threading
from iovec_rs import *

SIZE = 64 << 20
i = IovIter.ubuf(READ, bytearray(SIZE))
forking = threading.Event()

class Hash:
    def update(self, part):
        forking.set()
        stay.wait()

stay = threading.Event()
thread = threading.Thread(target=hash_and_copy_to_iter, args=(bytearray(SIZE), i, Hash()))
thread.start()
forking.wait()
child = os.fork()
if child == 0:
    assert repr(i) == f"<IovIter ubuf READ count={SIZE} iov_offset=0 nr_segs=1>", repr(i)
    for use in (lambda: i.advance(1), lambda: copy_to_iter(b"x", i), i.dup, lambda: i.zero(0)):
        try:
            use()
        except RuntimeError as error:
            why = "it stopped in the middle of a copy when this process was forked, and another has to be made"
            assert str(error) == f"{i!r} is in use: {why}", error
        else:
            raise AssertionError("the iterator was used")
    mine = IovIter.ubuf(READ, bytearray(5))
    assert copy_to_iter(b"child", mine) == 5
    del i
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
stay.set()
thread.join()
assert i.count == 0
"""


def test_in_a_forked_child_an_iterator_that_was_in_use_can_be_looked_at_and_not_used() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_CHILD], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1000:]


def test_a_child_forked_inside_a_call_ends_that_call() -> None:
    """The thread that forks is the one that copies: in the child its call goes on, too."""
    i = IovIter.ubuf(READ, bytearray(8))
    child: list[int] = []

    class Hash:
        def update(self, _: object) -> None:
            child.append(os.fork())

    assert hash_and_copy_to_iter(b"12345678", i, Hash()) == 8
    if child == [0]:
        os._exit(i.count + (copy_to_iter(b"", i) != 0))
    assert os.waitpid(child[0], 0)[1] == 0


def test_a_call_inside_a_call_is_told_so() -> None:
    i = IovIter.ubuf(READ, bytearray(8))
    refused: list[str] = []

    class Hash:
        def update(self, _: object) -> None:
            assert i.count == 8
            try:
                copy_to_iter(b"", i)
            except RuntimeError as error:
                refused.append(str(error))

    assert hash_and_copy_to_iter(b"12345678", i, Hash()) == 8
    expected = (
        "<IovIter ubuf READ count=8 iov_offset=0 nr_segs=1> is in use: a call that this one is part of is copying"
    )
    assert refused == [f"{expected} through it"]
    assert hash_and_copy_to_iter(b"", i, hashlib.sha256()) == 0


def test_threads_share_an_iterator_byte_by_byte() -> None:
    """Copies that keep the interpreter's lock and copies that let go of it: each byte is copied once or refused."""
    size, sizes = 6 << 20, (1, 4096, (8 << 10) - 1, 8 << 10, 64 << 10, 300 << 10)
    i = IovIter.ubuf(READ, bytearray(size))
    copied, unexpected, begin = [0] * 4, [], threading.Barrier(4)

    def work(which: int) -> None:
        sources = [bytes(length) for length in sizes]
        begin.wait()
        try:
            while i.count:
                for source in sources:
                    try:
                        copied[which] += copy_to_iter(source, i)
                    except RuntimeError as error:
                        if "another thread is copying through it" not in str(error):
                            raise
        except BaseException as error:
            unexpected.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert unexpected == []
    assert sum(copied) == size


def test_what_runs_while_a_refusal_is_made_may_use_the_iterator() -> None:
    """A collector's finalizers run where the exception is allocated: the iterator is free again by then."""
    i = IovIter.ubuf(READ, bytearray(1 << 20))
    seen: list[object] = []

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            try:
                before = i.count
                seen.append((copy_to_iter(b"x", i), before - i.count))
            except RuntimeError as error:
                seen.append(error)

    out, thresholds = bytearray(8), gc.get_threshold()
    gc.disable()
    gc.set_threshold(1)
    try:
        for _ in range(20):
            Garbage()
            gc.enable()
            try:
                copy_from_iter(out, i)
            except ValueError:
                gc.disable()
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
        gc.collect()
    assert set(seen) == {(1, 1)}
    assert len(seen) == 20


@pytest.mark.skipif(sys.version_info < (3, 12), reason="exporters in Python came with 3.12")
def test_an_exporter_that_uses_the_iterator_itself() -> None:
    """A buffer is exported before the iterator is taken, and released after it is free again."""
    i = IovIter.ubuf(READ, bytearray(27))

    class Exporter:
        def __buffer__(self, flags: int) -> memoryview:
            assert copy_to_iter(b"before", i) == 6
            return memoryview(b"!")

        def __release_buffer__(self, view: memoryview) -> None:
            assert copy_to_iter(b"so", i) == 2
            view.release()

    for _ in range(3):
        assert copy_to_iter(Exporter(), i) == 1
    assert i.count == 0


def test_an_argument_that_uses_the_iterator_itself() -> None:
    """Arguments are converted before the iterator is locked: what their code does to it comes before the copy."""
    i = IovIter.ubuf(READ, bytearray(8))

    class Length:
        def __index__(self) -> int:
            i.advance(6)
            return 2

    length: Any = Length()
    assert copy_to_iter(b"12345678", i, length) == 2
    assert i.count == 0


def test_an_iterator_is_made_by_class_methods() -> None:
    for arguments in [(), (READ, bytearray(1))]:
        with pytest.raises(TypeError, match=r"IovIter\.ubuf, iovec, kvec, bvec, pipe, xarray, folioq and discard"):
            IovIter(*arguments)  # type: ignore[arg-type]


def test_the_two_names_of_a_direction() -> None:
    assert (DEST, SOURCE) == (READ, WRITE) == (Direction.DEST, Direction.SOURCE)
    assert repr(DEST) == repr(READ)
    out = bytearray(2)
    assert copy_from_iter(out, IovIter.ubuf(SOURCE, b"ab")) == 2
    assert IovIter.ubuf(DEST, out).direction is READ
    assert out == b"ab"
