//! Bad memory: how copies survive it, and the records of what they found.

pub mod arm;
mod arrival;
mod cycles;
mod delegate;
mod diagnosis;
mod dispositions;
pub mod formats;
mod freshness;
pub mod handler;
pub mod map;
mod mask;
mod predecessors;
mod record;
pub mod shelter;
mod threads;

pub use record::{Cause, Fault, Origin, Side};

use crate::sys::memory;

/// Called when the library is loaded. Initialises what would otherwise be initialised at first use, under a lock that a
/// fork at that moment would leave locked in the child. Also registers the reset of our tables in forked children.
pub fn prepare() {
    threads::watch_forks();
    memory::can_populate();
    memory::user_limit();
    record::signals_poison();
    crate::arch::evict();
}

#[cfg(test)]
mod tests;
