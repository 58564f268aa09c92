"""The package's own test helpers under this kernel."""

from __future__ import annotations

from iovec_rs import PAGE_SIZE, memcpy_mcsafe, testing

from guest.harness import equal, test


@test()
def memory_made_to_fault_says_what_it_lacks_here() -> None:
    """This kernel has no UFFDIO_POISON. The helper must say so, and not return good memory."""
    try:
        with testing.poisoned(4, bad=[(PAGE_SIZE, PAGE_SIZE)]):
            pass
    except OSError as error:
        equal("UFFDIO_POISON" in str(error), True, f"{error!s} names what is missing")
        return
    raise AssertionError("poisoned memory without a kernel that can make it")


@test()
def memory_behind_a_truncated_file_is_survived_as_anywhere() -> None:
    with testing.truncated(4, 1) as buffer:
        view = buffer.buffer
        out = bytearray(len(view))
        result = memcpy_mcsafe(out, view)
        equal((result.copied, result.fault and result.fault.cause), (PAGE_SIZE, "gone"), "copied, cause")
