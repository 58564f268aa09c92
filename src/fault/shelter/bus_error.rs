//! A SIGBUS that no copy's fixup knows, as its `siginfo_t` tells of it.

/// The fault.
#[derive(Clone, Copy, Debug)]
pub(in crate::fault) struct BusError {
    /// The address that could not be had.
    pub(in crate::fault) address: usize,
    /// The signal's code.
    pub(in crate::fault) code: i32,
    /// Log2 of the extent it tells of, or 0.
    pub(in crate::fault) lsb: u32,
    /// Whether it was a store.
    pub(in crate::fault) is_store: bool,
}
