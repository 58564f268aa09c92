//! The signal handler: resumes a guarded access at its fixup, hands everything else on to whoever was there before.
//!
//! What it decides by: the instruction pointer and the signal's code. It allocates nothing, takes no lock, calls no
//! Python and jumps nowhere but back; it preserves errno. SIGBUS and SIGSEGV are each installed, saved and checked on
//! their own.

use super::delegate;
use super::predecessors::{Action, LEVELS, Predecessors};
use super::shelter::{self, Met};
use super::threads;
use crate::arch::{self, FaultKind};
use std::ptr;
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
pub(super) fn level(action: Action) -> Option<usize> {
    let has_info = action.flags & libc::SA_SIGINFO != 0;
    ENTRIES.iter().position(|entry| has_info && address(*entry) == action.handler)
}

/// The predecessors of one of our two signals.
pub(super) fn predecessors(signal: i32) -> Option<&'static Predecessors> {
    SIGNALS.iter().position(|known| *known == signal).map(|index| &PREDECESSORS[index])
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
    handle(&Arrival { level: LEVEL, signal, info, context });
    // SAFETY: `__errno_location` returns this thread's errno, which is there as long as the thread.
    unsafe { *errno = saved };
}

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
    fn info(&self) -> Option<&libc::siginfo_t> {
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

/// What is done about a signal: the first of these that applies.
fn handle(arrival: &Arrival) {
    let _ = resume_copy(arrival) || shelter_code(arrival) || drop_raised_again(arrival) || delegate::hand_on(arrival);
}

/// A fault in a guarded access of a copy: goes on at its fixup.
fn resume_copy(arrival: &Arrival) -> bool {
    // SAFETY: the kernel passes its siginfo and context to an SA_SIGINFO handler, as does whoever calls us in its
    // place.
    let resumed = arrival.is_fault() && unsafe { arch::resume(arrival.signal, arrival.info, arrival.context) };
    if resumed {
        RECOVERED.fetch_add(1, Ordering::Relaxed);
    }
    resumed
}

/// A load or store of code that is not ours, under a guard: goes on over zeroes. Not an instruction that cannot be
/// fetched: it would be zeroes that run.
fn shelter_code(arrival: &Arrival) -> bool {
    let Some(info) = arrival.info().filter(|_| arrival.signal == libc::SIGBUS && arrival.is_fault()) else {
        return false;
    };
    // SAFETY: `info` only returns one that came with the interrupted context.
    let kind = unsafe { arch::fault_kind(arrival.context) };
    let (address, code, lsb) = (arrival.address(), arrival.code(), arch::extent(info).into());
    let is_sheltered =
        kind != FaultKind::Execute && shelter::absorb(Met { address, code, lsb, is_store: kind == FaultKind::Write });
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
