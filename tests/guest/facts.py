"""Facts about this guest, and about what its kernel does with broken memory. The other tests rely on them."""

from __future__ import annotations

import ctypes
import errno
import io
import mmap
import os
import re
import signal
from contextlib import redirect_stdout
from pathlib import Path

from iovec_rs import PAGE_SIZE, WRITE, IovIter, cli, copy_from_iter, cpu

from guest.harness import equal, test
from guest.memory import EHWPOISON, MEMORIES, KernelLog, fill_of, inject, map_fresh, poisoned
from guest.signals import record

MADV_POPULATE_READ = 22
NARROW = {"Nehalem": ["scalar", "sse2"]}


@test()
def the_package_sees_the_cpu_that_is_emulated() -> None:
    model = os.environ["CPU_MODEL"]
    if model in NARROW:
        equal(cpu.available(), NARROW[model], "instruction sets")
        equal(cpu.features()["avx2"], False, "AVX2")
    else:
        assert "avx2" in cpu.available(), cpu.available()
    equal(cpu.isa(), cpu.available()[-1], "the set in use")


@test()
def the_demo_runs() -> None:
    with redirect_stdout(io.StringIO()) as said:
        equal(cli.main(["demo"]), 0, "exit code")
    assert said.getvalue()


@test(memory=MEMORIES)
def injecting_raises_no_signal(memory: str) -> None:
    mapping, start, length, page = map_fresh(memory)
    mapping[start : start + length] = bytes(length)
    equal(inject(mapping, start + page), 0, "signals")


@test(memory=MEMORIES)
def a_load_raises_sigbus_that_names_address_and_extent(memory: str) -> None:
    arena = poisoned(memory)
    for offset in (0, 8, arena.extent // 2 + 1, arena.extent - 1):
        address = arena.address + arena.bad + offset
        seen = record(lambda: ctypes.string_at(address, 1))  # noqa: B023 - called at once
        equal(seen, (signal.SIGBUS, 4, address, arena.lsb), f"signal at {offset}")


@test(memory=MEMORIES)
def a_store_raises_the_same_signal(memory: str) -> None:
    arena = poisoned(memory)
    address = arena.address + arena.bad + 100
    equal(record(lambda: ctypes.memset(address, 1, 1)), (signal.SIGBUS, 4, address, arena.lsb), "signal")


@test(memory=MEMORIES)
def the_pages_around_stay_readable(memory: str) -> None:
    fill = fill_of(memory)
    arena = poisoned(memory, fill)
    equal(bytes(arena.view[arena.bad - 64 : arena.bad]), fill[arena.bad - 64 : arena.bad], "before")
    after = arena.bad + arena.extent
    equal(bytes(arena.view[after : after + 64]), fill[after : after + 64], "after")


@test(memory=MEMORIES)
def populating_tells_poison_from_other_damage(memory: str) -> None:
    mapping, start, length, page = map_fresh(memory)
    mapping[start : start + length] = bytes(length)
    inject(mapping, start + page)
    mapping.madvise(MADV_POPULATE_READ, start, page)
    try:
        mapping.madvise(MADV_POPULATE_READ, start + page, page)
    except OSError as error:
        equal(error.errno, EHWPOISON, "errno")
    else:
        raise AssertionError("a broken page was populated")


@test(memory=MEMORIES)
def each_touch_is_in_the_kernels_log(memory: str) -> None:
    arena, log = poisoned(memory), KernelLog()
    for offset in (0, 3000, 3000):
        address = arena.address + arena.bad + offset
        record(lambda: ctypes.string_at(address, 1))  # noqa: B023 - called at once
    equal(log.touches(arena), [0, 3000, 3000], "touches")


@test()
def reading_a_file_with_a_broken_page_ends_before_it() -> None:
    fd = os.memfd_create("file")
    os.ftruncate(fd, 8 * PAGE_SIZE)
    mapping = mmap.mmap(fd, 8 * PAGE_SIZE)
    mapping[:] = bytes(8 * PAGE_SIZE)
    inject(mapping, 4 * PAGE_SIZE)
    equal(len(os.pread(fd, 8 * PAGE_SIZE, 0)), 4 * PAGE_SIZE, "bytes read")
    try:
        os.pread(fd, PAGE_SIZE, 4 * PAGE_SIZE)
    except OSError as error:
        equal(error.errno, errno.EIO, "errno")
    else:
        raise AssertionError("the broken page was read")


@test()
def the_kernel_counts_what_it_gave_up() -> None:
    before = corrupted()
    for number, memory in enumerate(MEMORIES, 1):
        poisoned(memory)
        equal(corrupted() - before, 4 * number, f"kB with {memory}")  # a page of 2 MiB counts as one, too


def corrupted() -> int:
    found = re.search(r"HardwareCorrupted: +(\d+) kB", Path("/proc/meminfo").read_text(encoding="ascii"))
    assert found
    return int(found[1])


@test()
def a_clean_page_of_a_file_is_read_again() -> None:
    """No data is lost then, so there is no signal that a copy would have to survive."""
    with Path(__file__).open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        content = mapping[:]
        inject(mapping, 0)
        equal(mapping[:] == content, True, "content")
        out = bytearray(len(content))
        equal(copy_from_iter(out, IovIter.ubuf(WRITE, mapping)), len(content), "copied")
        equal(out == content, True, "content copied")
