//! A signal that one of our handler's entries was called with, and what its `siginfo` and context say.

use crate::arch::{self, FaultKind};

/// The arguments of a call of our handler.
pub(super) struct Arrival {
    /// The level of the entry that was called.
    pub(super) level: usize,
    pub(super) signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
}

impl Arrival {
    /// # Safety
    /// Until the value is dropped, `info` and `context` are what the kernel passed to the `SA_SIGINFO` handler of this
    /// signal that is running in this thread, or null.
    pub(super) unsafe fn new(
        level: usize,
        signal: i32,
        info: *mut libc::siginfo_t,
        context: *mut libc::c_void,
    ) -> Self {
        Self { level, signal, info, context }
    }

    /// The pointers that the handler was called with.
    pub(super) fn pointers(&self) -> (*mut libc::siginfo_t, *mut libc::c_void) {
        (self.info, self.context)
    }

    /// The `siginfo`. `None` if a handler above ours called us without one, or without a context.
    fn info(&self) -> Option<&libc::siginfo_t> {
        // SAFETY: by `new`'s contract the pointer is null or to the `siginfo` that the kernel passed.
        unsafe { self.info.as_ref() }.filter(|_| !self.context.is_null())
    }

    /// The signal's `si_code`. 0, as of a signal that was sent, if it is not known.
    pub(super) fn code(&self) -> i32 {
        self.info().map_or(0, |info| info.si_code)
    }

    /// Whether the interrupted instruction raised the signal, so that it runs again when the handler returns.
    /// `BUS_MCEERR_AO` reports damaged memory elsewhere, and is not caused by the instruction that it interrupts.
    pub(super) fn is_fault(&self) -> bool {
        let code = self.code();
        code > 0 && !(self.signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO)
    }

    /// Whether a thread of this process sent the signal to a thread, as `raise` does.
    pub(super) fn is_raised(&self) -> bool {
        const SI_TKILL: i32 = -6;
        // SAFETY: the kernel fills the sender's pid of a signal with code SI_TKILL, for which alone this is called.
        let sender = |info: &libc::siginfo_t| unsafe { info.si_pid() };
        let by_kill = self.info().filter(|info| info.si_code == SI_TKILL);
        by_kill.map(sender) == Some(std::process::id().cast_signed())
    }

    /// The address that a fault reports; 0 if it is not known.
    pub(super) fn address(&self) -> usize {
        // SAFETY: `siginfo_t` has an address for SIGBUS and SIGSEGV; for a signal that is no fault the bytes there mean
        // something else, and any value is valid for them.
        self.info().map_or(0, |info| unsafe { info.si_addr() }.addr())
    }

    /// Log2 of the length, in bytes, of the extent that a fault reports; 0 if it reports none.
    pub(super) fn lsb(&self) -> u32 {
        self.info().map_or(0, |info| arch::extent(info).into())
    }

    /// The access that the faulting instruction made; `None` if the signal is not a fault.
    pub(super) fn kind(&self) -> Option<FaultKind> {
        // SAFETY: a fault's code was read from a siginfo, and `info` gives none without a context beside it: the
        // kernel's, for this fault, as the caller of `new` promises.
        self.is_fault().then(|| unsafe { arch::fault_kind(self.context) })
    }

    /// A hash of the registers of the interrupted code; 0 if they are not known.
    pub(super) fn state(&self) -> u64 {
        if self.context.is_null() {
            return 0;
        }
        // SAFETY: the context is not null, so by `new`'s contract it is what the kernel passed.
        unsafe { arch::state(self.context) }
    }

    /// If the signal is the fault of a guarded access, makes the thread go on at its fixup and returns true.
    pub(super) fn resume(&self) -> bool {
        // SAFETY: a fault's code was read from a siginfo, and `info` gives none without a context beside it: both are
        // the kernel's, for this fault, as the caller of `new` promises.
        self.is_fault() && unsafe { arch::resume(self.signal, self.info, self.context) }
    }
}
