//! Finds out what stopped a copy that the kernel made, whose result says how far it got, but not why.

use super::shelter;
use super::{Cause, Fault, Side};
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use crate::sys::memory;

impl Fault {
    /// Finds out what stopped a system call that copies. `dst` and `src` are the addresses of the first byte not
    /// copied. It asks the kernel without touching the memory. The caller fills in the offset, since only it knows
    /// where the copy began.
    pub fn diagnose(dst: usize, src: usize) -> Self {
        if let Some(fault) = shelter::fault_at(dst, src) {
            return fault;
        }
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
        Self::refused(side, Segment::new(address, PAGE_SIZE), cause)
    }
}
