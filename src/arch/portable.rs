//! The set of architectures without one of their own: volatile words, which no fault is survived in.
//!
//! Volatile, because the memory may be changed by someone else meanwhile: the compiler must neither assume that it
//! reads the same twice nor turn the loop into a call whose contract rules that out.

use super::facts::{Facts, Vendor};
use super::guard::Trap;
use super::{FaultKind, Primitives, WriteBack};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// The one set there is.
pub(super) static SETS: &[&Primitives] = &[&SCALAR];

/// No instruction is known to write lines back.
pub(super) static WRITE_BACKS: &[&WriteBack] = &[];

/// No fault is survived: memory that can go away is copied by system calls.
pub(crate) const RECOVERS: bool = false;

pub(super) static SCALAR: Primitives =
    Primitives { name: "scalar", copy, nontemporal: copy, zero, available: || true, whole: || true, tables: &[] };

/// Eight bytes without alignment; a single load or store on every CPU that allows unaligned ones.
type Word = [u8; 8];
const WORD: usize = size_of::<Word>();

/// # Safety
/// `[src, src + len)` is readable and `[dst, dst + len)` writable.
unsafe extern "C" fn copy(dst: *mut u8, src: *const u8, len: usize, _trap: *mut Trap) -> usize {
    let words = len / WORD * WORD;
    for at in (0..words).step_by(WORD) {
        // SAFETY: at + WORD <= len, so both words lie in the ranges the caller vouches for; Word has alignment 1.
        let word = unsafe { ptr::read_volatile(src.wrapping_add(at).cast::<Word>()) };
        // SAFETY: at + WORD <= len, so the word lies in the destination, which the caller of `copy` lets be written to.
        unsafe { ptr::write_volatile(dst.wrapping_add(at).cast::<Word>(), word) };
    }
    for at in words..len {
        // SAFETY: at < len, so the byte lies in the source, which the caller of `copy` says is readable.
        let byte = unsafe { ptr::read_volatile(src.wrapping_add(at)) };
        // SAFETY: at < len, so the byte lies in the destination, which the caller of `copy` lets be written to.
        unsafe { ptr::write_volatile(dst.wrapping_add(at), byte) };
    }
    0
}

/// # Safety
/// `[dst, dst + len)` is writable.
unsafe extern "C" fn zero(dst: *mut u8, len: usize, _trap: *mut Trap) -> usize {
    let words = len / WORD * WORD;
    for at in (0..words).step_by(WORD) {
        // SAFETY: at + WORD <= len, in the range the caller vouches for; Word has alignment 1.
        unsafe { ptr::write_volatile(dst.wrapping_add(at).cast::<Word>(), [0; WORD]) };
    }
    for at in words..len {
        // SAFETY: at < len, so the byte lies in the range that the caller of `zero` lets be written to.
        unsafe { ptr::write_volatile(dst.wrapping_add(at), 0) };
    }
    0
}

/// Nothing depends on the CPU.
pub(super) fn facts() -> Facts {
    Facts { vendor: Vendor::Other, first_cache: None, second_cache: None, last_cache: None, fast_strings: false }
}

/// No stream asks ahead.
pub(super) fn use_far(_from: usize) {}

/// There are no string instructions.
pub(super) fn use_strings(_from: usize, _any_from: usize) {}

pub(super) fn store_fence() {
    fence(Ordering::SeqCst);
}

pub(super) fn full_fence() {
    fence(Ordering::SeqCst);
}

type Access = unsafe fn(addr: usize, len: usize);

/// The compiler would take loads away that nobody looks at.
pub(super) fn accesses() -> Option<[Access; 3]> {
    None
}

/// There is no hint to give.
pub(super) fn prefetch(_addr: usize, _len: usize) {}

pub(super) fn prefetch_far(_addr: usize, _len: usize) {}

pub(super) fn prefetch_to_write(_addr: usize, _len: usize) {}

/// No clock is cheap enough.
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

/// No two contexts are known to be alike.
///
/// # Safety
/// None; other instruction sets read what they are given.
pub(crate) unsafe fn state(_context: *mut libc::c_void) -> u64 {
    static CONTEXTS: AtomicU64 = AtomicU64::new(0);
    CONTEXTS.fetch_add(1, Ordering::Relaxed)
}

/// Nothing is known of the access.
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
