"""A real persistence domain: the pages of files are the memory itself, with bad blocks in it."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from iovec_rs import PAGE_SIZE, READ, WRITE, FaultMap, copy_from_iter, copy_to_iter, fault_handler, memcpy_mcsafe

from guest import outcome, pmem
from guest.broken_held import FROM, TO
from guest.broken_user import MODES
from guest.harness import equal, test
from guest.memory import Arena, address_of, good, inject, pattern
from guest.shapes import SHAPES, TRUSTED, over
from guest.signals import record

if TYPE_CHECKING:
    from collections.abc import Callable

    from guest.broken_user import Mode
    from guest.outcome import Outcome

BUS_ADRERR = 2
LENGTH = 8 * PAGE_SIZE
LEAD, BEYOND = PAGE_SIZE + 200, 900


def refused(access: Callable[[], object], number: int, what: str) -> None:
    try:
        access()
    except OSError as error:
        equal(error.errno, number, what)
    else:
        raise AssertionError(f"{what}: not refused")


@test()
def the_device_is_there() -> None:
    equal((pmem.SYSFS / "queue" / "dax").read_text(encoding="ascii").strip(), "1", "queue/dax")
    equal(int((pmem.SYSFS / "size").read_text(encoding="ascii")) * pmem.SECTOR, 128 << 20, "size")


@test()
def only_a_file_on_it_can_be_mapped_synchronously() -> None:
    with pmem.domain() as directory:
        fd = pmem.create(directory / "file", pattern(LENGTH))
        equal(pmem.map_sync(fd, LENGTH)[:] == pattern(LENGTH), True, "content")
    memory = os.memfd_create("elsewhere")
    os.ftruncate(memory, LENGTH)
    refused(lambda: pmem.map_sync(memory, LENGTH), errno.EOPNOTSUPP, "tmpfs")
    with Path(__file__).open("rb") as host:
        flags = pmem.MAP_SHARED_VALIDATE | pmem.MAP_SYNC
        refused(lambda: mmap.mmap(host.fileno(), 0, flags, mmap.PROT_READ), errno.EOPNOTSUPP, "the host's files")


@test()
def what_was_stored_through_a_mapping_is_there_after_a_remount() -> None:
    with pmem.domain() as directory:
        fd = pmem.create(directory / "file", bytes(LENGTH))
        with pmem.map_sync(fd, LENGTH) as mapping:
            mapping[5:] = pattern(LENGTH - 5)
        os.close(fd)
        pmem.remount()
        equal((directory / "file").read_bytes() == bytes(5) + pattern(LENGTH - 5), True, "content")


@test(page=(0, 3, 7))
def a_bad_sector_makes_loads_of_its_page_fault_and_of_no_other(page: int) -> None:
    with pmem.domain() as directory:
        _, arena = pmem.spoiled_arena(directory, pattern(LENGTH), bad_page=page)
        for offset in (0, 3 * pmem.SECTOR, PAGE_SIZE - 1):
            address = arena.address + arena.bad + offset
            seen = record(lambda: ctypes.string_at(address, 1))  # noqa: B023 - called at once
            equal(seen, (signal.SIGBUS, BUS_ADRERR, address, 0), f"signal at {offset}")
        for other in set(range(8)) - {page}:
            part = slice(other * PAGE_SIZE, (other + 1) * PAGE_SIZE)
            equal(bytes(arena.view[part]) == pattern(LENGTH)[part], True, f"page {other}")


@test()
def a_page_that_is_mapped_stays_readable_until_it_is_dropped() -> None:
    with pmem.domain() as directory:
        fd = pmem.create(directory / "file", pattern(LENGTH))
        mapping = pmem.map_sync(fd, LENGTH)
        equal(mapping[:] == pattern(LENGTH), True, "while sound")
        pmem.spoil(fd, PAGE_SIZE)
        equal(mapping[:] == pattern(LENGTH), True, "while mapped")
        mapping.madvise(mmap.MADV_DONTNEED)
        equal(memcpy_mcsafe(bytearray(LENGTH), mapping).copied, PAGE_SIZE, "once dropped")


@test()
def reading_the_file_saves_nothing_and_the_device_all_but_the_sector() -> None:
    with pmem.domain() as directory:
        fd, arena = pmem.spoiled_arena(directory, pattern(LENGTH))
        for offset, length in ((0, LENGTH), (arena.bad, PAGE_SIZE), (arena.bad, pmem.SECTOR)):
            refused(lambda: os.pread(fd, length, offset), errno.EIO, f"{length} bytes at {offset}")  # noqa: B023
        page = pmem.device_offset(fd, arena.bad)
        for number in set(range(8)) - {3}:
            want = pattern(LENGTH)[arena.bad + number * pmem.SECTOR :][: pmem.SECTOR]
            got = pmem.read_device(page + number * pmem.SECTOR, pmem.SECTOR)
            equal(got == want, True, f"content of sector {number}")
        refused(lambda: pmem.read_device(page + 3 * pmem.SECTOR, pmem.SECTOR), errno.EIO, "the bad sector")
        refused(lambda: pmem.read_device(page, PAGE_SIZE), errno.EIO, "the page")


@test()
def each_page_is_on_the_device_where_the_file_system_says() -> None:
    with pmem.domain() as directory:
        fd = pmem.scatter(directory / "file", pattern(LENGTH))
        for offset in range(0, LENGTH, PAGE_SIZE):
            got = pmem.read_device(pmem.device_offset(fd, offset), PAGE_SIZE)
            equal(got == pattern(LENGTH)[offset : offset + PAGE_SIZE], True, f"the page at {offset}")


@test()
def writing_the_page_repairs_it_under_the_mapping() -> None:
    with pmem.domain() as directory:
        fd, arena = pmem.spoiled_arena(directory, pattern(LENGTH))
        equal(memcpy_mcsafe(bytearray(LENGTH), arena.view).copied, arena.bad, "while bad")
        equal(pmem.bad_sectors(), [(pmem.device_offset(fd, arena.bad) // pmem.SECTOR + 3, 1)], "bad sectors")
        equal(os.pwrite(fd, pattern(PAGE_SIZE, 2), arena.bad), PAGE_SIZE, "written")
        equal(pmem.bad_sectors(), [], "bad sectors")
        out = bytearray(LENGTH)
        equal(memcpy_mcsafe(out, arena.view).copied, LENGTH, "once written")
        want = bytearray(pattern(LENGTH))
        want[arena.bad : arena.bad + PAGE_SIZE] = pattern(PAGE_SIZE, 2)
        equal(out == want, True, "content")


def check(result: Outcome, arena: Arena, side: str, copied: int, kind: str) -> None:
    """Checks that exactly `copied` bytes were copied. This kernel reports bad blocks as a page that is gone."""
    equal((result.copied, result.raised), (copied, kind in TRUSTED), f"{kind}: bytes copied, raised")
    fault = result.fault
    if fault is None:
        raise AssertionError(f"{kind}: no fault is told")
    equal((fault.cause in ("gone", "poison"), fault.side, fault.offset), (True, side, copied), f"{kind}: {fault}")
    equal((fault.address - arena.address, fault.length), (arena.bad, PAGE_SIZE), f"{kind}: extent")


@test(flavour=FROM)
def a_copy_out_of_it_ends_at_the_first_bad_byte_in_every_kind(flavour: str) -> None:
    fill = pattern(LENGTH)
    with pmem.domain() as directory:
        _, arena = pmem.spoiled_arena(directory, fill)
        for kind, lead in product(SHAPES, (0, 5, LEAD)):
            out = good(lead + BEYOND)
            iterator = over(kind, arena, WRITE, arena.bad - lead, lead + BEYOND)
            result = outcome.of(iterator, lambda: FROM[flavour](out.view, iterator), number=None)  # noqa: B023
            check(result, arena, "source", lead, kind)
            outcome.check_bytes(out.view, fill[arena.bad - lead : arena.bad])


@test(flavour=TO)
def a_copy_into_it_ends_at_the_first_bad_byte_in_every_kind(flavour: str) -> None:
    with pmem.domain() as directory:
        canaries = good(LENGTH).view.tobytes()
        _, arena = pmem.spoiled_arena(directory, canaries)
        start = arena.bad - LEAD
        for number, kind in enumerate(SHAPES):
            arena.view[: arena.bad] = canaries[: arena.bad]
            data = memoryview(bytes(LEAD + BEYOND) if flavour == "zero" else pattern(LEAD + BEYOND, number))
            iterator = over(kind, arena, READ, start, len(data))
            result = outcome.of(iterator, lambda: TO[flavour](data, iterator), number=None)  # noqa: B023
            check(result, arena, "destination", LEAD, kind)
            outcome.check_bytes(arena.view[:start], b"")
            outcome.check_bytes(arena.view[start : arena.bad], bytes(data[:LEAD]))
            outcome.check_bytes(arena.view[arena.bad + PAGE_SIZE :], b"")


@test(mode=MODES)
def a_map_learns_the_bad_page_and_saves_the_second_touch(mode: Mode) -> None:
    with pmem.domain() as directory, fault_handler.mode(mode):
        _, arena = pmem.spoiled_arena(directory, pattern(LENGTH))
        known = FaultMap()
        for origin in (mode, "map"):
            result = memcpy_mcsafe(bytearray(LENGTH), arena.view, fault_map=known)
            equal((result.copied, result.fault and result.fault.origin), (arena.bad, origin), "copied, origin")
        equal([(entry.start - arena.address, entry.length) for entry in known], [(arena.bad, PAGE_SIZE)], "the map")


@test()
def an_injection_below_a_file_is_not_taken_for_a_fault_of_a_copy() -> None:
    """Here the kernel signals the injecting process at once, with the page's address and outside any copy."""
    with pmem.domain() as directory:
        fd = pmem.create(directory / "file", pattern(LENGTH))
        mapping, out = pmem.map_sync(fd, LENGTH), bytearray(LENGTH)
        equal(copy_from_iter(out, over("ubuf", arena_of(mapping), WRITE, 0, LENGTH)), LENGTH, "copied while sound")
        before = fault_handler.status().recovered
        equal(inject(mapping, 2 * PAGE_SIZE), 1, "signals")
        equal(fault_handler.status().recovered, before, "recovered")
        data = pattern(LENGTH, 3)
        equal(copy_to_iter(data, over("ubuf", arena_of(mapping), READ, 0, LENGTH)), LENGTH, "copied afterwards")


def arena_of(mapping: mmap.mmap) -> Arena:
    view = memoryview(mapping)
    return Arena(view, address_of(view))
