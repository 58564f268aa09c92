"""Vectored transfers: `iovec_rs.io` and `iovec_rs.aio` next to what the standard library offers for the same job."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

from iovec_rs import WRITE, IovIter, aio, io
from iovec_rs._bench.harness import Case, Contestant, Table, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

NAME = "io"
MIB = 1 << 20


def _to_null(segments: int, length: int, calls: int, rounds: int) -> Table:
    """Every call of a sample has a vector of its own, on both sides; the iterators are restored between samples."""
    null = os.open("/dev/null", os.O_WRONLY)
    vectors = [[bytes([call % 256]) * length for _ in range(segments)] for call in range(calls)]
    iterators = [IovIter.iovec(WRITE, vector) for vector in vectors]
    states = [iterator.save_state() for iterator in iterators]

    def restore() -> None:
        for iterator, state in zip(iterators, states, strict=True):
            iterator.restore(state)

    def ours() -> None:
        for iterator in iterators:
            io.writev_all(null, iterator)

    def theirs() -> None:
        for vector in vectors:
            os.writev(null, vector)

    def expected() -> bytes:
        return b"".join(b"".join(vector) for vector in vectors)

    rival = "os.writev" if segments <= 1024 else "os.writev loop"
    if segments > 1024:

        def theirs() -> None:
            for vector in vectors:
                _usual_loop(null, vector)

    try:
        return measure(
            NAME,
            Case(
                f"{segments} x {length} B to /dev/null",
                Contestant("io.writev_all", ours, expected, restore),
                [Contestant(rival, theirs, expected)],
                ops=calls,
                op_bytes=0,
                rounds=rounds,
            ),
        )
    finally:
        os.close(null)


def _usual_loop(fd: int, buffers: Sequence[bytes]) -> None:
    """What programs write around os.writev."""
    views = [memoryview(buffer) for buffer in buffers]
    first = 0
    while first < len(views):
        written = os.writev(fd, views[first : first + 1024])
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]


class _Peer(threading.Thread):
    """Receives `total` bytes from a socket whenever it is told that they come, on a CPU of its own if there is one."""

    def __init__(self, sock: socket.socket, total: int) -> None:
        super().__init__(daemon=True)
        self.sock = sock
        self.received = bytearray(total)
        self.expected = threading.Semaphore(0)
        self.arrived = threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        cpus = sorted(os.sched_getaffinity(os.getpid()))
        os.sched_setaffinity(0, {min(range(os.cpu_count() or 1), key=lambda cpu: cpu in cpus)})
        while True:
            self.expected.acquire()
            view = memoryview(self.received)
            while view:
                got = self.sock.recv_into(view)
                if not got:
                    return
                view = view[got:]
            self.arrived.release()

    def scrub(self) -> None:
        self.received[:] = bytes(len(self.received))


def _over_a_socket(total: int, piece: int, rounds: int) -> Table:
    data = os.urandom(total)
    left, right = socket.socketpair()
    peer = _Peer(right, total)
    view = memoryview(data)
    iterator = IovIter.kvec(WRITE, [view[start : start + piece] for start in range(0, total, piece)])
    state = iterator.save_state()

    def sent_by(send: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            peer.expected.release()
            send()
            peer.arrived.acquire()

        return run

    case = Case(
        f"{total // MIB} MiB in pieces of {piece >> 10} KiB over a socketpair",
        Contestant(
            "io.sendmsg_all",
            sent_by(lambda: io.sendmsg_all(left, iterator)),
            lambda: peer.received,
            lambda: iterator.restore(state),
        ),
        [Contestant("sendall of one buffer", sent_by(lambda: left.sendall(data)), lambda: peer.received)],
        ops=1,
        op_bytes=total,
        rounds=rounds,
        scrub=peer.scrub,
    )
    try:
        return measure(NAME, case)
    finally:
        left.close()
        peer.expected.release()
        peer.join()
        right.close()


def _on_a_loop(name: str, new_loop: Callable[[], asyncio.AbstractEventLoop], total: int, rounds: int) -> Table:
    """A stream writer's `writelines` and ours, each over a pair of sockets of its own, on one loop."""
    piece = 4096
    data = os.urandom(total)
    view = memoryview(data)
    pieces = [view[start : start + piece] for start in range(0, total, piece)]
    iterator = IovIter.kvec(WRITE, pieces)
    state = iterator.save_state()
    loop = new_loop()
    (left, right), (wleft, wright) = socket.socketpair(), socket.socketpair()
    left.setblocking(False)
    peers = _Peer(right, total), _Peer(wright, total)
    writer = loop.run_until_complete(asyncio.open_connection(sock=wleft))[1]

    def run(peer: _Peer, main: Callable[[], Coroutine[Any, Any, object]]) -> Callable[[], None]:
        def sample() -> None:
            peer.expected.release()
            loop.run_until_complete(main())
            peer.arrived.acquire()

        return sample

    async def stream() -> None:
        writer.writelines(pieces)
        await writer.drain()
        while writer.transport.get_write_buffer_size():
            await asyncio.sleep(0)

    def scrub() -> None:
        for peer in peers:
            peer.scrub()

    rival = f"{name}: writer.writelines, drain"
    case = Case(
        f"{total // MIB} MiB in pieces of 4 KiB on {name}",
        Contestant(
            f"{name}: aio.sendmsg_all",
            run(peers[0], lambda: aio.sendmsg_all(left, iterator)),
            lambda: peers[0].received,
            lambda: iterator.restore(state),
        ),
        [Contestant(rival, run(peers[1], stream), lambda: peers[1].received)],
        ops=1,
        op_bytes=total,
        rounds=rounds,
        scrub=scrub,
    )
    try:
        return measure(NAME, case)
    finally:
        writer.close()
        loop.run_until_complete(asyncio.sleep(0))
        left.close()
        for peer, sock in zip(peers, (right, wright), strict=True):
            peer.expected.release()
            peer.join()
            sock.close()
        loop.close()


def run(quick: bool) -> Iterator[Table]:
    rounds = 3 if quick else 101
    yield _to_null(8, 100, 10 if quick else 300, rounds)
    yield _to_null(1024, 64, 2 if quick else 10, rounds)
    yield _to_null(20_000, 64, 1, 3 if quick else 21)
    total = MIB if quick else 64 * MIB
    yield _over_a_socket(total, 64 << 10, 3 if quick else 21)
    yield _on_a_loop("asyncio", asyncio.new_event_loop, total, 3 if quick else 11)
    if importlib.util.find_spec("uvloop") is not None:
        import uvloop  # noqa: PLC0415

        yield _on_a_loop("uvloop", uvloop.new_event_loop, total, 3 if quick else 11)
