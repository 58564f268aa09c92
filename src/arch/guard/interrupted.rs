//! What a fixup leaves of a fault, and what that says about the bytes on either side.

use crate::arch::LINE;

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

/// What stopped a routine. Filled by its fixup.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Trap {
    /// The signal's address; 0 where it had none.
    pub(in crate::arch) addr: usize,
    pub(in crate::arch) info: u64,
    /// Where the turn began that was interrupted; the second means nothing where only one side is touched.
    pub(in crate::arch) dst: usize,
    pub(in crate::arch) src: usize,
    /// The source byte behind the last one stored, where a store reached beyond the turn that was interrupted: a head
    /// does. Below `src` otherwise.
    pub(in crate::arch) reached: usize,
}

impl Trap {
    /// What the handler leaves in the second register: the signal, whether a store is known to have raised it, the
    /// code, the extent, and the entry's meta.
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

    /// Its code. Those of faults fit into a byte.
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

    /// Whether the signal's address, or the extent it stands for (poison is reported by the page), meets a range.
    fn is_within(&self, start: usize, len: usize) -> bool {
        let below = (1_usize << self.lsb().min(usize::BITS - 1)) - 1;
        let first = start & !below;
        (self.addr & !below).wrapping_sub(first) < start - first + len
    }

    /// Bytes from where the interrupted turn began that were stored before the access: by the turn, or by a head that
    /// reached further than that. They are stored and not to be read again: the page may be gone by now.
    fn stored(&self) -> usize {
        let by_turn = (self.info >> 40 & 0xfff) as usize;
        by_turn.max(self.reached.saturating_sub(self.src))
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
    pub(in crate::arch) fn new(trap: Trap, left: usize) -> Self {
        let stored = trap.stored().min(left);
        let is_store = match trap.instruction() {
            Some(Instruction::Store) => true,
            // A byte may be on both sides, so the address alone does not tell.
            Some(Instruction::String) => trap.is_write() || !trap.is_within(trap.src, left),
            _ => false,
        };
        let (dst, src) = (trap.dst.wrapping_add(stored), trap.src.wrapping_add(stored));
        Self { dst, src, left: left - stored, readable: 0, is_store, trap }
    }

    /// Nothing stopped a routine that has nothing left: a head may have stored all there is, and a page that was bad
    /// may have come back.
    pub(super) fn or_done(self) -> Option<Self> {
        (self.left != 0).then_some(self)
    }

    /// A load that reached into a bad line left readable the bytes before that line, behind those that were loaded and
    /// not stored.
    pub(super) fn before_bad_line(&self) -> usize {
        let ahead = self.trap.ahead();
        let is_load = self.trap.instruction() == Some(Instruction::Load);
        let rest = if is_load { self.src.wrapping_add(ahead).wrapping_neg() % LINE } else { 0 };
        (ahead + rest).min(self.left)
    }
}
