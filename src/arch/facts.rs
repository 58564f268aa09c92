//! What a CPU says of itself that speed depends on. Plain values, so that what is decided by them is tested for CPUs
//! that are not here.

/// Who made it. There is no feature bit for how a store finds its way to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// Cores on one mesh, whose last cache is everybody's and takes only what the second caches let go.
    Intel,
    /// Cores in small groups, each with a last cache of its own. Hygon's are the same.
    Amd,
    /// Nothing is known.
    Other,
}

/// What the CPU says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Who made it.
    pub vendor: Vendor,
    /// Bytes in the first data cache, if it tells.
    pub first_cache: Option<usize>,
    /// Bytes in the second cache, if it tells.
    pub second_cache: Option<usize>,
    /// Bytes in the last cache, if it tells.
    pub last_cache: Option<usize>,
    /// Whether `rep movsb` is fast even if it is short (FSRM).
    pub fast_strings: bool,
}
