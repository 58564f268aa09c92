"""`IterReader` and `IterWriter`: an iterator in place of a file."""

from __future__ import annotations

import gzip
import http.client
import io as stdio
import shutil
import socket
import tarfile
import threading
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from iovec_rs import (
    PAGE_SIZE,
    READ,
    WRITE,
    FaultError,
    FolioQueue,
    IovIter,
    IterKind,
    PipeRing,
    UserRange,
    XArray,
)
from iovec_rs.io import IterReader, IterWriter
from support.arena import Arena, Page, window
from support.every_kind import DATA_KINDS, TOTAL, build, three_pages

from transfers.support import pattern

if TYPE_CHECKING:
    from pathlib import Path


def scattered(data: bytes) -> IovIter:
    """The bytes in pieces of different lengths, some of them empty."""
    view = memoryview(data)
    pieces: list[memoryview | bytes] = []
    start = length = 0
    while start < len(data):
        length = (length * 7 + 13) % 1009
        pieces += [view[start : start + length], b""]
        start += length
    return IovIter.iovec(WRITE, pieces)


@pytest.mark.parametrize("kind", DATA_KINDS)
def test_every_kind_is_read_written_and_sought_in(kind: IterKind) -> None:
    memory = three_pages()
    reader = IterReader(build(kind, WRITE, memory, 3))
    model = stdio.BytesIO(bytes(memory[3:]))
    for step in (1, 100, PAGE_SIZE, 7):
        assert reader.read(step) == model.read(step)
        for offset, whence in ((5, 0), (-3, 1), (17, 1), (-PAGE_SIZE, 2), (0, 2)):
            assert reader.seek(offset, whence) == model.seek(offset, whence)
            assert reader.read(10) == model.read(10)
        reader.seek(step)
        model.seek(step)
    assert reader.read() == model.read()
    assert reader.read(1) == b""

    back = three_pages()
    writer = IterWriter(build(kind, READ, back, 3))
    assert writer.write(b"abc") == 3
    assert writer.seek(1) == 1
    assert writer.write(b"xy") == 2
    assert writer.seek(-5, 2) == TOTAL - 8
    assert writer.write(b"1234567") == 5
    assert bytes(back[3:6]) == b"axy"
    assert bytes(back[-5:]) == b"12345"
    with pytest.raises(OSError, match="full"):
        writer.write(b"67")


def test_tarfile_reads_and_writes_scattered_memory(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(pattern(100_000))
    (tmp_path / "two").write_bytes(b"2")
    room = [bytearray(777) for _ in range(300)]
    writer = IterWriter(IovIter.iovec(READ, room))
    with tarfile.open(fileobj=writer, mode="w") as tar:
        tar.add(tmp_path, "top")
    archive = b"".join(room)[: writer.tell()]
    for mode in ("r:", "r|"):
        with tarfile.open(fileobj=IterReader(scattered(archive)), mode=mode) as tar:
            tar.extractall(tmp_path / f"out{mode[-1] == '|'}", filter="data")
        assert (tmp_path / f"out{mode[-1] == '|'}" / "top" / "one").read_bytes() == pattern(100_000)


def test_zipfile_reads_scattered_memory() -> None:
    archive = stdio.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as written:
        written.writestr("a/b", pattern(50_000))
        written.writestr("c", b"")
    with zipfile.ZipFile(IterReader(scattered(archive.getvalue()))) as read:
        assert read.testzip() is None
        assert read.read("a/b") == pattern(50_000)


def test_gzip_reads_scattered_memory() -> None:
    with gzip.open(stdio.BufferedReader(IterReader(scattered(gzip.compress(pattern(50_000)))))) as unpacked:
        assert unpacked.read() == pattern(50_000)


def test_http_client_sends_scattered_memory() -> None:
    body = pattern(300_000)
    with socket.create_server(("127.0.0.1", 0)) as server:
        received = bytearray()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while not received.endswith(body[-1000:]):
                    received.extend(connection.recv(1 << 16))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        client = http.client.HTTPConnection("127.0.0.1", server.getsockname()[1], timeout=60)
        client.request("PUT", "/", IterReader(scattered(body)), {"Content-Length": str(len(body))})
        assert client.getresponse().status == 204
        client.close()
        thread.join()
    assert received.endswith(body)


def test_copyfileobj_and_text() -> None:
    out = stdio.BytesIO()
    shutil.copyfileobj(IterReader(scattered(pattern(5000))), out)
    assert out.getvalue() == pattern(5000)
    text = stdio.TextIOWrapper(stdio.BufferedReader(IterReader(IovIter.iovec(WRITE, [b"on", b"e\ntw\xc3", b"\xa9\n"]))))
    assert list(text) == ["one\n", "tw\u00e9\n"]


def test_a_pipe_is_written_to_and_cannot_go_back() -> None:
    ring = PipeRing(2)
    writer = IterWriter(IovIter.pipe(READ, ring, 1 << 20))
    assert not writer.seekable()
    with pytest.raises(stdio.UnsupportedOperation):
        writer.seek(0)
    assert writer.write(bytes(3 * PAGE_SIZE)) == 2 * PAGE_SIZE
    with pytest.raises(OSError, match="no memory here"):
        writer.write(b"x")
    assert len(ring.read()) == 2 * PAGE_SIZE


class TestBadMemoryIsNeverTheEndOfTheFile:
    @pytest.mark.parametrize("buffered", [False, True])
    def test_of_a_user_range(self, buffered: bool) -> None:
        with Arena([Page.GOOD, Page.UNMAPPED], b"x" * PAGE_SIZE) as arena:
            raw = IterReader(IovIter.ubuf(WRITE, UserRange(arena.address, PAGE_SIZE + 1)))
            reader = stdio.BufferedReader(raw, 100) if buffered else raw
            assert reader.read(PAGE_SIZE) == b"x" * PAGE_SIZE
            with pytest.raises(FaultError) as raised:
                reader.read(1)
            assert (raised.value.copied, raised.value.fault.cause) == (0, "unmapped")
            raw.seek(0)
            with pytest.raises(FaultError):
                raw.readall()

    def test_of_trusted_memory_the_bytes_before_it_are_read_first(self) -> None:
        with Arena([Page.GOOD, Page.GONE], b"x" * PAGE_SIZE) as arena:
            mapping = window(arena.address, 2 * PAGE_SIZE)
            reader = IterReader(IovIter.kvec(WRITE, [mapping]))
            buffer = bytearray(2 * PAGE_SIZE)
            assert reader.readinto(buffer) == PAGE_SIZE
            with pytest.raises(FaultError):
                reader.readinto(buffer)
            assert reader.tell() == PAGE_SIZE
            writer = IterWriter(IovIter.kvec(READ, [mapping]))
            assert writer.write(bytes(2 * PAGE_SIZE)) == PAGE_SIZE
            with pytest.raises(FaultError):
                writer.write(b"x")

    def test_of_holes_and_queues(self) -> None:
        reader = IterReader(IovIter.xarray(WRITE, XArray({0: bytes(PAGE_SIZE)}), 0, 2 * PAGE_SIZE))
        assert len(reader.read(2 * PAGE_SIZE)) == PAGE_SIZE
        with pytest.raises(OSError, match="xarray iterator has no memory here, 4096 bytes before its end"):
            reader.read(1)
        reader = IterReader(IovIter.folioq(WRITE, FolioQueue([b"abc"]), 0, 0, 5))
        assert reader.read(5) == b"abc"
        with pytest.raises(OSError, match="folioq iterator has no memory here"):
            reader.read(1)


class TestRefusals:
    def test_the_wrong_direction_and_what_is_no_iterator(self) -> None:
        with pytest.raises(ValueError, match="a WRITE iterator is expected, not a READ one"):
            IterReader(IovIter.ubuf(READ, bytearray(1)))
        with pytest.raises(ValueError, match="a READ iterator is expected, not a WRITE one"):
            IterWriter(IovIter.ubuf(WRITE, b"x"))
        for adapter in (IterReader, IterWriter):
            with pytest.raises(TypeError, match="an IovIter is expected"):
                adapter(b"x")  # type: ignore[arg-type]

    def test_positions_that_are_none(self) -> None:
        i = IovIter.ubuf(WRITE, b"abc")
        reader = IterReader(i)
        for offset, whence in ((-1, 0), (-1, 1), (-4, 2), (0, 3)):
            with pytest.raises(ValueError, match=r"offset is|whence is"):
                reader.seek(offset, whence)
        assert (reader.tell(), i.count) == (0, 3)
        assert reader.seek(10) == 3

    def test_once_closed(self) -> None:
        reader, writer = IterReader(IovIter.ubuf(WRITE, b"abc")), IterWriter(IovIter.ubuf(READ, bytearray(3)))
        reader.close()
        writer.close()
        for call in (reader.read, reader.tell, reader.seekable, lambda: reader.seek(0), lambda: writer.write(b"x")):
            with pytest.raises(ValueError, match="closed"):
                call()


@pytest.mark.parametrize("good", [1, 3, 300])
def test_reading_all_loses_nothing_that_comes_before_bad_memory(good: int) -> None:
    with Arena([*[Page.GOOD] * good, Page.UNMAPPED], b"x" * good * PAGE_SIZE) as arena:
        reader = IterReader(IovIter.iovec(WRITE, [arena.range(0, 10), arena.range(10, (good + 1) * PAGE_SIZE - 10)]))
        assert reader.read(5) == b"x" * 5
        for _ in range(2):
            with pytest.raises(FaultError) as raised:
                reader.read()
            assert (raised.value.copied, reader.tell()) == (good * PAGE_SIZE - 5, 5)
        buffered = stdio.BufferedReader(reader)
        assert buffered.read(raised.value.copied) == b"x" * (good * PAGE_SIZE - 5)
        with pytest.raises(FaultError):
            buffered.read(1)


def test_reading_all_loses_nothing_that_comes_before_a_hole() -> None:
    reader = IterReader(IovIter.xarray(WRITE, XArray({0: b"x" * PAGE_SIZE}), 0, 2 * PAGE_SIZE))
    with pytest.raises(OSError, match="no memory here") as raised:
        reader.read()
    assert raised.value.__notes__ == ["4096 bytes come before it, which a read of so many has"]
    assert reader.read(4096) == b"x" * PAGE_SIZE


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_reading_all_reads_nothing_when_it_is_interrupted(error: type[BaseException]) -> None:
    class Interrupted(IterReader):
        calls = 0

        def readinto(self, buffer: Any, /) -> int:
            self.calls += 1
            if self.calls == 3:
                raise error
            return super().readinto(buffer)

    data = pattern(5 << 20)
    reader = Interrupted(scattered(data))
    assert reader.read(10) == data[:10]
    with pytest.raises(error):
        reader.read()
    assert reader.tell() == 10
    assert reader.read() == data[10:]
