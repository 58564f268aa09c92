//! Accesses that may fault, and how far a copy got when one did.
//!
//! Every instruction in the routines that touches foreign memory has an [`Entry`]: where it is, where to go on if it
//! faults, what kind of access it is. A signal handler (see [`crate::fault`]) finds the entry by instruction pointer,
//! leaves what it knows in registers and resumes at the fixup, which stores it in the call's [`Trap`] and returns the
//! bytes left.

use super::{LINE, Primitives, WriteBack};
use std::mem::MaybeUninit;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// What an access was doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Instruction {
    /// Reads the first byte of a stretch: its line is the bad one.
    First = 1,
    /// Reads on from bytes whose line has been read before, if they do not begin one.
    Load = 2,
    /// Writes within one line.
    Store = 3,
    /// Reads and writes, byte by byte in order.
    String = 4,
}

/// One guarded stretch of code. Offsets are relative to the fields themselves.
#[repr(C)]
pub struct Entry {
    start: i32,
    end: i32,
    fixup: i32,
    /// The [`Instruction`] in the low byte; in the 12 bits above it the bytes of this turn that were stored before, in
    /// the 12 above those how many more had been loaded and not stored.
    meta: i32,
}

/// A routine's entries.
#[derive(Clone, Copy)]
pub struct Table {
    start: *const Entry,
    end: *const Entry,
}

// SAFETY: the pointers are to read-only data of this library, which nothing changes.
unsafe impl Sync for Table {}
// SAFETY: read-only data of this library may be read from any thread.
unsafe impl Send for Table {}

impl Table {
    /// The entries between two symbols of one section.
    #[allow(dead_code)] // by sets that guard nothing
    pub(super) const fn new(start: *const Entry, end: *const Entry) -> Self {
        Self { start, end }
    }

    /// The entries in the order of their code, each with its addresses.
    pub fn entries(self) -> impl DoubleEndedIterator<Item = Resume> {
        let count = (self.end.addr() - self.start.addr()) / size_of::<Entry>();
        (0..count).map(move |index| {
            // SAFETY: index < count, so the entry lies between the two symbols, which the assembler filled with
            // entries.
            let entry = unsafe { &*self.start.wrapping_add(index) };
            let at = |field: &i32| std::ptr::from_ref(field).addr().wrapping_add_signed(*field as isize);
            Resume { start: at(&entry.start), end: at(&entry.end), fixup: at(&entry.fixup), meta: entry.meta }
        })
    }

    /// Whether the instruction at `pointer` is between the first and the last of them.
    fn may_hold(self, pointer: usize) -> bool {
        let (first, last) = (self.entries().next(), self.entries().next_back());
        first.is_some_and(|first| first.start <= pointer) && last.is_some_and(|last| pointer < last.end)
    }
}

/// An entry with absolute addresses.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// First instruction.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Where to go on.
    pub fixup: usize,
    /// For [`Trap::encode`].
    pub meta: i32,
}

/// Where to go on if the instruction at `pointer` faults. Runs in a signal handler: no allocation, no lock.
pub fn find(pointer: usize) -> Option<Resume> {
    let tables = super::SETS.iter().flat_map(|set| set.tables);
    let tables = tables.chain(super::WRITE_BACKS.iter().flat_map(|instruction| instruction.tables));
    let near = tables.filter(|table| table.may_hold(pointer));
    near.flat_map(|table| table.entries()).find(|entry| entry.start <= pointer && pointer < entry.end)
}

/// What stopped a routine. Filled by its fixup.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Trap {
    /// The signal's address; 0 where it had none.
    pub(super) addr: usize,
    pub(super) info: u64,
    /// Where the turn began that was interrupted; the second means nothing where only one side is touched.
    pub(super) dst: usize,
    pub(super) src: usize,
}

impl Trap {
    /// What the handler leaves in the second register: signal, whether a store raised it as far as is told, code,
    /// extent, and the entry's meta.
    pub fn encode(signo: i32, is_write: bool, code: i32, lsb: u16, meta: i32) -> u64 {
        let signal = (signo as u8 & Self::SIGNAL) | (u8::from(is_write) * Self::WRITE);
        u64::from(signal) | u64::from(code as u8) << 8 | u64::from(lsb) << 16 | u64::from(meta as u32) << 32
    }

    /// Of the low byte, the signal: the two that faults raise are below 32.
    const SIGNAL: u8 = 0x7f;
    /// Of the low byte, that a store raised it. A machine check does not tell.
    const WRITE: u8 = 0x80;

    /// The signal.
    pub fn signo(&self) -> i32 {
        i32::from(self.info as u8 & Self::SIGNAL)
    }

    /// Whether it is known that a store raised it.
    fn is_write(&self) -> bool {
        self.info as u8 & Self::WRITE != 0
    }

    /// Its code, as far as a fault's can go.
    pub fn code(&self) -> i32 {
        i32::from((self.info >> 8) as u8)
    }

    /// Log2 of the extent; 0 if the signal did not tell.
    pub fn lsb(&self) -> u32 {
        u32::from((self.info >> 16) as u16)
    }

    fn instruction(&self) -> Option<Instruction> {
        [Instruction::First, Instruction::Load, Instruction::Store, Instruction::String]
            .into_iter()
            .find(|one| *one as u64 == self.info >> 32 & 0xff)
    }

    /// Whether the signal's address, or the extent it stands for (poison is told of by the page), meets a range.
    fn is_within(&self, start: usize, len: usize) -> bool {
        let below = (1_usize << self.lsb().min(usize::BITS - 1)) - 1;
        let first = start & !below;
        (self.addr & !below).wrapping_sub(first) < start - first + len
    }

    /// Bytes of the interrupted turn that were stored before the access.
    fn stored(&self) -> usize {
        (self.info >> 40 & 0xfff) as usize
    }

    /// Bytes of it behind those that had been loaded and not stored.
    fn ahead(&self) -> usize {
        (self.info >> 52) as usize
    }
}

/// Where a routine stopped, and why.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted {
    /// The first byte not written.
    pub dst: usize,
    /// The byte that would have gone there; nothing where only one side is touched.
    pub src: usize,
    /// The bytes from there on.
    pub left: usize,
    /// How many of them can be read all the same: the bad line begins behind those.
    pub readable: usize,
    /// Whether the destination faulted.
    pub is_store: bool,
    /// What stopped it.
    pub trap: Trap,
}

impl Interrupted {
    /// `left` counts from where the interrupted turn began.
    #[cold]
    #[inline(never)]
    pub(super) fn new(trap: Trap, left: usize) -> Self {
        let stored = trap.stored();
        let is_store = match trap.instruction() {
            Some(Instruction::Store) => true,
            // A byte may be on both sides, so the address alone does not tell.
            Some(Instruction::String) => trap.is_write() || !trap.is_within(trap.src, left),
            _ => false,
        };
        let (dst, src) = (trap.dst.wrapping_add(stored), trap.src.wrapping_add(stored));
        Self { dst, src, left: left - stored, readable: 0, is_store, trap }
    }

    /// A load that reached into a bad line left readable the bytes before that line, behind those that were loaded and
    /// not stored.
    fn before_bad_line(&self) -> usize {
        let ahead = self.trap.ahead();
        let is_load = self.trap.instruction() == Some(Instruction::Load);
        let rest = if is_load { self.src.wrapping_add(ahead).wrapping_neg() % LINE } else { 0 };
        (ahead + rest).min(self.left)
    }
}

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
    Some(Interrupted::new(unsafe { trap.assume_init() }, left))
}

/// Copies front to back; tells what stopped it. Ranges overlap only if `dst` is below `src`.
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
    // SAFETY: the caller of `copy` promises it of the whole range, of which this is a part of the range.
    Some(unsafe { finish_line(set, stop) })
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
    // SAFETY: a part of the range the caller speaks for.
    let routine = |trap| unsafe { (set.copy)(to, from, rest, trap) };
    // SAFETY: every set's copy fills the record.
    match unsafe { run(routine) } {
        None => Interrupted { dst: stop.dst + rest, src: stop.src + rest, left: stop.left - rest, ..stop },
        Some(second) => Interrupted { left: stop.left - rest + second.left, ..second },
    }
}

/// Copies past the caches, front to back; tells what stopped it. Ranges overlap only if `dst` is below `src`. Not
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

/// Writes back every line that `[addr, addr + len)` touches. Not fenced. What is left of the range is not in
/// written-back lines.
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

/// Zeroes; tells what stopped it. Exact to the page.
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
