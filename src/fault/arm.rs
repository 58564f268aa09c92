//! Whether a copy may fault: who owns the signals, and what to do when we cannot.
//!
//! Asking the kernel who owns two signals and what this thread blocks takes three system calls, many times a 64-byte
//! copy. So an answer is used again: how often is decided in [`super::freshness`]. docs/faults.md has the guarantee as
//! a table.

use super::freshness::Freshness;
use super::handler::{self, SIGNALS};
use super::shelter::{is_any, is_idle};
use super::threads::{self, Slot, SlotGuard};
use crate::arch::{self, ticks};
use crate::error::{Error, Result};
use crate::memory::Backing;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, compiler_fence};

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

/// Whether the handler is being taken away.
static LEAVING: AtomicBool = AtomicBool::new(false);

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
    invalidate_all();
}

/// Gives the signals back to whoever had them before, when no copy needs them any more. Refused while a guard does.
pub fn uninstall() -> Result<()> {
    LEAVING.store(true, Ordering::SeqCst);
    // A guard that begins now finds that the handler is leaving.
    if is_any() {
        LEAVING.store(false, Ordering::SeqCst);
        return Err(Error::Handler("a guard is entered, which needs it: it cannot be uninstalled"));
    }
    invalidate_all();
    threads::order_all_threads();
    while threads::is_another_active() {
        std::thread::yield_now();
    }
    handler::uninstall();
    LEAVING.store(false, Ordering::SeqCst);
    Ok(())
}

/// Clock ticks that asking for this thread's signal mask has taken at the least: no system call that changes anything
/// about its signals takes less. Kept by all threads together; `u64::MAX` until the first has asked.
static QUICKEST_CALL: AtomicU64 = AtomicU64::new(u64::MAX);

/// Bytes of memory that can vanish after which a copy asks again.
pub const RECHECK_EVERY: usize = 4 << 20;

/// What every copy looks at: plain cells, which are reached without asking whether the thread is ending.
struct Thread {
    /// Its slot and its id, to be at hand.
    slot: Cell<&'static Slot>,
    tid: Cell<i32>,
    /// In which epoch the kernel answered.
    epoch: Cell<u32>,
    freshness: Freshness,
}

/// Shared by whoever has no slot, and by copies that nobody has to know of.
static NO_SLOT: Slot = Slot::new();

thread_local! {
    static THREAD: Thread = const {
        Thread { slot: Cell::new(&NO_SLOT), tid: Cell::new(0), epoch: Cell::new(0), freshness: Freshness::new() }
    };
    static OWN_SLOT: RefCell<Option<OwnSlot>> = const { RefCell::new(None) };
}

/// A thread's slot, and the end of what the thread knew when it gives that back.
struct OwnSlot(SlotGuard);

impl Drop for OwnSlot {
    fn drop(&mut self) {
        THREAD.with(|thread| {
            thread.freshness.invalidate();
            thread.slot.set(&NO_SLOT);
        });
    }
}

/// How a copy is to touch memory.
pub enum Path {
    /// By the CPU: a fault is recovered by the handler while the guard lives. Where the handler cannot be had only heap
    /// memory is touched so, as safely as by any other copy.
    Direct(Armed),
    /// Through system calls.
    Syscalls,
}

/// This thread is inside a copy.
pub struct Armed {
    slot: &'static Slot,
    /// The epoch in which the copy began.
    epoch: u32,
}

impl Armed {
    fn new(thread: &Thread) -> Self {
        let slot = thread.slot.get();
        slot.mark_active(thread.tid.get());
        Self { slot, epoch: thread.epoch.get() }
    }

    /// Nobody has to know: there is no handler that would ask.
    fn unseen(epoch: u32) -> Self {
        Self { slot: &NO_SLOT, epoch }
    }

    /// The epoch in which the copy began. A guard that puts anything under zeroes begins another one before it does.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether it is the same epoch still: what was read until now was no guard's zeroes.
    #[inline]
    pub fn is_current(&self) -> bool {
        compiler_fence(Ordering::SeqCst);
        self.epoch == threads::epoch(Ordering::Acquire)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.slot.mark_active(0);
    }
}

/// Decides how a copy is to touch its memory, and arms this thread if directly.
#[inline(always)]
#[allow(clippy::inline_always)] // a few loads, ahead of every copy
pub fn arm(backing: Backing) -> Result<Path> {
    THREAD.with(|thread| {
        if thread.freshness.is_known() {
            // Armed first: who takes the handler away counts up the epoch and then looks for armed threads.
            let armed = Armed::new(thread);
            compiler_fence(Ordering::SeqCst);
            // An answer of this epoch was given in this mode, and not by system calls.
            if thread.epoch.get() == threads::epoch(Ordering::Acquire) {
                if backing == Backing::Heap {
                    thread.freshness.use_up();
                    return Ok(Path::Direct(armed));
                }
                if thread.freshness.is_good(ticks(), QUICKEST_CALL.load(Ordering::Relaxed)) {
                    return Ok(Path::Direct(armed));
                }
            }
        }
        arm_anew(thread, backing)
    })
}

#[cold]
fn arm_anew(thread: &Thread, backing: Backing) -> Result<Path> {
    loop {
        let epoch = threads::epoch(Ordering::SeqCst);
        // Zeroes that other code reads under a guard are not to be copied, and no fault tells of them.
        if !is_idle() {
            return Ok(Path::Syscalls);
        }
        let mode = mode();
        if mode == Mode::Syscall || !arch::RECOVERS {
            return Ok(without_handler(backing, epoch));
        }
        match ask(thread, epoch) {
            // Something changed meanwhile.
            Ok(_) if threads::epoch(Ordering::SeqCst) != epoch => {}
            Ok(armed) => {
                return Ok(Path::Direct(armed));
            }
            Err(reason) if mode == Mode::Signal => return Err(Error::Handler(reason)),
            Err(_) => return Ok(without_handler(backing, epoch)),
        }
    }
}

fn without_handler(backing: Backing, epoch: u32) -> Path {
    if backing.may_vanish() { Path::Syscalls } else { Path::Direct(Armed::unseen(epoch)) }
}

/// Tells that a copy of memory that can vanish has ended.
#[inline]
pub fn finish() {
    THREAD.with(|thread| thread.freshness.finish(ticks()));
}

/// Looks at the clock on a long way from one copy to the next: each part of it may be too short for a system call where
/// all of it is not.
#[inline]
pub fn extend() {
    THREAD.with(|thread| thread.freshness.extend(ticks(), QUICKEST_CALL.load(Ordering::Relaxed)));
}

/// Has this thread ask the kernel before its next copy: after a fault, or because the handler is lost.
#[cold]
pub fn invalidate() {
    THREAD.with(|thread| thread.freshness.invalidate());
}

/// Has every thread ask the kernel before its next copy.
pub fn invalidate_all() {
    let _ = threads::invalidate_all();
}

/// Has the handler be there for this thread, for whoever needs it and cannot do with system calls instead.
pub fn require_handler() -> Result<()> {
    let reason = match blocked_signal() {
        _ if mode() == Mode::Syscall => "the mode is \"syscall\"",
        _ if LEAVING.load(Ordering::SeqCst) => "it is being uninstalled",
        Some(reason) => reason,
        None if !handler::is_installed() && !handler::install() => handler::KEPT_FROM,
        None => return Ok(()),
    };
    Err(Error::Handler(reason))
}

/// Whether the faults of this thread still come to our handler, which goes on top again if it can. For long copies, in
/// between.
pub fn recheck() -> bool {
    blocked_signal().is_none() && (handler::is_installed() || handler::install())
}

/// Asks the kernel whether faults of this thread come to our handler. If they do, it is known from now on, in this
/// `epoch`.
fn ask(thread: &Thread, epoch: u32) -> std::result::Result<Armed, &'static str> {
    thread.freshness.invalidate();
    if LEAVING.load(Ordering::SeqCst) {
        return Err("it is being uninstalled");
    }
    if let Some(reason) = blocked_signal() {
        return Err(reason);
    }
    if !handler::is_installed() && !handler::install() {
        return Err(handler::KEPT_FROM);
    }
    let has_slot = OWN_SLOT.try_with(|own| {
        let mut own = own.borrow_mut();
        if !own.as_ref().is_some_and(|own| own.0.is_current()) {
            // The old one is given back before the new one is taken.
            *own = None;
            let taken = SlotGuard::take().ok_or("there is no memory to keep track of this thread")?;
            thread.slot.set(taken.slot());
            thread.tid.set(threads::current_tid());
            *own = Some(OwnSlot(taken));
        }
        Ok(())
    });
    has_slot.map_err(|_| "this thread is ending")??;
    thread.epoch.set(epoch);
    thread.freshness.answer(ticks());
    Ok(Armed::new(thread))
}

/// A fault whose signal is blocked kills at once, handler or not.
fn blocked_signal() -> Option<&'static str> {
    // SAFETY: a sigset is plain bits, for which zeroes are valid.
    let mut blocked: libc::sigset_t = unsafe { std::mem::zeroed() };
    // The first call of all may take many times as long as any other.
    let calls = if QUICKEST_CALL.load(Ordering::Relaxed) == u64::MAX { 8 } else { 1 };
    let timed = || {
        let before = ticks();
        // SAFETY: a null new mask only asks; `blocked` is ours to fill.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked) };
        ticks().wrapping_sub(before)
    };
    let taken = std::iter::repeat_with(timed).take(calls).min().unwrap_or(0);
    QUICKEST_CALL.fetch_min(taken, Ordering::Relaxed);
    let names = ["SIGBUS is blocked in this thread", "SIGSEGV is blocked in this thread"];
    // SAFETY: `blocked` was just filled; the signals exist.
    let is_blocked = |signal: i32| unsafe { libc::sigismember(&raw const blocked, signal) } == 1;
    SIGNALS.into_iter().zip(names).find(|(signal, _)| is_blocked(*signal)).map(|(_, name)| name)
}
