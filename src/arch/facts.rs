//! What the CPU reports about itself that copy thresholds depend on. They are plain values, so that tests can check the
//! thresholds of CPUs they do not run on.

/// The CPU's maker. Thresholds depend on it because no feature bit tells how a store reaches memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// Cores on one mesh. All share the last cache, which takes only the lines that the second-level caches evict.
    Intel,
    /// Cores in small groups. Each group has its own last cache. Hygon's CPUs count as AMD's.
    Amd,
    /// Any other maker.
    Other,
}

/// The properties that [`Tuning::of`](super::tuning::Tuning::of) derives thresholds from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// The maker.
    pub vendor: Vendor,
    /// Bytes in the first-level data cache, if the CPU reports it.
    pub first_cache: Option<usize>,
    /// Bytes in the second-level cache, if the CPU reports it.
    pub second_cache: Option<usize>,
    /// Bytes in the last-level cache, if the CPU reports it.
    pub last_cache: Option<usize>,
    /// Whether short `rep movsb` is fast (the FSRM feature bit).
    pub fast_strings: bool,
}
