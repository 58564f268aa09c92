//! The record that a fixup leaves of a fault, and the exact position that follows from it.

use crate::arch::LINE;

/// The kind of a guarded access, which tells what the access means for the bytes around the fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Instruction {
    /// Reads one byte, the first of a stretch. If it faults, the line of that byte is bad.
    First = 1,
    /// Reads on. Unless the first byte of the access begins a line, that byte's line has been read before, so the bad
    /// line is a later one.
    Load = 2,
    /// Writes. All bytes that it writes for the first time lie in one page, so an access that faults has written none
    /// of them.
    Store = 3,
    /// Reads and writes, byte by byte in order (`rep movsb`). Both sides may have faulted.
    String = 4,
}

/// What stopped a routine. Its fixup stores the fields, at fixed offsets (the `save_trap!` macro of the instruction
/// set's `table.rs`).
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Trap {
    /// The signal's address; 0 if the kernel gave none.
    pub(in crate::arch) addr: usize,
    pub(in crate::arch) info: u64,
    /// The pointers when the fault happened: where the interrupted loop iteration began. `src` has no meaning for a
    /// routine that touches one side only.
    pub(in crate::arch) dst: usize,
    pub(in crate::arch) src: usize,
    /// The source address behind the last byte stored, where the head of a copy stored more bytes than the pointers
    /// have advanced by. 0, or not above `src`, otherwise.
    pub(in crate::arch) reached: usize,
}

impl Trap {
    /// A record that no fixup has filled.
    pub(super) const EMPTY: Self = Self { addr: 0, info: 0, dst: 0, src: 0, reached: 0 };

    /// Whether a fixup has filled it.
    pub(super) fn is_filled(&self) -> bool {
        self.info != 0
    }

    /// Packs what the handler puts into the second register. Bits 0 to 6 are the signal, bit 7 whether a store is known
    /// to have raised it, bits 8 to 15 its code, bits 16 to 31 log2 of the extent, bits 32 to 63 the entry's `meta`.
    pub fn encode(signo: i32, is_write: bool, code: i32, lsb: u16, meta: i32) -> u64 {
        let signal = (signo as u8 & Self::SIGNAL) | (u8::from(is_write) * Self::WRITE);
        u64::from(signal) | u64::from(code as u8) << 8 | u64::from(lsb) << 16 | u64::from(meta as u32) << 32
    }

    /// The signal in the low byte: the numbers of SIGBUS and SIGSEGV are below 32.
    const SIGNAL: u8 = 0x7f;
    /// The bit in the low byte that says a store raised it. A machine check does not report that.
    const WRITE: u8 = 0x80;

    /// The signal.
    pub fn signo(&self) -> i32 {
        i32::from(self.info as u8 & Self::SIGNAL)
    }

    /// Whether a store is known to have raised it.
    fn is_write(&self) -> bool {
        self.info as u8 & Self::WRITE != 0
    }

    /// The signal's code, `si_code`. The codes of faults fit into a byte.
    pub fn code(&self) -> i32 {
        i32::from((self.info >> 8) as u8)
    }

    /// Log2 of the extent in bytes; 0 if the signal did not say.
    pub fn lsb(&self) -> u32 {
        u32::from((self.info >> 16) as u16)
    }

    fn instruction(&self) -> Option<Instruction> {
        [Instruction::First, Instruction::Load, Instruction::Store, Instruction::String]
            .into_iter()
            .find(|one| *one as u64 == self.info >> 32 & 0xff)
    }

    /// Whether the extent that the signal reports overlaps a range. The extent is the signal's address alone, or for
    /// poison the aligned block of `1 << lsb` bytes around it, often a page.
    fn is_within(&self, start: usize, len: usize) -> bool {
        let below = (1_usize << self.lsb().min(usize::BITS - 1)) - 1;
        let first = start & !below;
        (self.addr & !below).wrapping_sub(first) < start - first + len
    }

    /// The bytes from the recorded pointers on that were stored before the fault: by the interrupted iteration, or by a
    /// head that reached further. They count as copied and are not read again, since their page may be gone by now.
    fn stored(&self) -> usize {
        self.stored_by_iteration().max(self.reached.saturating_sub(self.src))
    }

    fn stored_by_iteration(&self) -> usize {
        (self.info >> 40 & 0xfff) as usize
    }

    /// The bytes from the recorded pointers on that the interrupted iteration had loaded, stored or not.
    fn loaded(&self) -> usize {
        self.stored_by_iteration() + (self.info >> 52) as usize
    }
}

/// The exact position where a routine stopped, and why it did.
#[derive(Clone, Copy, Debug)]
pub struct Interrupted {
    /// The first byte not written.
    pub dst: usize,
    /// The source of that byte. It has no meaning for a routine that touches one side only.
    pub src: usize,
    /// The bytes not written, from there to the end.
    pub left: usize,
    /// How many of the first of them lie before the bad line, and so can still be copied.
    pub readable: usize,
    /// Whether the destination faulted.
    pub is_store: bool,
    /// The fixup's record of the fault.
    pub trap: Trap,
}

impl Interrupted {
    /// Makes an exact position of a record and of what the routine returned: `left`, counted from the recorded
    /// pointers.
    #[cold]
    #[inline(never)]
    pub(in crate::arch) fn new(trap: Trap, left: usize) -> Self {
        let stored = trap.stored().min(left);
        let is_store = match trap.instruction() {
            Some(Instruction::Store) => true,
            // If the ranges overlap, the address may lie in both. Only a page fault's error code tells then.
            Some(Instruction::String) => trap.is_write() || !trap.is_within(trap.src, left),
            _ => false,
        };
        let (dst, src) = (trap.dst.wrapping_add(stored), trap.src.wrapping_add(stored));
        Self { dst, src, left: left - stored, readable: 0, is_store, trap }
    }

    /// `None` if no byte is left. The routine may have faulted all the same: a head may have stored everything already,
    /// or a page that was bad may be back.
    pub(super) fn or_done(self) -> Option<Self> {
        (self.left != 0).then_some(self)
    }

    /// How many of the bytes left lie before the bad line: those that were loaded but not stored, and behind them the
    /// rest of a line that a faulting [`Instruction::Load`] began in, since that line was read before.
    pub(super) fn before_bad_line(&self) -> usize {
        // Some of what the iteration had loaded may have been stored by the head.
        let ahead = self.trap.loaded().saturating_sub(self.src.wrapping_sub(self.trap.src));
        let is_load = self.trap.instruction() == Some(Instruction::Load);
        let rest = if is_load { self.src.wrapping_add(ahead).wrapping_neg() % LINE } else { 0 };
        (ahead + rest).min(self.left)
    }
}
