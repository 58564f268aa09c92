//! A ring's bytes into a file.

use super::memory;
use crate::abi::UIO_MAXIOV;
use crate::error::Result;
use crate::structure::{Reader, Slot};
use crate::sys::vectored::{self, Batch};
use std::os::fd::RawFd;

/// One `writev` of the ring's oldest bytes, at most `nbytes` of them, up to the first under zeroes: how many it took out of the ring (an errno if
/// none), and the slots they were in, to be dropped when the next may read.
pub fn splice(reader: &Reader<'_>, fd: RawFd, nbytes: usize) -> Result<(std::result::Result<usize, i32>, Vec<Slot>)> {
    let slots = reader.peek(nbytes, UIO_MAXIOV)?;
    let mut batch = Batch::new(nbytes);
    for slot in &slots {
        batch.push(slot.seg());
    }
    if batch.nbytes() == 0 {
        return Ok((Ok(0), slots));
    }
    let clear = memory::clear(batch.pieces());
    if clear == 0 {
        return Ok((Err(libc::EFAULT), slots));
    }
    batch.cut(clear);
    let written = vectored::write(fd, batch.pieces(), None, 0);
    if let Ok(written) = written {
        reader.consume(&slots, written);
    }
    Ok((written, slots))
}
