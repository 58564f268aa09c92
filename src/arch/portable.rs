//! The instruction set of architectures that have no folder here: loops over volatile words. They do not survive
//! faults.
//!
//! The accesses are volatile because somebody else may change the memory meanwhile. The compiler must neither assume
//! that two reads of a byte agree nor turn the loop into a call of `memcpy`, whose contract forbids such changes.

use super::facts::{Facts, Vendor};
use super::guard::Trap;
use super::{FaultKind, Primitives, WriteBack};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The only set.
pub(super) static SETS: &[&Primitives] = &[&SCALAR];

/// There is no write-back instruction.
pub(super) static WRITE_BACKS: &[&WriteBack] = &[];

/// Faults are not survived, so memory that can go away is copied by system calls.
pub(crate) const RECOVERS: bool = false;

/// This set has no non-temporal stores.
pub(crate) const NONTEMPORAL_BYPASSES: bool = false;

pub(super) static SCALAR: Primitives = Primitives {
    name: "scalar",
    copy,
    nontemporal: copy,
    zero,
    lines: None,
    tee: None,
    available: || true,
    whole: || true,
    tables: &[],
};

/// Eight bytes of alignment 1: a single load or store on every CPU that allows unaligned ones.
type Word = [u8; 8];
const WORD: usize = size_of::<Word>();

/// # Safety
/// `[src, src + len)` is readable and `[dst, dst + len)` writable.
unsafe extern "C" fn copy(dst: *mut u8, src: *const u8, len: usize, _trap: *mut Trap) -> usize {
    let words = len / WORD * WORD;
    for at in (0..words).step_by(WORD) {
        // SAFETY: at + WORD <= len, so the word lies in the source, which the caller of `copy` says is readable; Word
        // has alignment 1.
        let word = unsafe { ptr::read_volatile(src.wrapping_add(at).cast::<Word>()) };
        // SAFETY: at + WORD <= len, so the word lies in the destination, which the caller of `copy` says is writable;
        // Word has alignment 1.
        unsafe { ptr::write_volatile(dst.wrapping_add(at).cast::<Word>(), word) };
    }
    for at in words..len {
        // SAFETY: at < len, so the byte lies in the source, which the caller of `copy` says is readable.
        let byte = unsafe { ptr::read_volatile(src.wrapping_add(at)) };
        // SAFETY: at < len, so the byte lies in the destination, which the caller of `copy` says is writable.
        unsafe { ptr::write_volatile(dst.wrapping_add(at), byte) };
    }
    0
}

/// # Safety
/// `[dst, dst + len)` is writable.
unsafe extern "C" fn zero(dst: *mut u8, len: usize, _trap: *mut Trap) -> usize {
    let words = len / WORD * WORD;
    for at in (0..words).step_by(WORD) {
        // SAFETY: at + WORD <= len, so the word lies in the range, which the caller of `zero` says is writable; Word
        // has alignment 1.
        unsafe { ptr::write_volatile(dst.wrapping_add(at).cast::<Word>(), [0; WORD]) };
    }
    for at in words..len {
        // SAFETY: at < len, so the byte lies in the range, which the caller of `zero` says is writable.
        unsafe { ptr::write_volatile(dst.wrapping_add(at), 0) };
    }
    0
}

/// No property of the CPU is known.
pub(super) fn facts() -> Facts {
    Facts { vendor: Vendor::Other, first_cache: None, second_cache: None, last_cache: None, fast_strings: false }
}

/// This set's copy does not prefetch.
pub(super) fn use_far(_from: usize) {}

/// It has no prefetch to leave out.
pub(super) fn use_unaided(_from: usize) {}

/// There are no string instructions.
pub(super) fn use_strings(_from: usize, _any_from: usize) {}

pub(super) fn store_fence() {
    fence(Ordering::SeqCst);
}

pub(super) fn full_fence() {
    fence(Ordering::SeqCst);
}

pub(super) fn load_fence() {
    fence(Ordering::Acquire);
}

type Access = unsafe fn(addr: usize, len: usize);

/// No copy is known here that is faster than this package's.
pub(super) fn copying() -> Option<super::limits::Copying> {
    None
}

/// There are no routines of loads alone: the compiler would remove loads whose results are unused.
pub(super) fn accesses() -> Option<[Access; 3]> {
    None
}

/// Prefetches do nothing here.
pub(super) fn prefetch(_addr: usize, _len: usize) {}

pub(super) fn prefetch_far(_addr: usize, _len: usize) {}

pub(super) fn prefetch_to_write(_addr: usize, _len: usize) {}

/// There is no cheap clock here. By a clock that stands still, `fault/freshness.rs` never takes an earlier answer for
/// fresh.
pub(crate) fn ticks() -> u64 {
    0
}

pub(super) fn features() -> Vec<(&'static str, bool)> {
    Vec::new()
}

pub(super) fn cache_line_size() -> usize {
    super::LINE
}

/// No access is guarded.
///
/// # Safety
/// None; other instruction sets read what they are given.
pub(crate) unsafe fn resume(_signal: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) -> bool {
    false
}

/// Every context gets a number of its own, since their registers are not known here.
///
/// # Safety
/// None; other instruction sets read what they are given.
pub(crate) unsafe fn state(_context: *mut libc::c_void) -> u64 {
    static CONTEXTS: AtomicU64 = AtomicU64::new(0);
    CONTEXTS.fetch_add(1, Ordering::Relaxed)
}

/// The access is not known here: every fault counts as a read.
///
/// # Safety
/// None; other instruction sets read what they are given.
pub(crate) unsafe fn fault_kind(_context: *mut libc::c_void) -> FaultKind {
    FaultKind::Read
}

/// No access is guarded.
#[cfg(test)]
pub(crate) fn stepped<R>(_before_access: impl FnMut(), run: impl FnOnce() -> R) -> R {
    run()
}
