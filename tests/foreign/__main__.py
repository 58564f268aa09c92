"""`python -m foreign`: CPython's own tests of `sendmsg`, `recvmsg`, `readv` and `writev`, routed through `iovec_rs.io`.

For the run, every socket's `sendmsg`, `recvmsg` and `recvmsg_into` and the vectored functions of `posix` are replaced
by functions that do the same over an iterator. So each test judges `iovec_rs.io` by what CPython expects of itself.
Exits with 0 if all tests that could run passed, and with 2 if this Python has no `test` package.
"""

from __future__ import annotations

import importlib
import os
import socket
import sys
import unittest
from typing import TYPE_CHECKING, Any

from iovec_rs import READ, WRITE, IovIter, io

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_calls = 0


def _source(buffers: Iterable[Any]) -> IovIter:
    global _calls  # noqa: PLW0603
    _calls += 1
    return IovIter.kvec(WRITE, list(buffers))


def _destination(buffers: Iterable[Any]) -> IovIter:
    global _calls  # noqa: PLW0603
    _calls += 1
    try:
        return IovIter.kvec(READ, list(buffers))
    except BufferError as error:
        # The only difference: for read-only memory CPython raises TypeError.
        raise TypeError(str(error)) from error


def _sendmsg(
    sock: socket.socket, buffers: Iterable[Any], ancdata: Any = (), flags: int = 0, address: Any = None, /
) -> int:
    return io.sendmsg(sock, _source(buffers), ancdata, flags, address)


def _recvmsg_into(sock: socket.socket, buffers: Iterable[Any], ancbufsize: int = 0, flags: int = 0, /) -> Any:
    return io.recvmsg(sock, _destination(buffers), ancbufsize, flags)


def _recvmsg(sock: socket.socket, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> Any:
    if bufsize < 0:
        raise ValueError("negative buffer size in recvmsg()")
    buffer = bytearray(bufsize)
    nbytes, *rest = _recvmsg_into(sock, [buffer], ancbufsize, flags)
    return bytes(buffer[:nbytes]), *rest


def _route(module: Any) -> None:
    module.readv = lambda fd, buffers, /: io.readv(fd, _destination(buffers))
    module.writev = lambda fd, buffers, /: io.writev(fd, _source(buffers))
    module.preadv = lambda fd, buffers, offset, flags=0, /: io.preadv(fd, _destination(buffers), offset, flags)
    module.pwritev = lambda fd, buffers, offset, flags=0, /: io.pwritev(fd, _source(buffers), offset, flags)


def _cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from _cases(test)
        else:
            yield test


def _judges() -> unittest.TestSuite:
    test_socket, test_posix = importlib.import_module("test.test_socket"), importlib.import_module("test.test_posix")
    chosen = unittest.TestSuite()
    for test in _cases(unittest.defaultTestLoader.loadTestsFromModule(test_socket)):
        name = type(test).__name__
        if "msg" in name.lower() or name.startswith("InterruptedSend"):
            chosen.addTest(test)
    for test in _cases(unittest.defaultTestLoader.loadTestsFromModule(test_posix)):
        if any(word in test.id() for word in ("readv", "writev")):
            chosen.addTest(test)
    return chosen


def main() -> int:
    try:
        judges = _judges()
    except ImportError as error:
        print(f"this Python comes without its tests: {error}", file=sys.stderr)
        return 2
    socket.socket.sendmsg = _sendmsg  # type: ignore[method-assign, assignment]
    socket.socket.recvmsg = _recvmsg  # type: ignore[method-assign, assignment]
    socket.socket.recvmsg_into = _recvmsg_into  # type: ignore[method-assign, assignment]
    _route(os)
    _route(importlib.import_module("posix"))
    result = unittest.TextTestRunner(verbosity=1).run(judges)
    version = sys.version.split()[0]
    print(f"{result.testsRun} tests of CPython {version}, {len(result.skipped)} skipped, {_calls} calls routed")
    return 0 if result.wasSuccessful() and _calls else 1


if __name__ == "__main__":
    sys.exit(main())
