//! 64-bit ARM: the routines, which of them this CPU can run, and what it reports about itself.

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

/// `stnp` is only a hint: the data that it stores may stay in a cache.
pub(crate) const NONTEMPORAL_BYPASSES: bool = false;

/// Whether this CPU can clean lines to a point of persistence.
fn has_point_of_persistence() -> bool {
    // SAFETY: getauxval has no preconditions: it looks a number up in the list that the kernel passed to the process.
    unsafe { libc::getauxval(libc::AT_HWCAP) & libc::HWCAP_DCPOP != 0 }
}

/// These copies do not prefetch.
pub(super) fn use_far(_from: usize) {}

/// They have no prefetch to leave out.
pub(super) fn use_unaided(_from: usize) {}

/// There are no string instructions.
pub(super) fn use_strings(_from: usize, _any_from: usize) {}

/// Programs can read no property of the CPU on which copy thresholds depend.
pub(super) fn facts() -> Facts {
    Facts { vendor: Vendor::Other, first_cache: None, second_cache: None, last_cache: None, fast_strings: false }
}

/// No copy is known here that is faster than this package's.
pub(super) fn copying() -> Option<super::limits::Copying> {
    None
}

/// The loops of loads alone and of stores alone.
#[allow(clippy::unnecessary_wraps)] // the portable set has none
pub(super) fn accesses() -> Option<limits::Accesses> {
    Some(limits::ACCESSES)
}

pub(super) fn cache_line_size() -> usize {
    let register: usize;
    // SAFETY: Linux lets programs read this register, or emulates the read; the instruction touches no memory.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) register, options(nomem, nostack, preserves_flags)) };
    // The field is log2 of the number of 4-byte words in the smallest line of all data caches.
    4 << (register >> 16 & 0xf)
}

pub(super) fn features() -> Vec<(&'static str, bool)> {
    vec![("neon", true), ("dcpop", has_point_of_persistence())]
}

/// How many bytes of the next segment are prefetched. Behind that the hardware prefetcher has detected the stream.
const PREFETCH_BYTES: usize = 1024;

/// An address in each line of a range. A range that begins inside a line reaches into one line more than its length
/// tells, so the bytes before it in that line are added.
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

/// There is no clock that is fine enough: the generic timer often ticks only every 40 ns, and a system call may be
/// shorter. By a clock that stands still no earlier answer is fresh, so each copy of memory that can vanish asks the
/// kernel.
pub(crate) fn ticks() -> u64 {
    0
}

/// Waits until every earlier store and write-back has ended.
pub(super) fn store_fence() {
    // SAFETY: every CPU of this architecture has the instruction, and it touches no memory.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Orders every earlier access, evictions included, before every later access.
pub(super) fn full_fence() {
    store_fence();
}

/// Waits until every earlier load has its data.
pub(super) fn load_fence() {
    // SAFETY: every CPU of this architecture has the instruction, and it touches no memory.
    unsafe { asm!("dsb ld", options(nostack, preserves_flags)) };
}

/// A program cannot single-step itself on this architecture, so `run` runs without the closure's calls.
#[cfg(test)]
pub(crate) fn stepped<R>(_before_access: impl FnMut(), run: impl FnOnce() -> R) -> R {
    run()
}
