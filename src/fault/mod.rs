//! What bad memory looked like to a copy that met it.

use crate::structure::PAGE_SIZE;
use crate::sys::memory;

/// Which end of the copy the bad memory was at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// What was read.
    Source,
    /// What was written.
    Destination,
}

/// What is wrong with the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The hardware or the kernel has given it up.
    Poison,
    /// The file behind it is shorter by now, or cannot be read.
    Gone,
    /// It may not be accessed this way.
    Protection,
    /// Nothing is mapped there.
    Unmapped,
    /// No user address at all.
    BadAddress,
    /// It was bad when the copy met it and is not any more.
    Unknown,
}

/// How it was found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A system call came back short.
    Syscall,
}

/// Why a copy came out short.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The end of the copy.
    pub side: Side,
    /// The first byte not copied, counted from the start of the copy.
    pub offset: usize,
    /// Where the damaged extent begins.
    pub address: usize,
    /// How long it is.
    pub length: usize,
    /// What is wrong with it.
    pub cause: Cause,
    /// How it was found out.
    pub origin: Origin,
    /// The signal, or 0.
    pub signo: i32,
    /// The signal's code, or 0.
    pub si_code: i32,
    /// Log2 of the extent the signal told of, or 0.
    pub lsb: u32,
}

impl Fault {
    /// Finds out what stopped a system call that was to copy from `src` to `dst`, both now at the first byte it could not. The
    /// offset is for the caller to fill in, who alone knows where the copy began.
    pub fn diagnose(dst: usize, src: usize) -> Self {
        let (side, at) = if memory::is_readable(src) { (Side::Destination, dst) } else { (Side::Source, src) };
        let page = at - at % PAGE_SIZE;
        let cause = if at >= memory::user_limit() {
            Cause::BadAddress
        } else {
            match memory::populate(page, 1, side == Side::Destination) {
                Err(libc::EFAULT) => Cause::Gone,
                Err(libc::EINVAL) => Cause::Protection,
                Err(libc::ENOMEM) => Cause::Unmapped,
                Err(libc::EHWPOISON) => Cause::Poison,
                _ => Cause::Unknown,
            }
        };
        let address = if cause == Cause::BadAddress { at } else { page };
        Self {
            side,
            offset: 0,
            address,
            length: PAGE_SIZE,
            cause,
            origin: Origin::Syscall,
            signo: 0,
            si_code: 0,
            lsb: 0,
        }
    }
}
