"""Messages: addresses, control messages and datagrams that do not fit."""

from __future__ import annotations

import array
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import READ, WRITE, IovIter, io

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def unix_datagrams() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(type=socket.SOCK_DGRAM)
    with left, right:
        yield left, right


def unix_socket(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    return sock


def rights(*fds: int) -> tuple[int, int, array.array[int]]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)


def test_descriptors_are_passed_as_with_the_socket_module(unix_datagrams: tuple[socket.socket, socket.socket]) -> None:
    left, right = unix_datagrams
    out, into = os.pipe()
    assert io.sendmsg(left, IovIter.iovec(WRITE, [b"two ", b"ends"]), [rights(out, into)]) == 8
    back = bytearray(10)
    nbytes, ancdata, flags, address = io.recvmsg(right, IovIter.ubuf(READ, back), socket.CMSG_SPACE(8))
    assert (nbytes, bytes(back[:8]), flags, address) == (8, b"two ends", 0, None)
    [(level, kind, data)] = ancdata
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    there = array.array("i", data)
    os.write(into, b"x")
    assert os.read(there[0], 10) == b"x"
    for fd in (out, into, *there):
        os.close(fd)


def test_control_messages_are_laid_out_as_the_socket_module_lays_them_out(
    unix_datagrams: tuple[socket.socket, socket.socket],
) -> None:
    """Sent by this package and received by the socket module, and vice versa; several at once, of odd lengths."""
    left, right = unix_datagrams
    right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    credentials = (socket.SOL_SOCKET, socket.SCM_CREDENTIALS, struct.pack("3i", os.getpid(), os.getuid(), os.getgid()))
    io.sendmsg(
        left,
        IovIter.ubuf(WRITE, b"a"),
        [
            credentials,
            rights(0),
        ],
    )
    left.sendmsg([b"a"], [credentials, rights(0)])
    theirs = right.recvmsg(10, 1000)
    ours = io.recvmsg(right, IovIter.ubuf(READ, bytearray(10)), 1000)

    def without_numbers(ancdata: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes | int]]:
        return [(level, kind, len(data) if kind == socket.SCM_RIGHTS else data) for level, kind, data in ancdata]

    assert without_numbers(ours[1]) == without_numbers(theirs[1])
    assert {kind for _, kind, _ in ours[1]} == {socket.SCM_CREDENTIALS, socket.SCM_RIGHTS}
    for _, kind, data in theirs[1] + ours[1]:
        for fd in array.array("i", data) if kind == socket.SCM_RIGHTS else ():
            os.close(fd)


def test_too_small_an_iterator_or_control_buffer_is_reported(
    unix_datagrams: tuple[socket.socket, socket.socket],
) -> None:
    left, right = unix_datagrams
    io.sendmsg(left, IovIter.ubuf(WRITE, b"abcdef"), [rights(0, 1)])
    i = IovIter.ubuf(READ, bytearray(4))
    nbytes, ancdata, flags, _ = io.recvmsg(right, i, 1)
    assert (nbytes, ancdata, i.count) == (4, [], 0)
    assert flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) == socket.MSG_TRUNC | socket.MSG_CTRUNC


def test_msg_trunc_moves_the_iterator_only_by_the_bytes_stored(
    unix_datagrams: tuple[socket.socket, socket.socket],
) -> None:
    left, right = unix_datagrams
    left.send(b"abcdef")
    back = bytearray(2048)
    i = IovIter.iovec(READ, [memoryview(back)[:2], memoryview(back)[2:]], 4)
    assert io.recvmsg(right, i, 0, socket.MSG_TRUNC)[0] == 6
    assert (i.count, bytes(back[:6])) == (0, b"abcd\0\0")


@pytest.mark.parametrize("flags", [socket.MSG_TRUNC, socket.MSG_TRUNC | socket.MSG_PEEK])
def test_bytes_that_tcp_discards_do_not_move_the_iterator(flags: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as left:
        right, _ = server.accept()
        with right:
            left.sendall(b"abcdef")
            back = bytearray(10)
            i = IovIter.ubuf(READ, back)
            assert io.recvmsg(right, i, 0, flags)[0] == 6
            assert (i.count, back) == (10, bytearray(10))
            if flags & socket.MSG_PEEK:
                assert io.recvmsg(right, i)[0] == 6
                assert (i.count, bytes(back)) == (4, b"abcdef" + bytes(4))


def test_a_unix_stream_stores_bytes_despite_msg_trunc() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"abcdef")
        back = bytearray(10)
        i = IovIter.ubuf(READ, back)
        assert io.recvmsg(right, i, 0, socket.MSG_TRUNC)[0] == 6
        assert (i.count, bytes(back)) == (4, b"abcdef" + bytes(4))


@pytest.mark.parametrize(
    ("ancdata", "error"),
    [
        (5, TypeError),
        ([5], TypeError),
        ([(1, 2)], TypeError),
        ([("1", 2, b"")], TypeError),
        ([(1, 2, "text")], TypeError),
        ([(1 << 40, 2, b"")], OverflowError),
        ([(1, 2, memoryview(bytes(20))[::2])], (TypeError, BufferError)),
    ],
)
def test_malformed_control_messages_are_refused(
    ancdata: Any, error: type[Exception], unix_datagrams: tuple[socket.socket, socket.socket]
) -> None:
    left, right = unix_datagrams
    i = IovIter.ubuf(WRITE, b"abc")
    for function in (io.sendmsg, io.sendmsg_all):
        with pytest.raises(error):
            function(left, i, ancdata)
    assert i.count == 3
    right.setblocking(False)
    with pytest.raises(BlockingIOError):
        right.recv(10)


@pytest.mark.parametrize("ancbufsize", [-1, 1 << 31, 1 << 62])
def test_impossible_control_buffer_sizes_are_refused(
    ancbufsize: int, unix_datagrams: tuple[socket.socket, socket.socket]
) -> None:
    unix_datagrams[0].send(b"abc")
    i = IovIter.ubuf(READ, bytearray(3))
    with pytest.raises(ValueError, match=r"^ancbufsize"):
        io.recvmsg(unix_datagrams[1], i, ancbufsize)
    assert (i.count, unix_datagrams[1].recv(3)) == (3, b"abc")


def test_a_huge_control_buffer_size_allocates_little_memory(
    unix_datagrams: tuple[socket.socket, socket.socket],
) -> None:
    left, right = unix_datagrams
    left.send(b"abc")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert io.recvmsg(right, IovIter.ubuf(READ, bytearray(3)), (1 << 31) - 1)[0] == 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_whole_transfer_sends_control_messages_once() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.settimeout(60)
        left.setblocking(False)
        i = IovIter.iovec(WRITE, [b"x" * 100] * 5000)
        with pytest.raises(BlockingIOError):
            io.sendmsg_all(left, i, [rights(0)])
        seen = []
        received = 0
        right.setblocking(False)
        while True:
            try:
                nbytes, ancdata, _, _ = io.recvmsg(right, IovIter.ubuf(READ, bytearray(1 << 20)), 100)
            except BlockingIOError:
                break
            received += nbytes
            seen += ancdata
        assert received == 500_000 - i.count
        assert len(seen) == 1
        os.close(array.array("i", seen[0][2])[0])


class TestAddresses:
    @pytest.mark.parametrize(
        ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET, "localhost")]
    )
    def test_of_the_internet(self, family: socket.AddressFamily, host: str) -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as here, socket.socket(family, socket.SOCK_DGRAM) as there:
            try:
                here.bind((host, 0))
            except OSError:
                pytest.skip(f"no {host}")
            there.bind((host, 0))
            there.settimeout(60)
            address = there.getsockname()
            assert io.sendmsg(here, IovIter.ubuf(WRITE, b"abc"), (), 0, (host, *address[1:])) == 3
            received = io.recvmsg(there, IovIter.ubuf(READ, bytearray(10)))
            assert received == (3, [], 0, here.getsockname())

    @pytest.mark.parametrize("name", ["here", b"\0iovec_rs of no file", None])
    def test_of_files_and_of_none(self, name: str | bytes | None, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as here, unix_socket(tmp_path / "there") as there:
            if name is not None:
                here.bind(str(tmp_path / name) if isinstance(name, str) else name)
            for to in (str(tmp_path / "there"), os.fsencode(tmp_path / "there")):
                assert io.sendmsg(here, IovIter.ubuf(WRITE, b"abc"), address=to) == 3
                here.sendto(b"abc", to)
                assert io.recvmsg(there, IovIter.ubuf(READ, bytearray(10)))[3] == there.recvfrom(10)[1]

    @pytest.mark.parametrize(
        ("address", "error"),
        [
            ("127.0.0.1", TypeError),
            (("127.0.0.1", "7"), TypeError),
            (("127.0.0.1", 1 << 16), OverflowError),
            (("127.0.0.1", -1), OverflowError),
        ],
    )
    def test_that_are_none(self, address: Any, error: type[Exception]) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sock:
            i = IovIter.ubuf(WRITE, b"abc")
            with pytest.raises(error):
                io.sendmsg(sock, i, address=address)
            assert i.count == 3
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, pytest.raises(OSError, match="path too long"):
            io.sendmsg(sock, i, address="x" * 200)

    def test_of_a_socket_of_the_kernel_s(self) -> None:
        netlink = getattr(socket, "AF_NETLINK", None)
        if netlink is None:
            pytest.skip("no AF_NETLINK")
        with socket.socket(netlink, socket.SOCK_RAW, 0) as sock:
            sock.settimeout(60)
            request = struct.pack("=IHHII", 17, 18, 0x301, 1, 0) + b"\0"  # RTM_GETLINK, dump
            assert io.sendmsg(sock, IovIter.ubuf(WRITE, request.ljust(20, b"\0")), address=(0, 0)) == 20
            nbytes, _, _, address = io.recvmsg(sock, IovIter.ubuf(READ, bytearray(1 << 16)))
            assert (nbytes > 16, address) == (True, (0, 0))
