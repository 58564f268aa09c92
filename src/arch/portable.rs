//! The set of architectures without one of their own: volatile words, which no fault is survived in.
//!
//! Volatile, because the memory may be changed by someone else meanwhile: the compiler must neither assume that it
//! reads the same twice nor turn the loop into a call whose contract rules that out.

use super::Primitives;
use super::guard::Trap;
use std::ptr;

pub(super) static SCALAR: Primitives =
    Primitives { name: "scalar", copy, stream: copy, zero, available: || true, whole: || true, tables: &[] };

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
        // SAFETY: as above, for the destination.
        unsafe { ptr::write_volatile(dst.wrapping_add(at).cast::<Word>(), word) };
    }
    for at in words..len {
        // SAFETY: at < len.
        let byte = unsafe { ptr::read_volatile(src.wrapping_add(at)) };
        // SAFETY: at < len.
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
        // SAFETY: at < len.
        unsafe { ptr::write_volatile(dst.wrapping_add(at), 0) };
    }
    0
}
