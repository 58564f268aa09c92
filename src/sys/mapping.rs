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

/// Maps `len` bytes of a file, shared, at an address of the kernel's choice: the mapping, and whether it is `MAP_SYNC`,
/// which is asked for first. The caller unmaps it.
pub(super) fn map(file: &File, offset: u64, len: usize, writable: bool) -> Result<(Segment, bool), i32> {
    let anywhere = Segment::new(0, len);
    // SAFETY: without an address given, the kernel takes one where nothing is mapped.
    let map = |is_map_sync| unsafe { map_with(file, offset, anywhere, writable, flags(is_map_sync)) };
    match map(true) {
        // Not where the file lies, or not in this kernel.
        Err(libc::EOPNOTSUPP | libc::EINVAL) => map(false).map(|seg| (seg, false)),
        done => done.map(|seg| (seg, true)),
    }
}

/// Maps a file in the place of what [`map`] returned, in one step: no access finds nothing there.
///
/// # Safety
/// The range is one that [`map`] returned and that is still mapped; the file's bytes are what was mapped there.
pub(super) unsafe fn replace(
    seg: Segment,
    file: &File,
    offset: u64,
    writable: bool,
    is_map_sync: bool,
) -> Result<(), i32> {
    // SAFETY: nobody else's memory is in the range, as the caller promises.
    unsafe { map_with(file, offset, seg, writable, flags(is_map_sync) | libc::MAP_FIXED) }.map(drop)
}

/// # Safety
/// With `MAP_FIXED`, whatever is mapped in the range may go.
unsafe fn map_with(file: &File, offset: u64, seg: Segment, writable: bool, flags: i32) -> Result<Segment, i32> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EOVERFLOW)?;
    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    // SAFETY: without `MAP_FIXED`, the kernel takes an address where nothing is mapped; with it, the caller promises
    // that it may.
    let start = unsafe { libc::mmap(seg.as_mut_ptr().cast(), seg.len, protection, flags, file.as_raw_fd(), offset) };
    if start == libc::MAP_FAILED { Err(errno()) } else { Ok(Segment::new(start.expose_provenance(), seg.len)) }
}

/// Unmaps.
///
/// # Safety
/// It is what [`map`] returned, nothing uses it any more, and it is unmapped once.
pub(super) unsafe fn unmap(seg: Segment) {
    // SAFETY: nobody else's memory is in the range, as the caller promises.
    let _ = unsafe { libc::munmap(seg.as_mut_ptr().cast(), seg.len) };
}

/// `msync(MS_SYNC)` over every page that the range touches. Of a mapping made here, this takes errors away from those
/// who are to know of them: [`super::shared_mapping`] counts them.
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
