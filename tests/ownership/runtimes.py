"""Real runtimes that use faults for their own work: python -m ownership.runtimes RUNTIME STEP… Each prints `ok` at its
end.

Steps: `copy`, `start` (the runtime), `trip` (it has faults, and recovers), `enable` (faulthandler).
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from iovec_rs import fault_handler

from ownership.common import survive

WASM = """
(module
  (memory 1)
  (func (export "beyond") (result i32) (i32.load (i32.const 0x7ffffff0)))
  (func (export "divided") (param i32) (result i32) (i32.div_s (i32.const 1) (local.get 0)))
  (func (export "deep") (result i32) (call 2)))
"""


class Jvm:
    def __init__(self) -> None:
        self.glue = ctypes.CDLL(os.environ["JVM_GLUE"])
        classes = f"-Djava.class.path={Path(os.environ['JVM_GLUE']).parent}".encode()
        assert self.glue.jvm_start(os.environ["JVM_LIBRARY"].encode(), classes) == 0

    def trip(self) -> None:
        assert self.glue.jvm_null_pointers(1000) == 1000
        with tempfile.NamedTemporaryFile() as file:
            assert self.glue.jvm_cut_file(file.name.encode()) == 1


class Wasmtime:
    def __init__(self) -> None:
        self.wasmtime: Any = importlib.import_module("wasmtime")
        self.store = self.wasmtime.Store()
        module = self.wasmtime.Module(self.store.engine, WASM)
        self.exports = self.wasmtime.Instance(self.store, module, []).exports(self.store)

    def trip(self) -> None:
        trips = 0
        for name, arguments in (("beyond", ()), ("divided", (0,)), ("deep", ())) * 20:
            try:
                self.exports[name](self.store, *arguments)
            except self.wasmtime.Trap:
                trips += 1
        assert trips == 60


RUNTIMES: dict[str, type[Jvm | Wasmtime]] = {"jvm": Jvm, "wasmtime": Wasmtime}

if __name__ == "__main__":
    runtime: Jvm | Wasmtime | None = None
    for step in sys.argv[2:]:
        if step == "start":
            runtime = RUNTIMES[sys.argv[1]]()
        elif step == "trip":
            assert runtime is not None
            runtime.trip()
        elif step == "copy":
            with fault_handler.mode("signal"):
                assert survive() == ["signal"] * 8
        else:
            getattr(faulthandler, step)()
    print("ok")
