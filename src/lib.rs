//! Linux's `iov_iter` in user space.
//!
//! The core of the Python package `iovec_rs`; it builds without Python (`--no-default-features`). ARCHITECTURE.md is
//! the map.

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("iovec_rs needs 64-bit Linux");

pub mod abi;
pub mod arch;
pub mod copy;
pub mod error;
pub mod fault;
pub mod import;
pub mod io;
pub mod iter;
pub mod log;
pub mod memory;
pub mod pmem;
#[cfg(feature = "python")]
mod py;
pub mod slot;
pub mod structure;
pub mod sys;
