//! Guarded accesses: reads and writes that may fault, and the exact position of a copy that a fault stopped.
//!
//! Every instruction of the routines that touches foreign memory has an [`Entry`] in a table: its address, the address
//! of its fixup, and the kind of access it makes. When it faults, the signal handler (see [`crate::fault`]) finds the
//! entry by the instruction pointer, puts the signal's address, number and code into two registers, and resumes the
//! thread at the fixup. The fixup stores the two registers and both pointers in the call's [`Trap`] and returns the
//! bytes left. [`Interrupted`] makes an exact position of these.

mod interrupted;
mod table;
#[cfg(test)]
pub(crate) mod witness;

pub use interrupted::{Instruction, Interrupted, Trap};
pub use table::{Entry, Resume, Table, find};

use super::{LINE, LINES_AHEAD, Primitives, TeeFn, WriteBack};
use crate::abi::Direction;
use crate::memory::Segment;
use std::mem::MaybeUninit;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};
use std::sync::atomic::AtomicU32;

/// Runs a routine with a trap record. `None` if the routine did all its bytes.
///
/// The record is left uninitialised, because clearing its five words costs time in every call and only a fault reads
/// them.
///
/// # Safety
/// The routine fills the record whenever it returns anything but 0.
#[inline(always)]
#[allow(clippy::inline_always)] // inlined, the record needs no store until a fault fills it
unsafe fn run(routine: impl FnOnce(*mut Trap) -> usize) -> Option<Interrupted> {
    let mut trap = MaybeUninit::uninit();
    let left = routine(trap.as_mut_ptr());
    if left == 0 {
        return None;
    }
    // SAFETY: `left` is not 0, so by `run`'s contract the routine has filled the record.
    Interrupted::new(unsafe { trap.assume_init() }, left).or_done()
}

/// Copies front to back; returns what stopped it. The ranges may overlap only if `dst` is below `src`.
///
/// A short count is exact on both sides: every source byte before the first bad line is copied, every destination byte
/// before the first bad page is written, no other byte is written, and no bad line is touched a second time. If another
/// thread takes a page away during the copy, up to a line behind the bytes counted may be written as well.
///
/// # Safety
/// No reference covers `[dst, dst + len)`, but for one that `dst` was taken from and that nobody uses meanwhile, and
/// nobody relies on its contents. Either a handler that resumes by [`find`]
/// owns SIGBUS and SIGSEGV, and then the memory may be bad in any way; or `[src, src + len)` is readable and
/// `[dst, dst + len)` writable throughout.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
pub unsafe fn copy(set: &Primitives, dst: usize, src: usize, len: usize) -> Option<Interrupted> {
    #[cfg(test)]
    witness::note(witness::Seen::Stored(Segment::new(dst, len)));
    let (to, from) = (with_exposed_provenance_mut(dst), with_exposed_provenance(src));
    // SAFETY: what `CopyFn` requires, memory that is accessible or guarded, is `copy`'s contract.
    let routine = |trap| unsafe { (set.copy)(to, from, len, trap) };
    // SAFETY: the fixup of every set's copy fills the record, and the routine returns 0 otherwise.
    let stop = unsafe { run(routine) }?;
    // SAFETY: `stop` happened in this very range, for which `copy`'s caller promises its contract.
    unsafe { finish_line(set, stop) }.or_done()
}

/// Copies, in turn, between flat memory and the first segments of a list, those that are [`LINE`] bytes long and have
/// at least [`LINES_AHEAD`] others behind them. Returns how many it took, perhaps none, and what stopped it in the last
/// of them. It may stop for another reason: see [`LinesFn`](super::LinesFn). `watched` is a word, and the value without
/// which it takes no segment more.
///
/// # Safety
/// The contract of [`copy`], for each of these segments with its part of the flat memory.
pub unsafe fn copy_lines(
    set: &Primitives,
    direction: Direction,
    list: &[Segment],
    flat: usize,
    (watched, expected): (&AtomicU32, u32),
) -> (usize, Option<Interrupted>) {
    let (Some(lines), count @ 1..) = (&set.lines, list.len().saturating_sub(LINES_AHEAD)) else { return (0, None) };
    let routine = match direction {
        Direction::Source => lines.gather,
        Direction::Dest => lines.scatter,
    };
    let mut trap = Trap::EMPTY;
    // SAFETY: `count` is not 0, and the list has LINES_AHEAD segments more; what `LinesFn` requires of the memory is
    // `copy_lines`' contract.
    let left = unsafe { routine(list.as_ptr(), count, flat, &raw mut trap, watched.as_ptr(), expected) };
    let done = count - left;
    if !trap.is_filled() {
        return (done, None);
    }
    // SAFETY: it stopped in a segment for which `copy_lines`' caller promises the contract of `copy`.
    let stop = unsafe { finish_line(set, Interrupted::new(trap, LINE)) };
    (done + 1, stop.or_done())
}

/// Copies the bytes before the bad line, which a wide load lost because it also reached into that line.
///
/// # Safety
/// The contract of [`copy`] holds for the range in which `stop` happened.
#[cold]
#[inline(never)]
unsafe fn finish_line(set: &Primitives, stop: Interrupted) -> Interrupted {
    let rest = stop.before_bad_line();
    if rest == 0 {
        return stop;
    }
    let (to, from) = (with_exposed_provenance_mut(stop.dst), with_exposed_provenance(stop.src));
    // SAFETY: `before_bad_line` returns at most `stop.left`, so this is a part of the range for which `finish_line`'s
    // caller promises the contract of `copy`.
    let routine = |trap| unsafe { (set.copy)(to, from, rest, trap) };
    // SAFETY: the fixup of every set's copy fills the record, and the routine returns 0 otherwise.
    match unsafe { run(routine) } {
        None => Interrupted { dst: stop.dst + rest, src: stop.src + rest, left: stop.left - rest, ..stop },
        Some(second) => Interrupted { left: stop.left - rest + second.left, ..second },
    }
}

/// Copies with non-temporal stores, front to back; returns what stopped it. The ranges may overlap only if `dst` is
/// below `src`. It does not fence.
///
/// A short count is as exact as that of [`copy`], except that bytes before the bad line may be left:
/// [`Interrupted::readable`] says how many, and the caller copies them.
///
/// # Safety
/// The contract of [`copy`]; and `len` is not 0.
#[inline(always)]
#[allow(clippy::inline_always)] // a call's own stores would delay the fence behind the copy
pub unsafe fn copy_nontemporal(set: &Primitives, dst: usize, src: usize, len: usize) -> Option<Interrupted> {
    debug_assert!(len != 0);
    #[cfg(test)]
    witness::note(witness::Seen::Streamed(Segment::new(dst, len)));
    let (to, from) = (with_exposed_provenance_mut(dst), with_exposed_provenance(src));
    // SAFETY: what `NontemporalFn` requires, a `len` that is not 0 and memory that is accessible or guarded, is
    // `copy_nontemporal`'s contract.
    let routine = |trap| unsafe { (set.nontemporal)(to, from, len, trap) };
    // SAFETY: the fixups of every set's non-temporal copy fill the record; it returns 0 otherwise.
    let stop = unsafe { run(routine) }?;
    Some(Interrupted { readable: stop.before_bad_line(), ..stop })
}

/// Copies whole lines from `src` to `dst`, and to a buffer of ours at `stage`, front to back; returns what stopped it.
/// It loads each byte once and does not fence. The ranges do not overlap.
///
/// A short count is as exact as that of [`copy_nontemporal`]. The stage has at least the bytes counted.
///
/// # Safety
/// The contract of [`copy`]; the same holds for as many bytes at `stage`, which are accessible throughout. `routine` is
/// one of a set that this CPU can run. `dst` and `stage` begin at lines, and `len` is a multiple of [`LINE`], not 0.
#[inline(always)]
#[allow(clippy::inline_always)] // once per block
pub unsafe fn tee(routine: TeeFn, dst: usize, src: usize, len: usize, stage: usize) -> Option<Interrupted> {
    debug_assert!((dst | stage | len).is_multiple_of(LINE) && len != 0);
    #[cfg(test)]
    witness::note(witness::of_tee(routine, Segment::new(dst, len)));
    let (to, from, own) =
        (with_exposed_provenance_mut(dst), with_exposed_provenance(src), with_exposed_provenance_mut(stage));
    // SAFETY: what `TeeFn` requires, whole lines, and memory that is accessible or guarded, is `tee`'s contract.
    let routine = |trap| unsafe { routine(to, from, len, trap, own) };
    // SAFETY: the fixup of every such routine fills the record; it returns 0 otherwise.
    let stop = unsafe { run(routine) }?;
    Some(Interrupted { readable: stop.before_bad_line(), ..stop })
}

/// Writes back every line that `[addr, addr + len)` touches. It does not fence. The bytes left are those of the range
/// whose lines were not written back.
///
/// # Safety
/// The range is mapped and readable, or a handler that resumes by [`find`] owns SIGBUS and SIGSEGV.
#[inline]
pub unsafe fn write_back(instruction: &WriteBack, addr: usize, len: usize) -> Option<Interrupted> {
    if len == 0 {
        return None;
    }
    let start = addr - addr % LINE;
    let lines = (addr % LINE + len).next_multiple_of(LINE);
    #[cfg(test)]
    witness::note(witness::Seen::WrittenBack(Segment::new(start, lines)));
    // SAFETY: a line never straddles pages, so all these lines lie in pages of the range, for which `write_back`'s
    // contract holds; `lines` is a multiple of LINE and not 0, since `len` is not.
    let routine = |trap| unsafe { (instruction.run)(with_exposed_provenance_mut(start), lines, trap) };
    // SAFETY: the fixup of every write-back loop fills the record; the loop returns 0 otherwise.
    let stop = unsafe { run(routine) }?;
    let done = (lines - stop.left).saturating_sub(addr % LINE);
    Some(Interrupted { dst: addr + done, left: len - done, ..stop })
}

/// Zeroes a range, front to back; returns what stopped it. Every byte before the first bad page is zeroed.
///
/// # Safety
/// As for the destination of [`copy`].
#[inline]
pub unsafe fn zero(set: &Primitives, dst: usize, len: usize) -> Option<Interrupted> {
    // SAFETY: what `ZeroFn` requires, memory that is writable or guarded, is `zero`'s contract.
    let routine = |trap| unsafe { (set.zero)(with_exposed_provenance_mut(dst), len, trap) };
    // SAFETY: the fixup of every set's zeroing fills the record; it returns 0 otherwise.
    unsafe { run(routine) }
}
