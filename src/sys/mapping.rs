//! Shared mappings of files.

use super::errno;
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::fs::File;
use std::os::fd::AsRawFd;

/// Maps `len` bytes of a file, shared, at an address of the kernel's choice: the mapping, and whether it is `MAP_SYNC`, which is asked
/// for first. The caller unmaps it.
pub fn map(file: &File, offset: u64, len: usize, writable: bool) -> Result<(Segment, bool), i32> {
    match map_with(file, offset, len, writable, libc::MAP_SHARED_VALIDATE | libc::MAP_SYNC) {
        // Not where the file lies, or not in this kernel.
        Err(libc::EOPNOTSUPP | libc::EINVAL) => {
            map_with(file, offset, len, writable, libc::MAP_SHARED).map(|seg| (seg, false))
        }
        done => done.map(|seg| (seg, true)),
    }
}

fn map_with(file: &File, offset: u64, len: usize, writable: bool, flags: i32) -> Result<Segment, i32> {
    let offset = libc::off_t::try_from(offset).map_err(|_| libc::EOVERFLOW)?;
    let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
    // SAFETY: without an address given, the kernel takes one where nothing is mapped.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, file.as_raw_fd(), offset) };
    if start == libc::MAP_FAILED { Err(errno()) } else { Ok(Segment::new(start.expose_provenance(), len)) }
}

/// Unmaps.
///
/// # Safety
/// It is what [`map`] returned, nothing uses it any more, and it is unmapped once.
pub unsafe fn unmap(seg: Segment) {
    // SAFETY: nobody else's memory is in the range, as the caller promises.
    let _ = unsafe { libc::munmap(seg.as_mut_ptr().cast(), seg.len) };
}

/// `msync(MS_SYNC)` over every page that the range touches.
pub fn sync(seg: Segment) -> Result<(), i32> {
    let skip = seg.addr % PAGE_SIZE;
    let pages = Segment::new(seg.addr - skip, seg.len + skip);
    // SAFETY: the call writes to no memory, and the kernel checks the range.
    let result = unsafe { libc::msync(pages.as_mut_ptr().cast(), pages.len, libc::MS_SYNC) };
    if result == 0 { Ok(()) } else { Err(errno()) }
}
