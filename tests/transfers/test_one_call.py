"""One function of `iovec_rs.io`, one system call, and an iterator that moved by its result."""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    MAX_RW_COUNT,
    PAGE_SIZE,
    READ,
    WRITE,
    FolioQueue,
    IovIter,
    IterKind,
    PipeRing,
    UserRange,
    XArray,
    copy_to_iter,
    io,
)
from support.arena import Arena, Page
from support.every_kind import DATA_KINDS, TOTAL, build, snapshot, three_pages

from transfers.support import wait_until_blocked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with non-blocking ends."""
    ends = os.pipe2(os.O_NONBLOCK)
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("kind", DATA_KINDS)
@pytest.mark.parametrize("skip", [0, 3, PAGE_SIZE + 7])
class TestEveryKindOfMemory:
    def test_is_written_and_moves_by_the_short_count(self, kind: IterKind, skip: int, pipe: tuple[int, int]) -> None:
        memory = three_pages()
        i = build(kind, WRITE, memory, skip)
        os.write(pipe[1], bytes(1 << 20))
        os.read(pipe[0], 2 * PAGE_SIZE)
        written = io.writev(pipe[1], i)
        assert written == min(2 * PAGE_SIZE, TOTAL - skip)
        assert i.count == TOTAL - skip - written
        assert snapshot(i)[0] == snapshot(build(kind, WRITE, memory, skip + written))[0]
        assert b"".join(i.views()) == bytes(memory[skip + written :])

    def test_is_filled_and_moves_by_what_came(self, kind: IterKind, skip: int, file: int) -> None:
        content = bytes((3 * n + n // 7) % 256 for n in range(5000))
        os.pwrite(file, content, 0)
        memory = three_pages()
        before = bytes(memory)
        i = build(kind, READ, memory, skip)
        assert io.readv(file, i) == 5000
        assert bytes(memory) == before[:skip] + content + before[skip + 5000 :]
        assert i.count == TOTAL - skip - 5000
        assert io.readv(file, i) == 0
        assert os.lseek(file, 0, os.SEEK_CUR) == 5000

    def test_goes_to_an_offset_and_comes_from_one(self, kind: IterKind, skip: int, file: int) -> None:
        memory = three_pages()
        assert io.pwritev(file, build(kind, WRITE, memory, skip), 100) == TOTAL - skip
        back = three_pages()
        back[:] = bytes(TOTAL)
        assert io.preadv(file, build(kind, READ, back, skip), 100) == TOTAL - skip
        assert back[skip:] == memory[skip:]
        assert os.lseek(file, 0, os.SEEK_CUR) == 0, "the file's own position stayed"

    def test_goes_through_a_socket(self, kind: IterKind, skip: int) -> None:
        left, right = socket.socketpair()
        with left, right:
            memory, back = three_pages(), three_pages()
            back[:] = bytes(TOTAL)
            assert io.sendmsg(left, build(kind, WRITE, memory, skip)) == TOTAL - skip
            to = build(kind, READ, back, skip)
            assert io.recvmsg(right, to) == (TOTAL - skip, [], 0, None)
            assert back[skip:] == memory[skip:]
            assert not to

    def test_goes_through_vmsplice(self, kind: IterKind, skip: int, pipe: tuple[int, int]) -> None:
        memory, back = three_pages(), three_pages()
        back[:] = bytes(TOTAL)
        assert io.vmsplice(pipe[1], build(kind, WRITE, memory, skip)) == TOTAL - skip
        assert io.vmsplice(pipe[0], build(kind, READ, back, skip)) == TOTAL - skip
        assert back[skip:] == memory[skip:]

    def test_goes_to_a_process_and_comes_from_one(self, kind: IterKind, skip: int) -> None:
        memory, back = three_pages(), three_pages()
        middle = ctypes.create_string_buffer(TOTAL)
        start = ctypes.addressof(middle)
        remote = [UserRange(start, 10), UserRange(start + 10, TOTAL - 10)]
        back[:] = bytes(TOTAL)
        assert io.process_vm_writev(os.getpid(), build(kind, WRITE, memory, skip), remote) == TOTAL - skip
        assert io.process_vm_readv(os.getpid(), build(kind, READ, back, skip), remote) == TOTAL - skip
        assert back[skip:] == memory[skip:]


class TestAPipeThatDoesNotBlock:
    def test_is_not_waited_for_by_vmsplice_when_it_is_empty(self, pipe: tuple[int, int]) -> None:
        os.set_blocking(pipe[0], False)
        i = IovIter.ubuf(READ, bytearray(8))
        with pytest.raises(BlockingIOError):
            io.vmsplice(pipe[0], i)
        os.write(pipe[1], b"abc")
        assert (io.vmsplice(pipe[0], i), i.count) == (3, 5)

    def test_is_not_waited_for_by_vmsplice_when_it_is_full(self, pipe: tuple[int, int]) -> None:
        os.set_blocking(pipe[1], False)
        size = fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ)
        i = IovIter.ubuf(WRITE, bytes(2 * size))
        went = io.vmsplice(pipe[1], i)
        assert 0 < went <= size
        with pytest.raises(BlockingIOError):
            io.vmsplice(pipe[1], i)
        assert i.count == 2 * size - went


class TestWhatHasNoMemory:
    def test_discard_reads_and_drops(self, file: int) -> None:
        os.pwrite(file, bytes(3 << 20), 0)
        i = IovIter.discard(READ, 1 << 40)
        assert io.readv(file, i) == 3 << 20
        assert i.count == (1 << 40) - (3 << 20)

    def test_a_datagram_is_dropped_whole(self) -> None:
        left, right = socket.socketpair(type=socket.SOCK_DGRAM)
        with left, right:
            left.send(b"first")
            left.send(b"second")
            assert io.recvmsg(right, IovIter.discard(READ, 2)) == (2, [], socket.MSG_TRUNC, None)
            assert right.recv(10) == b"second"

    def test_a_pipe_ring_is_filled_from_a_descriptor_and_drained_into_one(
        self, file: int, pipe: tuple[int, int]
    ) -> None:
        content = bytes(n % 251 for n in range(3 * PAGE_SIZE + 10))
        os.pwrite(file, content, 0)
        ring = PipeRing(8)
        i = IovIter.pipe(READ, ring, 1 << 20)
        assert io.preadv(file, i, 0) == len(content)
        assert (ring.used, i.count) == (4, (1 << 20) - len(content))
        assert ring.splice(pipe[1]) == len(content)
        assert os.read(pipe[0], 1 << 20) == content
        assert ring.used == 0

    def test_small_reads_share_the_ring_s_pages_as_copies_do(self, pipe: tuple[int, int]) -> None:
        ring = PipeRing(2)
        i = IovIter.pipe(READ, ring, 1 << 20)
        for piece in (b"abc", b"", b"defg", b"h"):
            os.write(pipe[1], piece)
            assert not piece or io.readv(pipe[0], i) == len(piece)
        assert [(offset, length) for _, offset, length, _ in ring.slots] == [(0, 8)]
        assert ring.read() == b"abcdefgh"

    def test_no_byte_is_read_that_a_full_ring_has_no_place_for(self, pipe: tuple[int, int]) -> None:
        os.write(pipe[1], bytes(3 * PAGE_SIZE))
        ring = PipeRing(2)
        i = IovIter.pipe(READ, ring, 1 << 20)
        assert io.readv(pipe[0], i) == 2 * PAGE_SIZE
        with pytest.raises(OSError, match="the pipe is full") as raised:
            io.readv(pipe[0], i)
        assert raised.value.errno == 14
        assert i.count == (1 << 20) - 2 * PAGE_SIZE
        assert len(os.read(pipe[0], 1 << 20)) == PAGE_SIZE

    def test_a_ring_shows_nothing_that_has_not_come(self) -> None:
        out, into = os.pipe()
        ring = PipeRing(4)
        i = IovIter.pipe(READ, ring, 1 << 20)
        os.write(into, b"first")
        io.readv(out, i)
        waiter = threading.Thread(target=io.readv, args=(out, i))
        waiter.start()
        wait_until_blocked(waiter)
        assert ring.read() == b"first"
        assert ring.read() == b""
        os.write(into, b"second")
        waiter.join()
        assert ring.read() == b"second"
        os.close(out)
        os.close(into)

    def test_a_hole_is_efault_and_what_lies_before_it_goes(self, pipe: tuple[int, int]) -> None:
        i = IovIter.xarray(WRITE, XArray({0: bytes(PAGE_SIZE), 2: bytes(PAGE_SIZE)}), 0, 3 * PAGE_SIZE)
        assert io.writev(pipe[1], i) == PAGE_SIZE
        with pytest.raises(OSError, match="a hole here, 8192 bytes before") as raised:
            io.writev(pipe[1], i)
        assert raised.value.errno == 14
        assert i.count == 2 * PAGE_SIZE

    def test_the_end_of_a_queue_is_efault(self, pipe: tuple[int, int]) -> None:
        queue = FolioQueue([bytes(100)])
        i = IovIter.folioq(WRITE, queue, 0, 0, 150)
        assert io.writev(pipe[1], i) == 100
        with pytest.raises(OSError, match="the queue of folios ends here"):
            io.writev(pipe[1], i)
        queue.append(b"x" * 100)
        assert io.writev(pipe[1], i) == 50

    def test_pages_stay_while_the_kernel_writes_to_them(self) -> None:
        out, into = os.pipe()
        array = XArray({0: bytearray(PAGE_SIZE)})
        i = IovIter.xarray(READ, array, 0, PAGE_SIZE)
        waiter = threading.Thread(target=io.readv, args=(out, i))
        waiter.start()
        wait_until_blocked(waiter)
        array.erase(0)
        os.write(into, b"x" * PAGE_SIZE)
        waiter.join()
        assert not i
        os.close(out)
        os.close(into)


class TestLimits:
    def test_a_call_takes_1024_segments(self, pipe: tuple[int, int]) -> None:
        i = IovIter.iovec(WRITE, [b"ab"] * 1500)
        assert io.writev(pipe[1], i) == 2048
        assert io.writev(pipe[1], i) == 952

    def test_empty_segments_do_not_count(self, pipe: tuple[int, int]) -> None:
        i = IovIter.iovec(WRITE, [b""] * 3000 + [b"ab", b""] * 1024)
        assert io.writev(pipe[1], i) == 2048

    def test_nothing_to_transfer_is_a_call_for_nothing(self, pipe: tuple[int, int]) -> None:
        i = IovIter.iovec(WRITE, [b"", b"ab"], 0)
        before = snapshot(i)
        assert io.writev(pipe[1], i) == 0
        assert snapshot(i) == before
        with pytest.raises(OSError, match="Bad file descriptor"):
            io.writev(1 << 20, i)

    def test_a_call_takes_max_rw_count_bytes(self) -> None:
        null = os.open("/dev/null", os.O_WRONLY)
        block = bytearray(1 << 20)
        i = IovIter.iovec(WRITE, [block] * 3000)
        assert io.writev(null, i) == 1024 << 20
        i = IovIter.iovec(WRITE, [memoryview(block)[:1]] + [bytes(1 << 28)] * 9)
        assert io.writev(null, i) == MAX_RW_COUNT
        assert io.writev(null, i) == 9 * (1 << 28) + 1 - MAX_RW_COUNT
        os.close(null)


class TestRefusals:
    @pytest.mark.parametrize("kind", [*DATA_KINDS, IterKind.DISCARD, IterKind.PIPE])
    def test_the_wrong_direction_changes_nothing(self, kind: IterKind, file: int) -> None:
        os.write(file, bytes(10))
        os.lseek(file, 0, os.SEEK_SET)
        plain: list[Any]
        at: list[Any]
        remote: Any
        for direction in (READ, WRITE) if kind in DATA_KINDS else (READ,):
            i = build(kind, direction, three_pages())
            before = snapshot(i)
            if direction is READ:
                plain, at = [io.writev, io.sendmsg, io.writev_all, io.sendmsg_all], [io.pwritev, io.pwritev_all]
            else:
                plain, at = [io.readv, io.recvmsg, io.readv_all, io.recvmsg_all], [io.preadv, io.preadv_all]
            remote = io.process_vm_writev if direction is READ else io.process_vm_readv
            wrong: list[tuple[Any, tuple[Any, ...]]] = [(function, (file, i)) for function in plain]
            wrong += [(function, (file, i, 0)) for function in at]
            wrong.append((remote, (os.getpid(), i, [])))
            for function, arguments in wrong:
                with pytest.raises(ValueError, match="wrong direction"):
                    function(*arguments)
                assert snapshot(i) == before
        assert os.fstat(file).st_size == 10

    def test_vmsplice_at_the_wrong_end_of_a_pipe(self, pipe: tuple[int, int]) -> None:
        os.write(pipe[1], b"hostile")
        immutable = b"precious"
        i = IovIter.ubuf(WRITE, immutable)
        with pytest.raises(OSError, match="Bad file descriptor"):
            io.vmsplice(pipe[0], i)
        assert immutable == b"precious"
        assert i.count == 8
        with pytest.raises(OSError, match="Bad file descriptor"):
            io.vmsplice(pipe[1], IovIter.ubuf(READ, bytearray(8)))

    @pytest.mark.parametrize("offset", [-1, -(1 << 63), 1 << 63, 1 << 64])
    def test_offsets_that_no_file_has(self, offset: int, file: int) -> None:
        os.write(file, b"abc")
        for function, i in (
            (io.pwritev, IovIter.ubuf(WRITE, b"xyz")),
            (io.pwritev_all, IovIter.ubuf(WRITE, b"xyz")),
            (io.preadv, IovIter.ubuf(READ, bytearray(3))),
            (io.preadv_all, IovIter.ubuf(READ, bytearray(3))),
        ):
            with pytest.raises(ValueError, match="offset is "):
                function(file, i, offset)
            assert i.count == 3
        assert os.pread(file, 10, 0) == b"abc"

    @pytest.mark.parametrize("fd", ["0", 1.0, None, object()])
    def test_what_is_no_descriptor(self, fd: Any) -> None:
        with pytest.raises(TypeError, match="file"):
            io.writev(fd, IovIter.ubuf(WRITE, b"xyz"))
        with pytest.raises(ValueError, match="negative"):
            io.writev(-1, IovIter.ubuf(WRITE, b"xyz"))

    def test_a_call_that_is_refused_leaves_the_fault_of_the_one_before(self, file: int) -> None:
        i = IovIter.ubuf(READ, UserRange(8, 8))
        assert copy_to_iter(b"x", i) == 0
        before = i.fault
        assert before is not None
        for refused in (lambda: io.recvmsg(file, i), lambda: io.readv(file, i, 1 << 30), lambda: io.vmsplice(file, i)):
            with pytest.raises(OSError, match="Errno"):
                refused()
            assert i.fault == before

    def test_what_is_no_iterator(self) -> None:
        with pytest.raises(TypeError):
            io.writev(1, [b"xyz"])  # type: ignore[arg-type]

    def test_a_remote_that_is_no_range(self) -> None:
        i = IovIter.ubuf(WRITE, b"xyz")
        with pytest.raises(TypeError, match=r"remote\[1\]: a UserRange is expected, not bytearray"):
            io.process_vm_writev(os.getpid(), i, [UserRange(0, 0), bytearray(3)])  # type: ignore[list-item]
        assert i.count == 3

    def test_a_closed_socket(self) -> None:
        sock = socket.socket()
        sock.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            io.sendmsg(sock, IovIter.ubuf(WRITE, b"xyz"))

    def test_a_tls_socket_is_not_written_to_beside_its_encryption(self) -> None:
        ssl = pytest.importorskip("ssl")
        left, right = socket.socketpair()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        with right, context.wrap_socket(left, do_handshake_on_connect=False) as encrypted:
            for function in (io.sendmsg, io.sendmsg_all, io.writev, io.writev_all):
                with pytest.raises(TypeError, match="TLS"):
                    function(encrypted, IovIter.ubuf(WRITE, b"secret"))
            right.setblocking(False)
            with pytest.raises(BlockingIOError):
                right.recv(10)

    def test_an_iterator_that_another_thread_s_call_uses(self) -> None:
        out, into = os.pipe()
        memory = bytearray(10)
        i = IovIter.ubuf(READ, memory)
        waiter = threading.Thread(target=io.readv, args=(out, i))
        waiter.start()
        wait_until_blocked(waiter)
        with pytest.raises(RuntimeError, match="is in use: another thread is copying through it"):
            io.readv(out, i)
        with pytest.raises(RuntimeError, match="is in use: another thread is copying through it"):
            io.readv_all(out, i)
        with pytest.raises(RuntimeError):
            i.advance(1)
        os.write(into, b"ab")
        waiter.join()
        assert (bytes(memory[:3]), i.count) == (b"ab\0", 8)
        os.close(out)
        os.close(into)


def test_flags_reach_the_kernel(file: int) -> None:
    i = IovIter.ubuf(WRITE, b"abcdef")
    assert io.writev(file, i, os.RWF_DSYNC) == 6
    i.revert(6)
    assert io.pwritev(file, i, 0, os.RWF_APPEND) == 6
    assert os.pread(file, 20, 0) == b"abcdefabcdef"
    out, into = os.pipe()
    with pytest.raises(BlockingIOError):
        io.readv(out, IovIter.ubuf(READ, bytearray(3)), os.RWF_NOWAIT)
    with pytest.raises(OSError, match="not supported"):
        io.writev(file, IovIter.ubuf(WRITE, b"abc"), 1 << 30)
    os.close(out)
    os.close(into)


def test_user_ranges_go_up_to_where_they_are_bad(file: int) -> None:
    with Arena([Page.GOOD, Page.UNMAPPED, Page.GOOD]) as arena:
        i = IovIter.iovec(WRITE, [UserRange(arena.address, 3 * PAGE_SIZE)])
        assert io.writev(file, i) == PAGE_SIZE, "as the kernel: short first"
        with pytest.raises(OSError, match="Bad address"):
            io.writev(file, i)
        assert i.count == 2 * PAGE_SIZE


CALLS = {
    "readv": "io.readv(zero, to)",
    "preadv": "io.preadv(zero, to, 5)",
    "writev": "io.writev(null, source)",
    "pwritev": "io.pwritev(null, source, 5)",
    "preadv2": "io.readv(zero, to, os.RWF_HIPRI)",
    "pwritev2": "io.writev(null, source, os.RWF_DSYNC)",
    "sendmsg": "io.sendmsg(left, source)",
    "recvmsg": "io.recvmsg(right, to)",
    "vmsplice": "io.vmsplice(pipe[1], source)",
    "process_vm_readv": "io.process_vm_readv(os.getpid(), to, [UserRange(id(to), 3)])",
}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace counts the calls")
@pytest.mark.parametrize("name", CALLS)
def test_strace_sees_one_system_call(name: str, tmp_path: Path) -> None:
    script = f"""
import os, socket
from iovec_rs import READ, WRITE, IovIter, UserRange, io
zero, null = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
(left, right), pipe = socket.socketpair(), os.pipe()
left.settimeout(60); right.settimeout(60); left.send(b'x')
to, source = IovIter.iovec(READ, [bytearray(10)] * 2000), IovIter.iovec(WRITE, [b"x"] * 2000)
os.path.exists("/before")
{CALLS[name]}
os.path.exists("/after")
"""
    log = tmp_path / "log"
    command = ["strace", "-f", "-o", str(log), sys.executable, "-c", script]
    traced = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "Operation not permitted" in traced.stderr:
        pytest.skip("strace may not trace here")
    assert traced.returncode == 0, traced.stderr
    calls = re.findall(r"^\d+ +(\w+)\(", log.read_text().split('"/before"')[1].split('"/after"')[0], re.MULTILINE)
    harmless = {"fcntl", "getpid", "newfstatat", "stat"}
    assert [call for call in calls if call not in harmless] == [name]
