//! The signal handler: after a fault in a guarded access the thread goes on at the fixup; every other signal is passed
//! to the handler that was there before.
//!
//! It decides by the instruction pointer and the signal's code. It allocates nothing, takes no lock, calls no Python,
//! returns normally, and preserves errno. SIGBUS and SIGSEGV are installed, saved and checked independently.

use super::arrival::Arrival;
use super::delegate;
use super::dispositions::{Action, current, replace};
use super::predecessors::{LEVELS, Predecessors};
use super::shelter::{BusError, absorb};
use super::threads;
use crate::arch::FaultKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The two signals a bad access raises.
pub const SIGNALS: [i32; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// The handlers that ours replaced, of each signal.
static PREDECESSORS: [Predecessors; 2] = [const { Predecessors::new() }; 2];

/// The number of faults recovered so far in this process.
static RECOVERED: AtomicU64 = AtomicU64::new(0);

/// Faults recovered so far in this process.
pub fn recovered() -> u64 {
    RECOVERED.load(Ordering::Relaxed)
}

/// Who handles a signal now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// This library, with the flags it needs.
    Ours,
    /// Nobody: the default action applies.
    Default,
    /// Nobody: the signal is ignored.
    Ignored,
    /// Another handler.
    Foreign,
}

type HandlerFn = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// The handler at each of its addresses, by level.
static ENTRIES: [HandlerFn; LEVELS] = [
    on_signal::<0>,
    on_signal::<1>,
    on_signal::<2>,
    on_signal::<3>,
    on_signal::<4>,
    on_signal::<5>,
    on_signal::<6>,
    on_signal::<7>,
    on_signal::<8>,
    on_signal::<9>,
    on_signal::<10>,
    on_signal::<11>,
    on_signal::<12>,
    on_signal::<13>,
    on_signal::<14>,
    on_signal::<15>,
];

fn address(entry: HandlerFn) -> libc::sighandler_t {
    entry as *const () as libc::sighandler_t
}

/// The level whose entry is the handler of an action; `None` if the handler is not ours.
fn level(action: Action) -> Option<usize> {
    let has_info = action.flags & libc::SA_SIGINFO != 0;
    ENTRIES.iter().position(|entry| has_info && address(*entry) == action.handler)
}

/// The predecessors of one of our two signals.
fn predecessors(signal: i32) -> Option<&'static Predecessors> {
    SIGNALS.iter().position(|known| *known == signal).map(|index| &PREDECESSORS[index])
}

/// Who handles the signal now.
pub fn owner(signal: i32) -> Owner {
    let action = current(signal);
    match action.handler {
        libc::SIG_DFL => Owner::Default,
        libc::SIG_IGN => Owner::Ignored,
        _ if level(action).is_some() => Owner::Ours,
        _ => Owner::Foreign,
    }
}

/// Whether our handler is installed for both signals.
pub fn is_installed() -> bool {
    SIGNALS.iter().all(|signal| owner(*signal) == Owner::Ours)
}

/// Whether a thread is installing or uninstalling. It is not a mutex, because a forked child must be able to reset it.
static CHANGING: AtomicBool = AtomicBool::new(false);

pub(super) fn unlock_after_fork() {
    CHANGING.store(false, Ordering::Release);
}

/// Runs a change of the handlers, one thread at a time.
fn change<R>(run: impl FnOnce() -> R) -> R {
    while CHANGING.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    let result = run();
    CHANGING.store(false, Ordering::Release);
    result
}

/// The reason, in words, for which [`install`] fails. A sanitizer does this, and a filter of system calls may.
pub const KEPT_FROM: &str = "something in this process keeps others from handling SIGBUS and SIGSEGV";

/// Installs our handler for both signals, and remembers the handlers it replaces. `false` if it could not be installed.
pub fn install() -> bool {
    // The handler may need these values, and must not determine them itself.
    super::prepare();
    change(|| {
        let installed = SIGNALS.iter().zip(&PREDECESSORS).all(|(signal, below)| install_one(*signal, below));
        installed && is_installed()
    })
}

fn install_one(signal: i32, predecessors: &Predecessors) -> bool {
    let mut below = current(signal);
    while level(below).is_none() {
        // The predecessor is remembered before the handler is installed, since the handler may run at once.
        let at = predecessors.remember(below);
        // SA_ONSTACK: a stack overflow faults, too, and then there is room only on the thread's alternate stack.
        // SA_NODEFER: faults inside a handler below must reach us as well.
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        match replace(signal, Action { handler: address(ENTRIES[at]), flags, mask: 0 }) {
            None => return false,
            Some(replaced) if replaced == below => return true,
            // Another thread has installed a handler since `below` was read. Ours has replaced it, so remember that
            // one.
            Some(replaced) => below = replaced,
        }
    }
    true
}

/// Restores the earlier handler of each signal whose handler is ours. Leaves alone a signal that somebody else has
/// taken over.
pub fn uninstall() {
    change(|| {
        for (signal, predecessors) in SIGNALS.into_iter().zip(&PREDECESSORS) {
            if let Some(at) = level(current(signal)) {
                replace(signal, predecessors.below(at));
            }
        }
    });
}

extern "C" fn on_signal<const LEVEL: usize>(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the function has no preconditions; it returns the address of this thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: `__errno_location` returned the address of this thread's errno, which is valid as long as the thread
    // runs.
    let saved = unsafe { *errno };
    // SAFETY: the pointers come from the kernel, or from a handler above ours that passes on its own: those of the
    // kernel, or null if it has no SA_SIGINFO.
    handle(&unsafe { Arrival::new(LEVEL, signal, info, context) });
    // SAFETY: `__errno_location` returned the address of this thread's errno, which is valid as long as the thread
    // runs.
    unsafe { *errno = saved };
}

/// Handles a signal by the first of these that applies.
fn handle(arrival: &Arrival) {
    let _ = resume_copy(arrival) || shelter_code(arrival) || drop_raised_again(arrival) || hand_on(arrival);
}

/// Handles a fault in a guarded access: the thread goes on at its fixup.
fn resume_copy(arrival: &Arrival) -> bool {
    let resumed = arrival.resume();
    if resumed {
        RECOVERED.fetch_add(1, Ordering::Relaxed);
    }
    resumed
}

/// A load or store of code that is not ours, under a guard: goes on over zeroes. Not an instruction that cannot be
/// fetched: it would be zeroes that run.
fn shelter_code(arrival: &Arrival) -> bool {
    let kind = arrival.kind().filter(|kind| arrival.signal == libc::SIGBUS && *kind != FaultKind::Execute);
    let is_sheltered = kind.is_some_and(|kind| {
        let (address, code, lsb) = (arrival.address(), arrival.code(), arrival.lsb());
        absorb(BusError { address, code, lsb, is_store: kind == FaultKind::Write })
    });
    if is_sheltered {
        RECOVERED.fetch_add(1, Ordering::Relaxed);
    }
    is_sheltered
}

/// Drops a signal that a thread raised while it is inside a copy. A handler above ours has taken the copy's fault for a
/// crash, restored ours and raised the signal again. When it returns, the access runs again and faults, and that fault
/// reaches us.
fn drop_raised_again(arrival: &Arrival) -> bool {
    arrival.is_raised() && threads::is_active()
}

/// Passes any other signal to the handler below ours.
fn hand_on(arrival: &Arrival) -> bool {
    if let Some(predecessors) = predecessors(arrival.signal) {
        delegate::hand_on(arrival, predecessors, level);
    }
    true
}
