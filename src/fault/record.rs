//! What a copy found out about the memory that stopped it.

use crate::abi::PAGE_SIZE;
use crate::arch::guard::Trap;
use crate::memory::Segment;
use crate::sys::{maps, memory};
use std::path::Path;
use std::sync::OnceLock;

/// Which end of the copy the bad memory was at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// What was read.
    Source,
    /// What was written.
    Destination,
}

/// What is wrong with the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The hardware or the kernel has given it up.
    Poison,
    /// The file behind it is shorter by now, or cannot be read.
    Gone,
    /// It may not be accessed this way.
    Protection,
    /// Nothing is mapped there.
    Unmapped,
    /// No user address at all.
    BadAddress,
    /// It was bad when the copy met it and is not any more.
    Unknown,
}

/// How it was found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// It was known before.
    Map,
    /// A signal was recovered from.
    Signal,
    /// A system call came back short.
    Syscall,
}

/// Why a copy came out short.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The end of the copy.
    pub side: Side,
    /// The first byte not copied, counted from the start of the copy.
    pub offset: usize,
    /// Where the damaged extent begins.
    pub address: usize,
    /// How long it is.
    pub length: usize,
    /// What is wrong with it, once that is known.
    cause: OnceLock<Cause>,
    /// How it was found out.
    pub origin: Origin,
    /// The signal, or 0.
    pub signo: i32,
    /// The signal's code, or 0.
    pub si_code: i32,
    /// Log2 of the extent that the signal reported, in bytes; 0 if it reported none.
    pub lsb: u32,
}

impl Fault {
    /// Reads what a signal said about the copy it stopped, `dst` and `src` being the first byte it could not copy. The
    /// offset is for the caller to fill in, who alone knows where the copy began.
    pub fn from_signal(trap: &Trap, is_store: bool, dst: usize, src: usize) -> Self {
        let (side, at) = if is_store { (Side::Destination, dst) } else { (Side::Source, src) };
        let (signo, si_code, lsb) = (trap.signo(), trap.code(), trap.lsb());
        let page = at - at % PAGE_SIZE;
        let cause = match (signo, si_code) {
            _ if at >= memory::user_limit() => Cause::BadAddress,
            (libc::SIGBUS, libc::BUS_MCEERR_AR | libc::BUS_OBJERR) => Cause::Poison,
            (libc::SIGBUS, _) => Cause::Gone,
            (_, SEGV_MAPERR) => Cause::Unmapped,
            (_, SEGV_ACCERR | SEGV_PKUERR) => Cause::Protection,
            (_, SI_KERNEL) => Cause::BadAddress,
            _ => Cause::Unknown,
        };
        let (address, length) = match lsb {
            _ if cause == Cause::BadAddress => (at, PAGE_SIZE),
            1..=40 => (at >> lsb << lsb, 1 << lsb),
            _ => (page, PAGE_SIZE),
        };
        let may_be_poison = si_code == libc::BUS_ADRERR && cause == Cause::Gone && !signals_poison();
        let cause = if may_be_poison { OnceLock::new() } else { cause.into() };
        Self { side, offset: 0, address, length, cause, origin: Origin::Signal, signo, si_code, lsb }
    }

    /// A known bad range that a copy stopped before.
    pub fn known(side: Side, bad: Segment, offset: usize) -> Self {
        let (address, length) = (bad.addr, bad.len);
        Self {
            side,
            offset,
            address,
            length,
            cause: Cause::Poison.into(),
            origin: Origin::Map,
            signo: 0,
            si_code: 0,
            lsb: 0,
        }
    }

    /// Pages that code which is not ours met under a guard.
    pub fn sheltered(side: Side, seg: Segment, code: i32, lsb: u32) -> Self {
        let cause = match code {
            libc::BUS_MCEERR_AR => Cause::Poison.into(),
            _ if signals_poison() => Cause::Gone.into(),
            _ => OnceLock::new(),
        };
        Self { cause, origin: Origin::Signal, signo: libc::SIGBUS, si_code: code, lsb, ..Self::known(side, seg, 0) }
    }

    /// The same, its cause found out where its first page is now.
    pub(in crate::fault) fn asked_at(self, page: usize) -> Self {
        let is_poison = self.cause.get().is_none() && poisoned(page, Side::Source);
        let cause = if is_poison { Cause::Poison } else { Cause::Gone };
        self.cause.get_or_init(|| cause);
        self
    }

    /// The same, its cause known.
    pub(in crate::fault) fn known_as(self, cause: Cause) -> Self {
        let _ = self.cause.set(cause);
        self
    }

    /// Part of a file's mapping that the file has no bytes for any more.
    pub fn cut(side: Side, lost: Segment, offset: usize) -> Self {
        Self { offset, ..Self::refused(side, lost, Cause::Gone) }
    }

    /// What the kernel does not get to in a system call.
    pub(super) fn refused(side: Side, extent: Segment, cause: Cause) -> Self {
        Self { cause: cause.into(), origin: Origin::Syscall, ..Self::known(side, extent, 0) }
    }

    /// Memory that can be read, and does not hold what it should.
    pub fn changed(seg: Segment, offset: usize) -> Self {
        Self { cause: Cause::Unknown.into(), ..Self::known(Side::Source, seg, offset) }
    }

    /// What is wrong with the memory. A kernel that does not handle memory failures signals poison as if the page were
    /// gone: to tell the two apart takes a third as long again as the fault, so it is done when somebody first wants to
    /// know.
    pub fn cause(&self) -> Cause {
        let ask = || if poisoned(self.address, self.side) { Cause::Poison } else { Cause::Gone };
        *self.cause.get_or_init(ask)
    }

    /// A mapping whose file was cut is gone to its end, which is one extent, not one fault a page. Looked up where
    /// `rest`, the bytes that the copy still had to do, makes it worth while: it takes a hundred microseconds or more.
    #[must_use]
    pub fn reach(mut self, rest: usize) -> Self {
        let next = self.address.saturating_add(PAGE_SIZE);
        if self.length == PAGE_SIZE
            && rest >= LOOK_UP
            && self.cause() == Cause::Gone
            && memory::populate(next, 1, false) == Err(libc::EFAULT)
            && let Some(lost) = maps::behind_file(self.address, &mut [0; maps::BUFFER])
        {
            self.length = lost.end() - self.address;
        }
        self
    }
}

/// From so many bytes on it is looked up how far a mapping is gone: faulting through them, page by page, takes longer.
const LOOK_UP: usize = 256 << 10;

pub(super) const SEGV_MAPERR: i32 = 1;
pub(super) const SEGV_ACCERR: i32 = 2;
const SEGV_PKUERR: i32 = 4;
const SI_KERNEL: i32 = 0x80;

/// Whether the kernel handles memory failures. Then poison has a signal code of its own; without, it is reported as if
/// the page were gone.
pub(super) fn signals_poison() -> bool {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    *HANDLED.get_or_init(|| Path::new("/proc/sys/vm/memory_failure_early_kill").exists())
}

/// Whether the kernel knows the page to be poisoned. Asking does not touch it.
fn poisoned(page: usize, side: Side) -> bool {
    memory::populate(page, 1, side == Side::Destination) == Err(libc::EHWPOISON)
}
