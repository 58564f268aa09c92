//! A signal as it came to one of our handler's addresses: what it says about itself.

use crate::arch::{self, FaultKind};

/// A signal as it came.
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

    /// What the handler was called with.
    pub(super) fn pointers(&self) -> (*mut libc::siginfo_t, *mut libc::c_void) {
        (self.info, self.context)
    }

    /// `None` if a handler above us that got none itself chained to us, without the interrupted context then.
    fn info(&self) -> Option<&libc::siginfo_t> {
        // SAFETY: null, or the siginfo that the kernel filled: the caller of `new` promises it.
        unsafe { self.info.as_ref() }.filter(|_| !self.context.is_null())
    }

    /// The signal's code; 0, as of one that was sent, if nobody tells.
    pub(super) fn code(&self) -> i32 {
        self.info().map_or(0, |info| info.si_code)
    }

    /// Whether the interrupted instruction raised it, so that returning runs it again. A report of damage somewhere
    /// else (`BUS_MCEERR_AO`) is no fault of the instruction it happens to interrupt.
    pub(super) fn is_fault(&self) -> bool {
        let code = self.code();
        code > 0 && !(self.signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO)
    }

    /// Whether a thread of this process sent it, to a thread: by `raise`, among others.
    pub(super) fn is_raised(&self) -> bool {
        const SI_TKILL: i32 = -6;
        // SAFETY: a signal that was sent has the field.
        let sender = |info: &libc::siginfo_t| unsafe { info.si_pid() };
        let by_kill = self.info().filter(|info| info.si_code == SI_TKILL);
        by_kill.map(sender) == Some(std::process::id().cast_signed())
    }

    /// The address of a fault.
    pub(super) fn address(&self) -> usize {
        // SAFETY: SIGBUS and SIGSEGV that are faults fill the address.
        self.info().map_or(0, |info| unsafe { info.si_addr() }.addr())
    }

    /// Log2 of the extent that a fault tells of; 0 if it does not.
    pub(super) fn lsb(&self) -> u32 {
        self.info().map_or(0, |info| arch::extent(info).into())
    }

    /// What the instruction was doing whose fault it is; `None` if it is none.
    pub(super) fn kind(&self) -> Option<FaultKind> {
        // SAFETY: a fault's code was read from a siginfo, and `info` gives none without a context beside it: the
        // kernel's, for this fault, as the caller of `new` promises.
        self.is_fault().then(|| unsafe { arch::fault_kind(self.context) })
    }

    /// A number that stands for the registers of the interrupted code; 0 if nobody tells.
    pub(super) fn state(&self) -> u64 {
        if self.context.is_null() {
            return 0;
        }
        // SAFETY: it is not null, and so the kernel's, as the caller of `new` promises.
        unsafe { arch::state(self.context) }
    }

    /// Goes on at the fixup, if it is the fault of a guarded access.
    pub(super) fn resume(&self) -> bool {
        // SAFETY: a fault's code was read from a siginfo, and `info` gives none without a context beside it: both are
        // the kernel's, for this fault, as the caller of `new` promises.
        self.is_fault() && unsafe { arch::resume(self.signal, self.info, self.context) }
    }
}
