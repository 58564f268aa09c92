//! What the kernel does on a signal: asked and set, one signal at a time.

use std::ptr;

/// What the kernel does on a signal: `struct sigaction`, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Action {
    pub(super) handler: libc::sighandler_t,
    pub(super) flags: i32,
    /// The signals that are blocked meanwhile, one bit each.
    pub(super) mask: u64,
}

impl Action {
    /// `SIG_DFL`.
    pub(super) const DEFAULT: Self = Self { handler: libc::SIG_DFL, flags: 0, mask: 0 };
}

/// Who handles the signal now, as the kernel tells.
pub(super) fn current(signal: i32) -> Action {
    let mut action = empty();
    // SAFETY: a null new action only asks; `action` is ours to fill.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    from_libc(&action)
}

/// Sets who handles the signal, and tells who did; `None` if the kernel refuses.
pub(super) fn replace(signal: i32, action: Action) -> Option<Action> {
    let mut new = empty();
    new.sa_sigaction = action.handler;
    new.sa_flags = action.flags;
    new.sa_mask = mask_to_libc(action.mask);
    let mut old = empty();
    // SAFETY: the handler is ours, which is async-signal-safe, as the module says, or one that sigaction gave us; both
    // structs are ours.
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

/// The kernel has 64 signals; the C library's set has room for more, behind those.
fn mask_from_libc(set: &libc::sigset_t) -> u64 {
    const { assert!(size_of::<libc::sigset_t>() >= size_of::<u64>()) };
    // SAFETY: a set is plain bits, at least 64 of them, in words of 64.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}

/// The set of those signals.
pub(super) fn mask_to_libc(mask: u64) -> libc::sigset_t {
    // SAFETY: a set is plain bits, for which zeroes are valid.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a set is plain bits, at least 64 of them, as `mask_from_libc` asserts; this one is ours.
    unsafe { (&raw mut set).cast::<u64>().write(mask) };
    set
}
