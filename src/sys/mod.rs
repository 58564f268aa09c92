//! System calls over raw memory. The kernel reports bad addresses instead of raising a signal.

pub mod memory;
