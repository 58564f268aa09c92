//! What stopped a copy that the kernel made: it tells how far that came, and not why.

use super::shelter;
use super::{Cause, Fault, Side};
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use crate::sys::memory;

impl Fault {
    /// Finds out what stopped a system call that was to copy from `src` to `dst`, both now at the first byte it could
    /// not. The offset is for the caller to fill in, who alone knows where the copy began.
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
