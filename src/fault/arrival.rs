//! A signal as it came to one of our handler's addresses: what it says about itself.

/// A signal as it came.
pub(super) struct Arrival {
    /// The level of the entry that was called.
    pub(super) level: usize,
    pub(super) signal: i32,
    pub(super) info: *mut libc::siginfo_t,
    pub(super) context: *mut libc::c_void,
}

impl Arrival {
    /// `None` if a handler above us that got none itself chained to us, without the interrupted context then.
    pub(super) fn info(&self) -> Option<&libc::siginfo_t> {
        // SAFETY: the kernel passes a filled siginfo to an SA_SIGINFO handler, as does whoever calls us in its place,
        // or null.
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
}
