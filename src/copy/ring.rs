//! Copies bytes into a pipe's ring and out of it.

use super::{Outcome, copy_to_iter, memcpy};
use crate::error::Result;
use crate::iter::IovIter;
use crate::memory::Memory;
use crate::structure::{PipeRing, Slot};
use std::sync::Arc;

/// Writes to the pipe as `write` does. Returns the number of bytes that fit, and the fault that stopped it, if one did.
pub fn write(ring: &Arc<PipeRing>, data: Memory) -> Result<Outcome> {
    let mut i = IovIter::pipe_write(Arc::clone(ring), data.len());
    let written = copy_to_iter(data, &mut i, data.len())?;
    Ok((written, i.fault.take()))
}

/// Copies the bytes of the slots to `dst`, which has room for them, up to the first byte that cannot be read. Returns
/// the number of bytes copied, and the fault if that is not all.
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
