"""A program that closes the log's descriptors, as daemons close all that they inherit, and gets their numbers again."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from iovec_rs import PmemLog
from support.logs import make

if TYPE_CHECKING:
    from pathlib import Path

BEGINNING = """
import errno, os, subprocess, sys
from pathlib import Path
from iovec_rs import PmemLog

def refusal(change):
    try:
        change()
    except OSError as error:
        return error.errno

path = Path(sys.argv[1])
log = PmemLog.open(path)
os.closerange(3, 256)
"""

STRANGERS = """
strangers = [os.open(path.with_name("stranger"), os.O_CREAT | os.O_RDWR) for _ in range(8)]
os.truncate(strangers[0], 1 << 20)
second = "import sys; from iovec_rs import PmemLog; print(PmemLog.open(sys.argv[1]).append(b'of the second'))"
assert subprocess.check_output([sys.executable, "-c", second, path]) == b"1\\n"
assert refusal(lambda: log.append(b"of the first")) == errno.EBADF
assert refusal(lambda: log.discard_before(1)) == errno.EBADF
child = os.fork()
if child == 0:
    os._exit(sum(refusal(lambda: os.fstat(number)) is not None for number in strangers))
assert os.waitpid(child, 0)[1] == 0, "the child has closed strangers' files"
log.close()
for number in strangers:
    os.fstat(number)
"""

NOTHING = """
assert refusal(lambda: log.append(b"of the first")) == errno.EBADF
assert refusal(lambda: log.discard_before(1)) == errno.EBADF
log.close()
PmemLog.open(path).append(b"of the second")
"""

ANOTHER_WRITER = """
second = PmemLog.open(path)
assert second.append(b"of the second") == 1
assert refusal(lambda: log.append(b"of the first")) == errno.EBADF
log.close()
assert refusal(lambda: PmemLog.open(path)) == errno.EWOULDBLOCK, "the first one has closed the second one's lock"
assert (second.append(b"more"), second.read(2)) == (2, b"more")
second.discard_before(1)
"""

A_READER = """
readers = [PmemLog.open(path, writable=False) for _ in range(4)]
assert refusal(lambda: log.append(b"of the first")) == errno.EBADF
log.close()
assert [reader.read(0) for reader in readers] == [b"0"] * 4
PmemLog.open(path).append(b"of the second")
"""


@pytest.mark.parametrize(
    "end", [STRANGERS, NOTHING, ANOTHER_WRITER, A_READER], ids=["strangers", "nothing", "a writer", "readers"]
)
def test_a_writer_whose_lock_was_closed_writes_nothing_and_closes_nothing(path: Path, end: str) -> None:
    with make(path) as log:
        log.append(b"0")
    subprocess.run([sys.executable, "-c", BEGINNING + end, path], check=True, timeout=120)
    with PmemLog.open(path) as log:
        assert log.read(1) == b"of the second"
        assert log.last == (2 if end is ANOTHER_WRITER else 1)
        assert log.verify() == []
