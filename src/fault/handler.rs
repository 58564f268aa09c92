//! The signal handler: resumes a guarded access at its fixup, hands everything else on to whoever was there before.
//!
//! What it decides by: the instruction pointer and the signal's code. It allocates nothing, takes no lock, calls no
//! Python and jumps nowhere but back; it preserves errno. SIGBUS and SIGSEGV are each installed, saved and checked on
//! their own.

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

/// Who was there before us, per signal.
static PREDECESSORS: [Predecessors; 2] = [const { Predecessors::new() }; 2];

/// Faults recovered so far in this process.
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
    /// Nobody: the default action.
    Default,
    /// It is ignored.
    Ignored,
    /// Somebody else.
    Foreign,
}

type HandlerFn = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);

/// The handler under each of its addresses.
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

/// The level whose entry an action is.
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

/// Whether both signals are ours.
pub fn is_installed() -> bool {
    SIGNALS.iter().all(|signal| owner(*signal) == Owner::Ours)
}

/// Whether a thread is installing or uninstalling. Not a mutex: a child forked meanwhile opens it again.
static CHANGING: AtomicBool = AtomicBool::new(false);

pub(super) fn unlock_after_fork() {
    CHANGING.store(false, Ordering::Release);
}

/// Installs or uninstalls, one thread at a time.
fn change<R>(run: impl FnOnce() -> R) -> R {
    while CHANGING.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    let result = run();
    CHANGING.store(false, Ordering::Release);
    result
}

/// Why our handler cannot be had, if [`install`] says so: a sanitizer does that, and a filter of system calls may.
pub const KEPT_FROM: &str = "something in this process keeps others from handling SIGBUS and SIGSEGV";

/// Puts our handler on top for both signals and remembers what was there. `false` if it could not be had.
pub fn install() -> bool {
    // Found out here, because the handler may have to know.
    super::prepare();
    change(|| {
        let installed = SIGNALS.iter().zip(&PREDECESSORS).all(|(signal, below)| install_one(*signal, below));
        installed && is_installed()
    })
}

fn install_one(signal: i32, predecessors: &Predecessors) -> bool {
    let mut below = current(signal);
    while level(below).is_none() {
        // Remembered first: the handler may run as soon as it is there.
        let at = predecessors.remember(below);
        // On the thread's alternate stack if it has one: a stack overflow passes through here on its way to a handler
        // below.
        let flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        match replace(signal, Action { handler: address(ENTRIES[at]), flags, mask: 0 }) {
            None => return false,
            Some(replaced) if replaced == below => return true,
            // Somebody came between the question and the answer, and is below us now.
            Some(replaced) => below = replaced,
        }
    }
    true
}

/// Puts back what was there, for each signal that is still ours; one that somebody else took over is left alone.
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
    // SAFETY: the address of the thread's own errno is valid.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: `__errno_location` returns this thread's errno, which is there as long as the thread.
    let saved = unsafe { *errno };
    // SAFETY: the kernel calls it with these, or a handler that was put above it does, and passes on what it got
    // itself: null if it has no `SA_SIGINFO`.
    handle(&unsafe { Arrival::new(LEVEL, signal, info, context) });
    // SAFETY: `__errno_location` returns this thread's errno, which is there as long as the thread.
    unsafe { *errno = saved };
}

/// What is done about a signal: the first of these that applies.
fn handle(arrival: &Arrival) {
    let _ = resume_copy(arrival) || shelter_code(arrival) || drop_raised_again(arrival) || hand_on(arrival);
}

/// A fault in a guarded access of a copy: goes on at its fixup.
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

/// Somebody above us took a copy's fault for a crash, put us back and raises it again: running the access again brings
/// the real one.
fn drop_raised_again(arrival: &Arrival) -> bool {
    arrival.is_raised() && threads::is_active()
}

/// Anything else: goes to whoever was below us.
fn hand_on(arrival: &Arrival) -> bool {
    if let Some(predecessors) = predecessors(arrival.signal) {
        delegate::hand_on(arrival, predecessors, level);
    }
    true
}
