//! What files need beside what the standard library offers.

use std::fs::File;
use std::os::fd::AsRawFd;

/// `posix_fallocate`: gives every byte of the range room, at the file's end by making it longer, and leaves what is there as it is.
/// The errno on failure, which may have come in the middle.
pub fn allocate(file: &File, offset: u64, len: u64) -> Result<(), i32> {
    let range = libc::off_t::try_from(offset).and_then(|offset| Ok((offset, libc::off_t::try_from(len)?)));
    let (offset, len) = range.map_err(|_| libc::EFBIG)?;
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call touches no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), offset, len) } {
        0 => Ok(()),
        errno => Err(errno),
    }
}
