"""Bytes reported as durable, or as written to the file, are so beside a guard, too: python -m guard.durable NAME."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import (
    PAGE_SIZE,
    WRITE,
    FaultError,
    IovIter,
    SafeMap,
    guard,
    pmem,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NPAGES, BAD = 8, 3


def _fault_of(claim: Callable[[], object]) -> FaultError:
    try:
        claim()
    except FaultError as error:
        return error
    raise AssertionError("it was claimed")


def _region(where: str) -> tuple[Path, pmem.PmemRegion]:
    path = Path(where, "region")
    path.write_bytes(b"\1" * NPAGES * PAGE_SIZE)
    return path, pmem.PmemRegion.open(path)


def nothing_under_zeroes_is_called_durable() -> None:
    with tempfile.TemporaryDirectory() as where:
        path, region = _region(where)
        view = memoryview(region)
        os.truncate(path, BAD * PAGE_SIZE)
        with guard(view, on_fault="record") as watch:
            assert view[BAD * PAGE_SIZE] == 0
            os.truncate(path, NPAGES * PAGE_SIZE)
            view[BAD * PAGE_SIZE] = 9
            claims: list[tuple[Callable[[], object], int]] = [
                (region.persist, BAD * PAGE_SIZE),
                (lambda: region.persist(BAD * PAGE_SIZE, 1), 0),
                (lambda: pmem.persist(region), BAD * PAGE_SIZE),
                (lambda: pmem.persist(view, BAD * PAGE_SIZE - 5, 100), 5),
                (lambda: pmem.flush(region, BAD * PAGE_SIZE, 1), 0),
                (region.deep_flush, BAD * PAGE_SIZE),
                (lambda: region.write(BAD * PAGE_SIZE - 7, b"1234567890"), 7),
            ]
            for claim, copied in claims:
                error = _fault_of(claim)
                assert error.copied == copied, (error.copied, copied)
                assert (error.fault.side, error.fault.length) == ("destination", PAGE_SIZE)
                assert error.fault.address == watch.faults[0].address
            region.persist(0, BAD * PAGE_SIZE)
            region.persist((BAD + 1) * PAGE_SIZE, PAGE_SIZE)
        region.persist()
        region.deep_flush()
        assert path.read_bytes()[BAD * PAGE_SIZE] == 0
        view.release()
        region.close()


def nothing_behind_a_files_end_is_called_flushed() -> None:
    """In the page in which a file ends, stores behind the end do not fault, and their bytes are lost."""
    size, keep = 10_000, 5_000
    with tempfile.TemporaryDirectory() as where:
        path = Path(where, "file")
        path.write_bytes(b"\1" * size)
        with SafeMap.open(path, "r+") as opened:
            assert opened.write(keep - 10, b"Z" * 20) == 20
            opened.flush()
            os.truncate(path, keep)
            error = _fault_of(lambda: opened.write(keep - 10, b"Y" * 20))
            assert (error.copied, error.fault.cause, error.fault.side) == (10, "gone", "destination")
            source = IovIter.iovec(WRITE, [b"X" * 5, b"X" * 15])
            assert _fault_of(lambda: opened.write(keep - 10, source)).copied == 10
            assert source.count == 10
            assert _fault_of(lambda: opened.write(keep, b"X")).copied == 0
            assert opened.write(keep - 10, b"W" * 10) == 10
            error = _fault_of(opened.flush)
            assert error.copied == keep
            assert "to be written to the file" in str(error)
            assert path.read_bytes() == b"\1" * (keep - 10) + b"W" * 10
            os.truncate(path, size)
            opened.flush()
        with SafeMap.open(path, "c") as own:
            os.truncate(path, keep)
            assert own.write(keep - 10, b"V" * 20) == 20
            own.flush()


def nothing_under_zeroes_is_called_flushed() -> None:
    with tempfile.TemporaryDirectory() as where:
        path = Path(where, "file")
        path.write_bytes(b"\1" * NPAGES * PAGE_SIZE)
        with SafeMap.open(path, "r+") as opened:
            view = memoryview(opened)
            os.truncate(path, BAD * PAGE_SIZE)
            with opened.guard(on_fault="record"):
                assert view[BAD * PAGE_SIZE] == 0
                os.truncate(path, NPAGES * PAGE_SIZE)
                assert _fault_of(opened.flush).copied == BAD * PAGE_SIZE
            opened.flush()
            view.release()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    print("ok")
