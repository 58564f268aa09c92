//! Shared mappings of files.

use super::errno;
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Flags of a shared mapping, `MAP_SYNC` or not.
const fn flags(is_map_sync: bool) -> i32 {
    if is_map_sync { libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC } else { libc::MAP_SHARED }
}

/// Maps `len` bytes of a file, shared, at an address that the kernel chooses. It tries `MAP_SYNC` first; the result
/// says whether the mapping has it. The caller unmaps the range.
pub(super) fn map(file: &File, offset: u64, len: usize, writable: bool) -> Result<(Segment, bool), i32> {
    let anywhere = Segment::new(0, len);
    // SAFETY: the address is null and the flags lack `MAP_FIXED`, so the kernel chooses a range where nothing is
    // mapped.
    let map = |is_map_sync| unsafe { map_with(file, offset, anywhere, writable, flags(is_map_sync)) };
    match map(true) {
        // The file system does not support `MAP_SYNC` (EOPNOTSUPP), or this kernel does not know it (EINVAL).
        Err(libc::EOPNOTSUPP | libc::EINVAL) => map(false).map(|seg| (seg, false)),
        done => done.map(|seg| (seg, true)),
    }
}

/// Replaces a mapping that [`map`] returned. `MAP_FIXED` does so in one step, so an access by another thread at the
/// same time finds the old mapping or the new one, never none.
///
/// # Safety
/// The range is one that [`map`] returned and that is still mapped, and `file` at `offset` has the bytes that were
/// mapped there.
pub(super) unsafe fn replace(
    seg: Segment,
    file: &File,
    offset: u64,
    writable: bool,
    is_map_sync: bool,
) -> Result<(), i32> {
    // SAFETY: the caller promises that the range is a mapping of [`map`]'s, so no other memory is replaced.
    unsafe { map_with(file, offset, seg, writable, flags(is_map_sync) | libc::MAP_FIXED) }.map(drop)
}

/// # Safety
/// With `MAP_FIXED` in `flags`, the caller allows that whatever is mapped in the range is unmapped.
unsafe fn map_with(file: &File, offset: u64, seg: Segment, writable: bool, flags: i32) -> Result<Segment, i32> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EOVERFLOW)?;
    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    // SAFETY: without `MAP_FIXED`, the kernel chooses a range where nothing is mapped; with it, the caller allows that
    // the range is unmapped.
    let start = unsafe { libc::mmap(seg.as_mut_ptr().cast(), seg.len, protection, flags, file.as_raw_fd(), offset) };
    if start == libc::MAP_FAILED { Err(errno()) } else { Ok(Segment::new(start.expose_provenance(), seg.len)) }
}

/// Unmaps a mapping.
///
/// # Safety
/// The range is a whole mapping of the caller's, nothing uses it any more, and it is unmapped once.
pub(super) unsafe fn unmap(seg: Segment) {
    // SAFETY: the caller promises that the range is its own mapping and unused.
    let _ = unsafe { libc::munmap(seg.as_mut_ptr().cast(), seg.len) };
}

/// `msync(MS_SYNC)` over every page that the range touches.
///
/// The kernel reports a write-back error once per open file description, so this call may consume an error that
/// concerns another caller's pages. For a [`super::shared_mapping::SharedMapping`], call its methods, which count the
/// errors.
pub(super) fn msync(seg: Segment) -> Result<(), i32> {
    if seg.len == 0 {
        return Ok(());
    }
    let skip = seg.addr % PAGE_SIZE;
    let pages = Segment::new(seg.addr - skip, seg.len + skip);
    // SAFETY: the call writes to no memory, and the kernel checks the range.
    let result = unsafe { libc::msync(pages.as_mut_ptr().cast(), pages.len, libc::MS_SYNC) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}
