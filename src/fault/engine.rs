//! Whether a copy may fault: who owns the signals, and what to do when we cannot.
//!
//! Asking the kernel who owns two signals and what this thread blocks costs three system calls, many times a 64-byte copy.
//! So it is asked where the answer matters: before every copy of memory that can go away, and again after every
//! [`ASK_EVERY`] bytes of it. For the interpreter's own memory, which only failing hardware can take away, an answer is good
//! for [`KEEP`] copies of a thread, or until the mode changes or a fork.

use super::handler::{self, SIGNALS};
use super::threads::{self, Seat};
use crate::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, Ordering};

/// How faults are met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// By the signal handler where it can be had, by system calls otherwise.
    Auto,
    /// By the signal handler, or the copy is refused.
    Signal,
    /// By system calls; nothing is ever installed.
    Syscall,
}

static MODE: AtomicU8 = AtomicU8::new(Mode::Auto as u8);
/// Counted up when kept answers are worth nothing any more, among others when the mode changes. Never 0.
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// How faults are met.
pub fn mode() -> Mode {
    match MODE.load(Ordering::Relaxed) {
        0 => Mode::Auto,
        1 => Mode::Signal,
        _ => Mode::Syscall,
    }
}

/// Meets faults another way from now on, in all threads.
pub fn set_mode(mode: Mode) {
    MODE.store(mode as u8, Ordering::Relaxed);
    forget();
}

/// Has every thread ask before its next copy.
pub fn forget() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
}

/// How settled the memory of a copy is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Care {
    /// The interpreter's own: only failing hardware can take it away.
    Settled,
    /// It can go away: a mapped file, a shared segment, a raw address.
    Prone,
}

/// Copies of settled memory for which one answer is good.
const KEEP: u32 = 1024;

/// Clock ticks for which a vouched answer is good: about ten microseconds.
const VOUCHED: u64 = 1 << 15;

/// Clock ticks that installing a handler from Python takes at the very least: under half a microsecond.
const UNCHANGED: u64 = 1200;

/// A copy of memory that can go away asks again after so many bytes.
pub const ASK_EVERY: usize = 4 << 20;

/// What a copy looks at. Nothing in it has to be dropped, so that it is at hand without a question.
struct Thread {
    /// The seat's flag and this thread's id, to be at hand.
    flag: Cell<&'static AtomicI32>,
    tid: Cell<i32>,
    epoch: Cell<u32>,
    kept: Cell<u32>,
    /// When the kernel was last asked, and what the caller knew then.
    asked: Cell<u64>,
    witness: Cell<usize>,
    /// What the caller knows now; 0 if nothing.
    vouched: Cell<usize>,
    /// The last it knew, and when.
    last: Cell<(usize, u64)>,
}

/// A thread's seat. One that ends gives it back, and every answer with it.
struct Seated(Seat);

impl Drop for Seated {
    fn drop(&mut self) {
        let _ = THREAD.try_with(|thread| {
            thread.epoch.set(0);
            thread.flag.set(&NO_SEAT);
        });
    }
}

static NO_SEAT: AtomicI32 = AtomicI32::new(0);

thread_local! {
    static SEAT: RefCell<Option<Seated>> = const { RefCell::new(None) };
    static THREAD: Thread = const {
        Thread {
            flag: Cell::new(&NO_SEAT),
            tid: Cell::new(0),
            epoch: Cell::new(0),
            kept: Cell::new(0),
            asked: Cell::new(0),
            witness: Cell::new(0),
            vouched: Cell::new(0),
            last: Cell::new((0, 0)),
        }
    };
}

/// How a copy is to touch memory.
pub enum Way {
    /// Directly: a fault is recovered by the handler while the guard lives.
    Direct(Armed),
    /// Directly: the memory is settled and the handler cannot be had, so it is as safe as any other copy.
    Bare,
    /// Through system calls.
    Syscalls,
}

/// This thread is inside a copy.
pub struct Armed(&'static AtomicI32);

impl Armed {
    fn new(thread: &Thread) -> Self {
        let flag = thread.flag.get();
        flag.store(thread.tid.get(), Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Decides how a copy is to touch its memory, and arms this thread if directly.
#[inline(always)]
#[allow(clippy::inline_always)] // a few loads, ahead of every copy
pub fn enter(care: Care) -> Result<Way> {
    let kept = THREAD.try_with(|thread| {
        let kept = thread.kept.get();
        if care == Care::Settled && kept > 0 && thread.epoch.get() == EPOCH.load(Ordering::Relaxed) {
            thread.kept.set(kept - 1);
            return Some(Armed::new(thread));
        }
        None
    });
    match kept {
        Ok(Some(armed)) => Ok(Way::Direct(armed)),
        _ => find_way(care),
    }
}

#[inline(never)]
fn find_way(care: Care) -> Result<Way> {
    let mode = mode();
    if mode == Mode::Syscall || !cfg!(target_arch = "x86_64") {
        return Ok(if care == Care::Prone { Way::Syscalls } else { Way::Bare });
    }
    let direct = THREAD.try_with(|thread| {
        if care == Care::Settled {
            return ask(thread);
        }
        let known = thread.vouched.get();
        if is_fresh(thread) {
            return Ok(Armed::new(thread));
        }
        let armed = ask(thread)?;
        thread.witness.set(known);
        thread.asked.set(ticks());
        Ok(armed)
    });
    match direct {
        Ok(Ok(armed)) => Ok(Way::Direct(armed)),
        Ok(Err(reason)) if mode == Mode::Signal => Err(Error::Handler(reason)),
        _ if care == Care::Prone => Ok(Way::Syscalls),
        _ => Ok(Way::Bare),
    }
}

/// States what the caller knows of the handlers for its next copy: a number that changes whenever its own runtime installs one. While it
/// is what it was when the kernel was asked, that answer is good for [`VOUCHED`] ticks also for memory that can go away.
pub fn vouch(witness: usize) {
    let _ = THREAD.try_with(|thread| {
        thread.vouched.set(witness);
        thread.last.set((witness, ticks()));
    });
}

/// States again what was stated less than [`UNCHANGED`] ticks ago, in which nobody can have installed anything. `false` if it was longer.
pub fn vouch_again() -> bool {
    let again = THREAD.try_with(|thread| {
        let (witness, when) = thread.last.get();
        let recent = ticks().wrapping_sub(when) < UNCHANGED;
        thread.vouched.set(if recent { witness } else { 0 });
        recent
    });
    again.unwrap_or(false)
}

/// Whether the last answer is still good for memory that can go away.
fn is_fresh(thread: &Thread) -> bool {
    let vouched = thread.vouched.replace(0);
    vouched != 0
        && vouched == thread.witness.get()
        && thread.epoch.get() == EPOCH.load(Ordering::Relaxed)
        && ticks().wrapping_sub(thread.asked.get()) < VOUCHED
}

/// The clock that costs nothing to read.
fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and it touches no memory.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

/// Still so? To be asked in between, in a long copy.
pub fn is_still_ours() -> bool {
    blocked_signal().is_none() && (handler::is_installed() || handler::install())
}

#[cold]
fn ask(thread: &Thread) -> std::result::Result<Armed, &'static str> {
    thread.kept.set(0);
    if let Some(reason) = blocked_signal() {
        return Err(reason);
    }
    if !handler::is_installed() && !handler::install() {
        return Err("somebody keeps others from handling SIGBUS and SIGSEGV");
    }
    threads::watch_forks();
    let seated = SEAT.try_with(|seat| {
        let mut seat = seat.borrow_mut();
        if !seat.as_ref().is_some_and(|seated| seated.0.is_current()) {
            let taken = Seat::take();
            let flag = taken.flag().unwrap_or(&NO_SEAT);
            *seat = Some(Seated(taken));
            thread.flag.set(flag);
            thread.tid.set(threads::current_tid());
        }
    });
    if seated.is_err() {
        return Err("this thread is ending");
    }
    thread.epoch.set(EPOCH.load(Ordering::Relaxed));
    thread.kept.set(KEEP);
    Ok(Armed::new(thread))
}

/// A fault whose signal is blocked kills at once, handler or not.
fn blocked_signal() -> Option<&'static str> {
    // SAFETY: a sigset is plain bits, for which zeroes are valid.
    let mut blocked: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a null new mask only asks; `blocked` is ours to fill.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked) };
    let names = ["SIGBUS is blocked in this thread", "SIGSEGV is blocked in this thread"];
    // SAFETY: `blocked` was just filled; the signals exist.
    let is_blocked = |signal: i32| unsafe { libc::sigismember(&raw const blocked, signal) } == 1;
    SIGNALS.into_iter().zip(names).find(|(signal, _)| is_blocked(*signal)).map(|(_, name)| name)
}
