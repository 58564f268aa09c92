//! Reads and sets the action that the kernel takes on a signal.

use std::ptr;

/// The action on a signal: the parts of `struct sigaction` that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Action {
    pub(super) handler: libc::sighandler_t,
    pub(super) flags: i32,
    /// The signals that are blocked while the handler runs, one bit each.
    pub(super) mask: u64,
}

impl Action {
    /// `SIG_DFL`.
    pub(super) const DEFAULT: Self = Self { handler: libc::SIG_DFL, flags: 0, mask: 0 };
}

/// The current action on the signal.
pub(super) fn current(signal: i32) -> Action {
    let mut action = empty();
    // SAFETY: with a null new action the call changes nothing; it fills `action`, a local.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    from_libc(&action)
}

/// Sets the action on the signal, and returns the one before; `None` if the kernel refuses.
pub(super) fn replace(signal: i32, action: Action) -> Option<Action> {
    let mut new = empty();
    new.sa_sigaction = action.handler;
    new.sa_flags = action.flags;
    new.sa_mask = mask_to_libc(action.mask);
    let mut old = empty();
    // SAFETY: both structs are locals. Callers pass the default action, a handler that `sigaction` once returned, or
    // our `on_signal`, which is async-signal-safe.
    let result = unsafe { libc::sigaction(signal, &raw const new, &raw mut old) };
    (result == 0).then(|| from_libc(&old))
}

fn empty() -> libc::sigaction {
    // SAFETY: sigaction is a C struct of integers and an optional function pointer; all zeroes are valid.
    unsafe { std::mem::zeroed() }
}

fn from_libc(action: &libc::sigaction) -> Action {
    Action { handler: action.sa_sigaction, flags: action.sa_flags, mask: mask_from_libc(&action.sa_mask) }
}

/// The first 64 bits of a signal set. The kernel has 64 signals; the C library's set is longer, and the rest unused.
fn mask_from_libc(set: &libc::sigset_t) -> u64 {
    const { assert!(size_of::<libc::sigset_t>() >= size_of::<u64>()) };
    // SAFETY: the set is an array of words of 64 bits, and at least one of them, as asserted above.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}

/// The signal set with these 64 bits.
pub(super) fn mask_to_libc(mask: u64) -> libc::sigset_t {
    // SAFETY: a set is an array of integers, for which all zeroes are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a local array of words of 64 bits, and at least one of them, as `mask_from_libc` asserts.
    unsafe { (&raw mut set).cast::<u64>().write(mask) };
    set
}
