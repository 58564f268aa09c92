"""Regions and maps as exporters: they hold no lock while the interpreter runs code of the program."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import tempfile
from pathlib import Path

from iovec_rs import SafeMap
from iovec_rs.pmem import PmemRegion
from support.own_process import survives


def look_from_the_collector() -> None:
    """A refused view creates an exception, and creating an object may start the collector, which calls back."""
    directory = tempfile.TemporaryDirectory()
    path = Path(directory.name, "file")
    path.write_bytes(bytes(4096))
    get_buffer = ctypes.pythonapi.PyObject_GetBuffer
    get_buffer.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    record, writable = ctypes.create_string_buffer(256), 1
    for exporter in (PmemRegion.open(path, writable=False), SafeMap.open(path)):
        seen: list[int] = []
        gc.callbacks.append(lambda *_event: seen.append(len(exporter)))  # noqa: B023
        gc.set_threshold(1)
        for count in range(20):
            # Creating any of these objects may start the collector.
            others = [set[int]() for _ in range(count)]
            try:
                raise ValueError
            except ValueError:
                # While one exception is handled, the next is created at once, not when it is first looked at.
                with contextlib.suppress(BufferError):
                    get_buffer(exporter, record, writable)
            del others
        gc.callbacks.pop()
        gc.set_threshold(700)
        assert set(seen) == {4096}
        # A refused view does not count as a view.
        exporter.close()
        assert exporter.closed


def test_a_refused_view_locks_nothing() -> None:
    survives(look_from_the_collector)
