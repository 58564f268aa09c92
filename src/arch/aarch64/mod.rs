//! 64-bit ARM: the routines, and what this CPU can run of them.

#[macro_use]
mod table;
#[cfg(test)]
mod coverage;
mod flush;
mod limits;
mod pairs;
mod signal;

pub(crate) use signal::{fault_kind, resume, state};

use super::facts::{Facts, Vendor};
use super::{LINE, Primitives, WriteBack};
use core::arch::asm;
use flush::{CIVAC, CVAC, CVAP};
use pairs::{GENERAL, NEON};

/// The instruction sets, the narrowest first.
pub(super) static SETS: &[&Primitives] = &[&GENERAL, &NEON];

/// The write-back instructions, the best one last.
pub(super) static WRITE_BACKS: &[&WriteBack] = &[&CIVAC, &CVAC, &CVAP];

/// Whether the routines survive faults, if a handler calls [`resume`].
pub(crate) const RECOVERS: bool = true;

/// `stnp` is a hint: its data may stay in a cache.
pub(crate) const NONTEMPORAL_BYPASSES: bool = false;

/// Whether there is a point of persistence to clean lines to.
fn has_point_of_persistence() -> bool {
    // SAFETY: getauxval asks for nothing: it looks a number up in the list that the kernel gave the process.
    unsafe { libc::getauxval(libc::AT_HWCAP) & libc::HWCAP_DCPOP != 0 }
}

/// No stream prefetches far ahead.
pub(super) fn use_far(_from: usize) {}

/// There are no string instructions.
pub(super) fn use_strings(_from: usize, _any_from: usize) {}

/// What this CPU says of itself: to programs, nothing that speed depends on.
pub(super) fn facts() -> Facts {
    Facts { vendor: Vendor::Other, first_cache: None, second_cache: None, last_cache: None, fast_strings: false }
}

/// Loads and stores alone.
#[allow(clippy::unnecessary_wraps)] // other architectures have none
pub(super) fn accesses() -> Option<limits::Accesses> {
    Some(limits::ACCESSES)
}

pub(super) fn cache_line_size() -> usize {
    let register: usize;
    // SAFETY: Linux lets programs read the register, and emulates it where the CPU does not.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) register, options(nomem, nostack, preserves_flags)) };
    // Log2 of the words in the smallest line of all data caches.
    4 << (register >> 16 & 0xf)
}

pub(super) fn features() -> Vec<(&'static str, bool)> {
    vec![("neon", true), ("dcpop", has_point_of_persistence())]
}

/// How many bytes of the next segment are prefetched: by then the hardware prefetcher has caught on.
const PREFETCH_BYTES: usize = 1024;

/// The lines of a range, by any address in each. One that begins within a line ends in one more.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
fn lines(addr: usize, len: usize) -> impl Iterator<Item = usize> {
    (0..len + addr % LINE).step_by(LINE).map(move |at| addr.wrapping_add(at))
}

macro_rules! prefetch_lines {
    ($operation:literal, $lines:expr) => {
        for line in $lines {
            // SAFETY: a prefetch is a hint; it never faults and has no effect on memory, whatever the address.
            unsafe {
                asm!(concat!("prfm ", $operation, ", [{}]"), in(reg) line, options(nostack, preserves_flags, readonly));
            }
        }
    };
}

#[inline(always)]
#[allow(clippy::inline_always)]
pub(super) fn prefetch(addr: usize, len: usize) {
    prefetch_lines!("pldl1keep", lines(addr, len.min(PREFETCH_BYTES)));
}

#[inline]
pub(super) fn prefetch_far(addr: usize, len: usize) {
    prefetch_lines!("pldl2keep", lines(addr, len));
}

#[inline]
pub(super) fn prefetch_to_write(addr: usize, len: usize) {
    prefetch_lines!("pstl1keep", lines(addr, len));
}

/// No clock is fine enough: the generic timer often ticks but every 40 ns, in which a system call may be over. So the
/// kernel is asked anew for each copy of memory that can vanish.
pub(crate) fn ticks() -> u64 {
    0
}

/// Waits for every store and write-back before it.
pub(super) fn store_fence() {
    // SAFETY: every CPU has the instruction, and it touches no memory.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Orders every access before it, evictions too, before every access after it.
pub(super) fn full_fence() {
    store_fence();
}

/// Programs cannot step through themselves.
#[cfg(test)]
pub(crate) fn stepped<R>(_before_access: impl FnMut(), run: impl FnOnce() -> R) -> R {
    run()
}
