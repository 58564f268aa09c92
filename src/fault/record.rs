//! `Fault`: the record of the bad memory that stopped a copy.

use crate::abi::PAGE_SIZE;
use crate::arch::guard::Trap;
use crate::memory::Segment;
use crate::sys::{maps, memory};
use std::path::Path;
use std::sync::OnceLock;

/// The side of the copy on which the bad memory was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The memory that the copy read.
    Source,
    /// The memory that the copy wrote.
    Destination,
}

/// What is wrong with the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The page has an uncorrectable memory error, and the hardware or the kernel lets nobody read it.
    Poison,
    /// The file behind the mapping was truncated, or cannot be read.
    Gone,
    /// The mapping does not permit this access.
    Protection,
    /// Nothing is mapped there.
    Unmapped,
    /// The address is outside user space.
    BadAddress,
    /// The memory was bad when the copy touched it, and no longer is.
    Unknown,
}

/// How the copy learned of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// From a map of known-bad memory, without touching it.
    Map,
    /// From a signal, after which the copy went on at its fixup.
    Signal,
    /// From a system call that returned a short count.
    Syscall,
}

/// Why a copy returned a short count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The side of the copy that was bad.
    pub side: Side,
    /// The first byte not copied, counted from the start of the copy.
    pub offset: usize,
    /// The address at which the bad extent begins.
    pub address: usize,
    /// The length of the bad extent, in bytes.
    pub length: usize,
    /// What is wrong with the memory. Empty until [`Fault::cause`] determines it.
    cause: OnceLock<Cause>,
    /// How the copy learned of it.
    pub origin: Origin,
    /// The number of the signal; 0 if there was none.
    pub signo: i32,
    /// The signal's `si_code`; 0 if there was none.
    pub si_code: i32,
    /// Log2 of the length, in bytes, of the extent that the signal reported; 0 if it reported none.
    pub lsb: u32,
}

impl Fault {
    /// Makes the record of a signal that stopped a copy. `dst` and `src` are the addresses of the first byte not
    /// copied. The caller fills in the offset, since only it knows where the copy began.
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

    /// Makes the record of a known-bad range before which a copy stopped.
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

    /// Makes the record of bad pages that other code touched under a guard.
    pub fn sheltered(side: Side, seg: Segment, code: i32, lsb: u32) -> Self {
        let cause = match code {
            libc::BUS_MCEERR_AR => Cause::Poison.into(),
            _ if signals_poison() => Cause::Gone.into(),
            _ => OnceLock::new(),
        };
        Self { cause, origin: Origin::Signal, signo: libc::SIGBUS, si_code: code, lsb, ..Self::known(side, seg, 0) }
    }

    /// Determines the cause, if it is not known, by asking the kernel about `page`: the address at which the bad page
    /// is now, which may have been moved aside.
    pub(in crate::fault) fn asked_at(self, page: usize) -> Self {
        let is_poison = self.cause.get().is_none() && poisoned(page, Side::Source);
        let cause = if is_poison { Cause::Poison } else { Cause::Gone };
        self.cause.get_or_init(|| cause);
        self
    }

    /// Sets the cause, unless it is known.
    pub(in crate::fault) fn known_as(self, cause: Cause) -> Self {
        let _ = self.cause.set(cause);
        self
    }

    /// Makes the record of a part of a mapping that lies behind the end of its file, which was truncated.
    pub fn truncated(side: Side, lost: Segment, offset: usize) -> Self {
        Self { offset, ..Self::refused(side, lost, Cause::Gone) }
    }

    /// Makes the record of memory at which a system call stopped.
    pub(super) fn refused(side: Side, extent: Segment, cause: Cause) -> Self {
        Self { cause: cause.into(), origin: Origin::Syscall, ..Self::known(side, extent, 0) }
    }

    /// Makes the record of memory that can be read but does not contain what it should.
    pub fn changed(seg: Segment, offset: usize) -> Self {
        Self { cause: Cause::Unknown.into(), ..Self::known(Side::Source, seg, offset) }
    }

    /// What is wrong with the memory. A kernel built without memory-failure handling signals poison with the code of a
    /// page that is gone. Telling the two apart takes a system call, a third of the time of the fault itself, so it is
    /// made at the first call of this function.
    pub fn cause(&self) -> Cause {
        let ask = || if poisoned(self.address, self.side) { Cause::Poison } else { Cause::Gone };
        *self.cause.get_or_init(ask)
    }

    /// Extends the record to all of a mapping that lies behind the end of its truncated file: that is one extent, not
    /// one fault a page. Looking the mapping up in `/proc` takes 100 microseconds or more, so it is done only if
    /// `rest`, the bytes that the copy still had to do, is long.
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

/// From this many bytes on, `Fault::reach` looks up how far a mapping is gone. Faulting through that many bytes page by
/// page takes longer.
const LOOK_UP: usize = 256 << 10;

pub(super) const SEGV_MAPERR: i32 = 1;
pub(super) const SEGV_ACCERR: i32 = 2;
const SEGV_PKUERR: i32 = 4;
const SI_KERNEL: i32 = 0x80;

/// Whether the kernel handles memory failures. Then it signals poison with a code of its own, and otherwise with that
/// of a page that is gone.
pub(super) fn signals_poison() -> bool {
    static HANDLED: OnceLock<bool> = OnceLock::new();
    *HANDLED.get_or_init(|| Path::new("/proc/sys/vm/memory_failure_early_kill").exists())
}

/// Whether the kernel knows that the page is poisoned. The question does not touch the page.
fn poisoned(page: usize, side: Side) -> bool {
    memory::populate(page, 1, side == Side::Destination) == Err(libc::EHWPOISON)
}
