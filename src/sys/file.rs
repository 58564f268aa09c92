//! What files need beside what the standard library offers.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

/// `posix_fallocate`: gives every byte of the range room, at the file's end by making it longer, and leaves what is
/// there as it is. The errno on failure, which may have come in the middle.
pub fn allocate(file: &File, offset: u64, len: u64) -> Result<(), i32> {
    let range = libc::off_t::try_from(offset).and_then(|offset| Ok((offset, libc::off_t::try_from(len)?)));
    let (offset, len) = range.map_err(|_| libc::EFBIG)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset, len) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// Bytes that may still be written to the file's file system; `None` where it does not say.
pub fn free_bytes(file: &File) -> Option<u64> {
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open as long as `file` is borrowed, and `stat` has room for the answer.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded and filled it.
    let stat = unsafe { stat.assume_init() };
    // SAFETY: always succeeds, and touches no memory.
    let is_root = unsafe { libc::geteuid() } == 0;
    // Root may have what is set aside, too. A tmpfs without a limit says that it has no blocks at all.
    let blocks = if is_root { stat.f_bfree } else { stat.f_bavail };
    (stat.f_blocks != 0).then(|| blocks.saturating_mul(stat.f_frsize))
}

/// How many of the `len` bytes from `offset` on lie in holes or behind the file's end.
pub fn holes(file: &File, offset: u64, len: u64) -> u64 {
    let end = offset.saturating_add(len);
    let seek = |at: u64, whence| {
        let at = libc::off_t::try_from(at).ok()?;
        // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
        u64::try_from(unsafe { libc::lseek(file.as_raw_fd(), at, whence) }).ok()
    };
    let (mut at, mut holes) = (offset, 0);
    while at < end {
        let hole = seek(at, libc::SEEK_HOLE).unwrap_or(at).min(end);
        let data = seek(hole, libc::SEEK_DATA).unwrap_or(end).min(end);
        holes += data - hole;
        at = data;
    }
    holes
}
