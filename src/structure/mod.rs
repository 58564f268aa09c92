//! The structures of pages that some kinds of iterator walk: a pipe's ring, an XArray, a folio queue.
//!
//! They hold pages alive and know nothing of iterators. An XArray and a folio queue hand out snapshots, so no lock is
//! held while pages are copied. A ring is filled page by page, locked only for the moments in which a page is reserved
//! and in which it becomes part of the pipe.

mod folio_queue;
mod pipe_ring;
mod pipe_writer;
mod xarray;

pub use folio_queue::{FOLIOS_PER_NODE, FolioQueue, Folios};
pub use pipe_ring::{CAN_MERGE, PIPE_SLOTS, PipeRing, Reader, Slot};
pub use pipe_writer::{Place, Writer};
pub use xarray::{Tree, XArray};

use crate::error::{Error, Result};

/// Refuses to go on when memory is nearly gone. What one page more takes is a few small allocations (tree nodes,
/// reference counts) that end the process if they fail. So more than they need is asked for, and given back, before
/// they are made.
pub fn headroom() -> Result<()> {
    can_have(96 << 10)
}

/// Refuses to go on unless that many bytes can be had now.
pub fn can_have(nbytes: usize) -> Result<()> {
    let mut probe: Vec<u8> = Vec::new();
    probe.try_reserve_exact(nbytes).map_err(|_| Error::NoMemory(nbytes))?;
    // Looked at, so that the compiler cannot leave the allocation out.
    std::hint::black_box(probe.as_ptr());
    Ok(())
}
