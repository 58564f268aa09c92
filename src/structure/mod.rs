//! The structures of pages that some kinds of iterator walk: a pipe's ring, an XArray, a folio queue.
//!
//! They keep pages alive and know nothing of iterators. No lock is held while page contents are copied: an XArray and a
//! folio queue hand out snapshots, and a ring is locked only to reserve a page and, once the page is filled, to commit
//! it.

mod folio_queue;
mod pipe_ring;
mod pipe_writer;
mod xarray;

pub use folio_queue::{FOLIOS_PER_NODE, FolioQueue, Folios};
pub use pipe_ring::{CAN_MERGE, PIPE_SLOTS, PipeRing, Reader, Slot};
pub use pipe_writer::{Place, Writer};
pub use xarray::{Tree, XArray};

use crate::error::{Error, Result};

/// Returns an error if memory is nearly exhausted. Adding a page makes a few small allocations (tree nodes, reference
/// counts) that abort the process if they fail. So this function first allocates more than they need, and frees it
/// again.
pub fn headroom() -> Result<()> {
    can_have(96 << 10)
}

/// Returns an error unless `nbytes` bytes can be allocated now.
pub fn can_have(nbytes: usize) -> Result<()> {
    let mut probe: Vec<u8> = Vec::new();
    probe.try_reserve_exact(nbytes).map_err(|_| Error::NoMemory(nbytes))?;
    // A use of the pointer keeps the compiler from eliding the allocation.
    std::hint::black_box(probe.as_ptr());
    Ok(())
}
