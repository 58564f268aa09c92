//! The structures of pages that some kinds of iterator walk: a pipe's ring, an XArray, a folio queue.
//!
//! They hold pages alive and know nothing of iterators. An XArray and a folio queue hand out snapshots, so no lock is
//! held while pages are copied; a ring is changed by the iterator that fills it and is locked meanwhile.

mod folio_queue;
mod pipe_ring;
mod xarray;

pub use folio_queue::{FOLIOS_PER_NODE, FolioQueue, Folios};
pub use pipe_ring::{CAN_MERGE, PIPE_SLOTS, PipeRing, Ring, Slot};
pub use xarray::{Tree, XArray};
