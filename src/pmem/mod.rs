//! Persistent regions: mapped files and devices, and the step that lets a store survive a loss of power.

mod bad;
mod file;
pub mod flushcache;
mod mapping;
mod part;
mod persist;
pub mod ranges;
pub mod summed;
mod transfer;

pub use crate::sys::shared_mapping::{Caller, watch_forks};
pub use bad::{Piece, moved};
pub use file::{Opened, Purpose};
pub use mapping::Mapping;
pub use part::{Device, Part};
pub use persist::{needs_msync, persist};

/// The step that makes a store durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granularity {
    /// None: the caches keep their contents through a loss of power (eADR), so a store is durable once it is visible.
    Byte,
    /// Writing its cache line back.
    CacheLine,
    /// An `msync` of its page.
    Page,
}

impl Granularity {
    /// Its public name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::CacheLine => "cache_line",
            Self::Page => "page",
        }
    }
}
