//! Bytes into a pipe's ring and out of it.

use super::{Outcome, copy_to_iter, memcpy};
use crate::abi::UIO_MAXIOV;
use crate::error::Result;
use crate::iter::IovIter;
use crate::memory::Memory;
use crate::structure::{PipeRing, Reader, Slot};
use crate::sys::vectored::{self, Batch};
use std::os::fd::RawFd;
use std::sync::Arc;

/// An ordinary write into the pipe: what fits, and what stopped it.
pub fn write(ring: &Arc<PipeRing>, data: Memory) -> Result<Outcome> {
    let mut i = IovIter::pipe_write(Arc::clone(ring), data.len());
    let written = copy_to_iter(data, &mut i, data.len())?;
    Ok((written, i.fault.take()))
}

/// The bytes of the slots to `dst`, which has room for them, up to the first that cannot be read.
pub fn copy_out(dst: Memory, slots: &[Slot]) -> Result<Outcome> {
    let mut done = 0;
    for slot in slots {
        let (copied, fault) = memcpy(dst.skip(done).take(slot.len), slot.memory())?;
        done += copied;
        if let Some(mut fault) = fault {
            fault.offset += done - copied;
            return Ok((done, Some(fault)));
        }
    }
    Ok((done, None))
}

/// One `writev` of the ring's oldest bytes, at most `nbytes` of them: how many it took out of the ring (an errno if
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
    let written = vectored::write(fd, batch.pieces(), None, 0);
    if let Ok(written) = written {
        reader.consume(&slots, written);
    }
    Ok((written, slots))
}
