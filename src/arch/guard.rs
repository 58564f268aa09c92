//! Accesses that may fault, and how far a copy got when one did.
//!
//! Every instruction in the routines that touches foreign memory has an [`Entry`]: where it is, where to go on if it
//! faults, what kind of access it is. A signal handler (see [`crate::fault`]) finds the entry by instruction pointer,
//! leaves what it knows in two registers and resumes at the fixup. The fixup stores them in the call's [`Trap`] and
//! returns the bytes left, of which [`Interrupted`] makes an exact count.

mod interrupted;
mod table;

pub use interrupted::{Instruction, Interrupted, Trap};
pub use table::{Entry, Resume, Table, find};

use super::{LINE, Primitives, WriteBack};
use std::mem::MaybeUninit;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// Runs a routine.
///
/// # Safety
/// The routine fills the record, whenever it leaves any bytes.
#[inline(always)]
#[allow(clippy::inline_always)] // a record that is not cleared first costs nothing, if nobody sees where it is
unsafe fn run(routine: impl FnOnce(*mut Trap) -> usize) -> Option<Interrupted> {
    let mut trap = MaybeUninit::uninit();
    let left = routine(trap.as_mut_ptr());
    if left == 0 {
        return None;
    }
    // SAFETY: the caller of `run` promises it.
    Interrupted::new(unsafe { trap.assume_init() }, left).or_done()
}

/// Copies front to back; returns what stopped it. Ranges overlap only if `dst` is below `src`.
///
/// Exact on both sides: bytes before the first bad line of the source are copied, bytes up to the first bad page of the
/// destination are written, nothing else is, and no bad line is touched a second time.
///
/// # Safety
/// Writing to `[dst, dst + len)` breaks nobody's assumptions. The memory may be bad in any way if a handler that knows
/// [`find`] owns SIGBUS and SIGSEGV; otherwise both ranges are readable and writable as a copy needs.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
pub unsafe fn copy(set: &Primitives, dst: usize, src: usize, len: usize) -> Option<Interrupted> {
    let (to, from) = (with_exposed_provenance_mut(dst), with_exposed_provenance(src));
    // SAFETY: the routine asks for what the caller of `copy` promises.
    let routine = |trap| unsafe { (set.copy)(to, from, len, trap) };
    // SAFETY: every set's copy fills the record.
    let stop = unsafe { run(routine) }?;
    // SAFETY: the caller of `copy` promises it of the whole range, of which this is a part.
    unsafe { finish_line(set, stop) }.or_done()
}

/// Copies what could still be read.
///
/// # Safety
/// As for [`copy`], of the range that it was called with and that `stop` is about.
#[cold]
#[inline(never)]
unsafe fn finish_line(set: &Primitives, stop: Interrupted) -> Interrupted {
    let rest = stop.before_bad_line();
    if rest == 0 {
        return stop;
    }
    let (to, from) = (with_exposed_provenance_mut(stop.dst), with_exposed_provenance(stop.src));
    // SAFETY: `rest` is at most `stop.left`, so this is a part of the range that the caller of `finish_line` speaks
    // for.
    let routine = |trap| unsafe { (set.copy)(to, from, rest, trap) };
    // SAFETY: every set's copy fills the record.
    match unsafe { run(routine) } {
        None => Interrupted { dst: stop.dst + rest, src: stop.src + rest, left: stop.left - rest, ..stop },
        Some(second) => Interrupted { left: stop.left - rest + second.left, ..second },
    }
}

/// Copies past the caches, front to back; returns what stopped it. Ranges overlap only if `dst` is below `src`. Not
/// fenced. As exact as [`copy`], but for the bytes it says are still readable.
///
/// # Safety
/// As for [`copy`]; `len` is not 0.
#[inline(always)]
#[allow(clippy::inline_always)] // every store between two fences delays the second: a frame more is measured
pub unsafe fn copy_nontemporal(set: &Primitives, dst: usize, src: usize, len: usize) -> Option<Interrupted> {
    debug_assert!(len != 0);
    let (to, from) = (with_exposed_provenance_mut(dst), with_exposed_provenance(src));
    // SAFETY: the routine asks for what the caller of `copy_nontemporal` promises.
    let routine = |trap| unsafe { (set.nontemporal)(to, from, len, trap) };
    // SAFETY: every set's non-temporal copy fills the record.
    let stop = unsafe { run(routine) }?;
    Some(Interrupted { readable: stop.before_bad_line(), ..stop })
}

/// Writes back every line that `[addr, addr + len)` touches. Not fenced. The bytes left are those whose lines were not
/// written back.
///
/// # Safety
/// The memory is mapped and readable, or a handler that knows [`find`] owns SIGBUS and SIGSEGV.
#[inline]
pub unsafe fn write_back(instruction: &WriteBack, addr: usize, len: usize) -> Option<Interrupted> {
    if len == 0 {
        return None;
    }
    let start = addr - addr % LINE;
    let lines = (addr % LINE + len).next_multiple_of(LINE);
    // SAFETY: the lines hold the bytes of the range and nothing of another page, so what the caller of `write_back`
    // promises of the range holds of them.
    let routine = |trap| unsafe { (instruction.run)(with_exposed_provenance_mut(start), lines, trap) };
    // SAFETY: every instruction's loop fills the record.
    let stop = unsafe { run(routine) }?;
    let done = (lines - stop.left).saturating_sub(addr % LINE);
    Some(Interrupted { dst: addr + done, left: len - done, ..stop })
}

/// Zeroes; returns what stopped it. Exact to the page.
///
/// # Safety
/// As for [`copy`].
#[inline]
pub unsafe fn zero(set: &Primitives, dst: usize, len: usize) -> Option<Interrupted> {
    // SAFETY: the routine asks for what the caller of `zero` promises.
    let routine = |trap| unsafe { (set.zero)(with_exposed_provenance_mut(dst), len, trap) };
    // SAFETY: every set's zero fills the record.
    unsafe { run(routine) }
}
