//! Persistent regions: files and devices mapped for good, and what it takes for a store to survive a loss of power.

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

/// What makes a store durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Granularity {
    /// Becoming visible: the caches keep what they hold through a loss of power.
    Byte,
    /// Leaving the caches.
    CacheLine,
    /// `msync` over its page.
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
