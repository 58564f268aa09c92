//! System calls over raw memory and over the files that it is mapped from; and locks that survive a fork. A system call
//! returns EFAULT for a bad address, where an instruction would raise a signal.

pub mod duplicate;
pub mod file;
pub mod file_mapping;
mod fork;
pub mod futex;
pub mod kept_open;
pub mod lock;
pub mod long_lock;
pub mod mapping;
pub mod maps;
pub mod memory;
pub mod own_file;
pub mod poll;
pub(crate) mod random;
pub mod remap;
pub mod rights;
pub mod shared_mapping;
mod syncs;
mod turn;
pub mod vectored;
pub mod writer_lock;

fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
