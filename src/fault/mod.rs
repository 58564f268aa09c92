//! Bad memory: surviving it, and what it looked like.

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
mod predecessors;
mod record;
pub mod shelter;
mod threads;

pub use record::{Cause, Fault, Origin, Side};

use crate::sys::memory;

/// Finds out now what would otherwise be found out at first use, under a lock, and has forked children start afresh: a
/// fork while another thread held such a lock would leave it shut in the child. Called when the library is loaded.
pub fn prepare() {
    threads::watch_forks();
    memory::can_populate();
    memory::user_limit();
    record::signals_poison();
    crate::arch::evict();
}

#[cfg(test)]
mod tests;
