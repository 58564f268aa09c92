# mypy: disable-error-code="arg-type,list-item,no-untyped-call,misc,call-overload,dict-item,type-arg"
"""Which objects are accepted as memory, how others are refused, and that exceptions of exporters are passed on."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
from iovec_rs import (
    READ,
    WRITE,
    FolioQueue,
    IovIter,
    PipeRing,
    XArray,
    copy_from_iter,
    copy_to_iter,
    import_iovec,
    memcpy_mcsafe,
)

OBJECTS: dict[str, Any] = {
    "an array of objects": np.array([object(), object()]),
    "a record with an object in it": np.zeros(3, dtype=[("a", "u1"), ("b", object)]),
    "a view of one": memoryview(np.array([object(), object()])),
    "a ctypes array of objects": (ctypes.py_object * 2)(),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_arrays_of_python_objects_are_refused(name: str) -> None:
    """Writing to them would forge references. A WRITE iterator is refused, too, since `zero` writes to it."""
    objects = OBJECTS[name]
    for call, argument in [
        (lambda: IovIter.ubuf(READ, objects), "segment 0"),
        (lambda: IovIter.ubuf(WRITE, objects), "segment 0"),
        (lambda: IovIter.kvec(READ, [bytearray(1), objects]), "segment 1"),
        (lambda: import_iovec(READ, [objects]), "segment 0"),
        (lambda: copy_to_iter(objects, IovIter.ubuf(READ, bytearray(8))), "addr"),
        (lambda: copy_from_iter(objects, IovIter.ubuf(WRITE, bytes(8))), "addr"),
        (lambda: memcpy_mcsafe(objects, bytes(objects.nbytes if hasattr(objects, "nbytes") else 16)), "dst"),
    ]:
        with pytest.raises(TypeError, match=f"^{argument}: an array of Python objects"):
            call()


def test_a_field_named_o_is_not_taken_for_an_object_field() -> None:
    record = np.ones(2, dtype=[("OO", "u1"), ("O", "<u2")])
    out = bytearray(6)
    assert copy_from_iter(out, IovIter.iovec(WRITE, [record])) == 6
    assert out == record.tobytes()


SINGLE: dict[str, Any] = {
    "numpy": np.arange(5.0),
    "a scalar array": np.array(5.0),
    "bytes": b"abc",
    "a bytearray": bytearray(3),
    "a memoryview": memoryview(b"abc"),
    "an array": array.array("d", [1, 2]),
    "a mapping": mmap.mmap(-1, 4096),
    "a strided array": np.arange(10)[::2],
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_buffer_is_refused_where_a_list_of_buffers_is_expected(name: str) -> None:
    single = SINGLE[name]
    for call in (
        lambda: IovIter.iovec(WRITE, single),
        lambda: IovIter.kvec(WRITE, single),
        lambda: IovIter.bvec(WRITE, single),
        lambda: FolioQueue(single),
    ):
        with pytest.raises(TypeError, match=r"an iterable of buffers is expected, not a single \w+: put it in a list"):
            call()


def test_the_rows_of_an_array_are_segments_of_its_memory() -> None:
    table = np.arange(12, dtype="u1").reshape(3, 4)
    i = IovIter.iovec(WRITE, table)
    table[1, 1] = 99
    out = bytearray(12)
    assert i.nr_segs == 3
    assert copy_from_iter(out, i) == 12
    assert out == table.tobytes()


NOT_ITERABLE = [
    (lambda: IovIter.iovec(WRITE, 5), "segments: an iterable of buffers is expected, not int"),
    (lambda: IovIter.kvec(WRITE, None), "segments: an iterable of buffers is expected, not NoneType"),
    (lambda: IovIter.bvec(WRITE, [5]), "bvecs[0]: (page, offset, length) is expected, not int"),
    (lambda: IovIter.iovec(WRITE, "ab"), "segments: an iterable of buffers is expected, not str"),
    (lambda: IovIter.iovec(WRITE, ""), "segments: an iterable of buffers is expected, not str"),
    (lambda: IovIter.iovec("x", []), "direction: a Direction, DEST or SOURCE, is expected, not str"),
    (lambda: IovIter.pipe(READ, 5, 1), "pipe: a PipeRing is expected, not int"),
    (lambda: IovIter.xarray(READ, PipeRing(1), 0, 1), "xarray: an XArray is expected, not PipeRing"),
    (lambda: IovIter.folioq(READ, XArray(), 0, 0, 1), "queue: a FolioQueue is expected, not XArray"),
    (lambda: XArray([1]), "pages: a mapping of indexes to pages is expected, not list"),
    (
        lambda: copy_to_iter(IovIter.discard(READ, 1), b"x"),
        "i: an IovIter is expected, not bytes: the buffer comes first",
    ),
]


@pytest.mark.parametrize(("call", "message"), NOT_ITERABLE)
def test_error_messages_name_the_argument_and_the_expected_type(call: Any, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


@pytest.mark.skipif(sys.version_info < (3, 12), reason="exporters in Python came with 3.12")
@pytest.mark.parametrize("error", [KeyboardInterrupt, BufferError, ValueError, RuntimeError])
def test_an_exception_of_an_exporter_is_passed_on_unchanged(error: type[BaseException]) -> None:
    class Exporter:
        asked = 0

        def __buffer__(self, _: int) -> memoryview:
            self.asked += 1
            if self.asked == 1:
                raise error("mine")
            return memoryview(bytearray(8))

    exporter: Any = Exporter()
    with pytest.raises(error, match=r"^mine$"):
        IovIter.ubuf(READ, exporter)
    assert exporter.asked == 1


def test_an_exception_of_an_index_method_is_passed_on_unchanged() -> None:
    class Index:
        def __init__(self, error: type[BaseException]) -> None:
            self.error = error

        def __index__(self) -> int:
            raise self.error("mine")

    for error in (KeyboardInterrupt, TypeError, ValueError):
        index: Any = Index(error)
        for call in (
            lambda index=index: copy_to_iter(b"x", IovIter.discard(READ, 1), index),
            lambda index=index: IovIter.discard(READ, index),
            lambda index=index: IovIter.discard(index, 1),
        ):
            with pytest.raises(error, match=r"^mine$"):
                call()


def test_a_refused_segment_list_releases_its_buffers() -> None:
    first = bytearray(8)
    for wrong in ([first, b"read-only"], [first, 5], [first, np.arange(6)[::2]], [first, OBJECTS["a view of one"]]):
        with pytest.raises((TypeError, BufferError)):
            IovIter.iovec(READ, wrong)
        first.append(1)  # BufferError if it were still exported


def test_cycles_are_collected() -> None:
    class Memory(bytearray):
        cycle: object

    alive: list[int] = []

    def cycles() -> None:
        for make in (
            lambda memory: IovIter.ubuf(READ, memory),
            lambda memory: IovIter.iovec(READ, [memory] * 9).dup(),
            lambda memory: IovIter.kvec(READ, [memory]).views(),
            lambda memory: import_iovec(READ, [memory] * 9),
            lambda memory: import_iovec(READ, [memory] * 9)[1],
            lambda memory: (IovIter.ubuf(READ, memory), IovIter.ubuf(READ, memory)),
        ):
            memory = Memory(64)
            memory.cycle = make(memory)

    gc.collect()
    cycles()
    gc.collect()
    alive += [1 for each in gc.get_objects() if type(each).__name__ == "Memory"]
    assert alive == []


def test_collecting_a_cycle_through_a_memoryview_does_not_crash() -> None:
    """The interpreter clears a garbage memoryview even if its memory is exported."""

    def cycle(memory: bytearray) -> None:
        view = memoryview(memory)
        parts: list[object] = [view[at : at + 8] for at in range(0, 64, 8)]
        i = IovIter.iovec(READ, parts)
        parts.append([i, parts])

    for _ in range(20):
        memory = bytearray(b"m" * 64)
        cycle(memory)
        gc.collect()
        assert memory == b"m" * 64
        memory.append(1)  # BufferError if it were still exported


def test_the_collector_leaves_the_memory_of_a_live_iterator_alone() -> None:
    class Memory(bytearray):
        cycle: object

    def made() -> IovIter:
        memory = Memory(b"x" * 64)
        memory.cycle = [IovIter.ubuf(READ, memory), memory]
        return IovIter.iovec(WRITE, [memory, memory]).dup()

    i = made()
    for _ in range(3):
        gc.collect()
    out = bytearray(128)
    assert copy_from_iter(out, i) == 128
    assert out == b"x" * 128


GROWTH = {
    "counts": "f(b, i, n); f(b, i, n + 1)",
    "refused sizes": "attempt(lambda: f(b, i, -n))",
    "sizes whose code raises": "attempt(lambda: f(b, i, Raising()))",
    "wrong buffers": "attempt(lambda: f('x' * n, i))",
    "ranges of a subclass": "f(Sub(0, 0), i)",
    "classes by the dozen": "f(type('C', (bytearray,), {})(b), i, n)",
}


@pytest.mark.parametrize("name", GROWTH)
def test_repeating_one_call_does_not_grow_the_process(name: str) -> None:
    """The fast calling path must keep nothing that only the general path would release."""
    program = f"""
        from iovec_rs import *
        class Sub(UserRange): pass
        class Raising:
            def __index__(self): raise ValueError("x" * 1000)
        def attempt(call):
            try: call()
            except (ValueError, TypeError): return
            raise SystemExit("it was not refused")
        def used(): return int(open("/proc/self/statm").read().split()[1]) * 4096
        i, b, f = IovIter.discard(READ, 2**62), bytes(8192), copy_to_iter
        def run(times):
            for _ in range(times):
                for n in range(300, 1300): {GROWTH[name]}
        run(2)
        before = used()
        run(20)
        raise SystemExit(used() - before > 2 << 20)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=300)
