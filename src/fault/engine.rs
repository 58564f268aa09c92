//! Whether a copy may fault: who owns the signals, and what to do when we cannot.
//!
//! Asking the kernel who owns two signals and what this thread blocks costs three system calls, many times a 64-byte copy.
//! So it is asked where the answer matters: before every copy of memory that can go away, unless this thread has just asked and has
//! done nothing but copy since ([`is_busy`]), and again after every [`ASK_EVERY`] bytes of it. For the interpreter's own memory, which
//! only failing hardware can take away, an answer is good for [`KEEP`] copies of a thread, or until the mode changes or a fork.

use super::handler::{self, SIGNALS};
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
    forget();
}

/// Has every thread ask before its next copy.
pub fn forget() {
    threads::invalidate_all();
}

/// Gives the signals back to whoever had them before, when no copy needs them any more.
pub fn uninstall() {
    LEAVING.store(true, Ordering::SeqCst);
    forget();
    threads::order_all_threads();
    while threads::is_another_active() {
        std::thread::yield_now();
    }
    handler::uninstall();
    LEAVING.store(false, Ordering::SeqCst);
}

/// Copies of settled memory for which one answer is good.
const KEEP: u32 = 1024;

/// Clock ticks, about a tenth of a millisecond, for which an answer is good for memory that can go away, in a thread that stays busy with it.
const GOOD_FOR: u64 = 1 << 18;

/// Clock ticks within which a thread that copies again can have done nothing to its signals: the least that asking for its signal mask, the
/// cheapest of the system calls it would take, has ever taken, and a part of [`AROUND`].
static BUSY: AtomicU64 = AtomicU64::new(u64::MAX);

/// Clock ticks, about 100 nanoseconds, that go by at least around such a call from Python: in what surrounds two copies, and in the
/// interpreter.
const AROUND: u64 = 300;

/// When a shorter copy ends is not looked at, as a rule: from where it began to where the next one does is mostly still less time than
/// anything could be done to the signals in, and one look at the clock is saved.
const SHORT: usize = 8 << 10;

/// Clock ticks, about three microseconds, for which that has to do at a stretch. Otherwise short copies take longer than it bears, and the
/// ends of some are looked at: the first ones of many may take long, so of few at first, and of twice as many each time.
const STRETCH: u64 = 1 << 13;
const TIMED: std::ops::RangeInclusive<u32> = 32..=4096;

/// A copy of memory that can go away asks again after so many bytes.
pub const ASK_EVERY: usize = 4 << 20;

/// What every copy looks at: plain cells, which are reached without asking whether the thread is ending.
struct Thread {
    /// Its seat's and its id, to be at hand.
    slot: Cell<&'static Slot>,
    tid: Cell<i32>,
    epoch: Cell<u32>,
    /// Copies of settled memory for which the last answer is still good.
    kept: Cell<u32>,
    /// When the kernel was last asked, the time of copies since then not counted.
    asked: Cell<u64>,
    /// When the last copy of memory that can go away ended or, if that was not looked at, began.
    busy: Cell<u64>,
    /// Since when the ends of short copies are not looked at.
    untimed: Cell<u64>,
    /// Short copies whose ends are to be looked at, and how many that were to be when it was last decided.
    timed: Cell<u32>,
    span: Cell<u32>,
    /// The bytes of such copies since the kernel was asked, those of short ones with no look at their ends not counted.
    since: Cell<usize>,
}

static NO_SEAT: Slot = Slot::new();

thread_local! {
    static THREAD: Thread = const {
        Thread {
            slot: Cell::new(&NO_SEAT),
            tid: Cell::new(0),
            epoch: Cell::new(0),
            kept: Cell::new(0),
            asked: Cell::new(0),
            busy: Cell::new(0),
            untimed: Cell::new(0),
            timed: Cell::new(0),
            span: Cell::new(0),
            since: Cell::new(0),
        }
    };
    static SEAT: RefCell<Option<Lease>> = const { RefCell::new(None) };
}

/// A seat, and the end of what this thread knew when it gives that back.
struct Lease(SlotGuard);

impl Drop for Lease {
    fn drop(&mut self) {
        THREAD.with(|thread| {
            thread.kept.set(0);
            thread.slot.set(&NO_SEAT);
        });
    }
}

/// How a copy is to touch memory.
pub enum Way {
    /// Directly: a fault is recovered by the handler while the guard lives. Where the handler cannot be had only settled memory is
    /// touched so, as safely as by any other copy.
    Direct(Armed),
    /// Through system calls.
    Syscalls,
}

/// This thread is inside a copy.
pub struct Armed(&'static Slot);

impl Armed {
    fn new(thread: &Thread) -> Self {
        let slot = thread.slot.get();
        slot.mark_active(thread.tid.get());
        Self(slot)
    }

    /// Nobody has to know: there is no handler that would ask.
    fn unseen() -> Self {
        Self(&NO_SEAT)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.0.mark_active(0);
    }
}

/// Decides how a copy is to touch its memory, and arms this thread if directly.
#[inline(always)]
#[allow(clippy::inline_always)] // a few loads, ahead of every copy
pub fn enter(backing: Backing) -> Result<Way> {
    THREAD.with(|thread| {
        let kept = thread.kept.get();
        if kept > 0 {
            // Armed first: who takes the handler away counts up the epoch and then looks for armed threads.
            let armed = Armed::new(thread);
            compiler_fence(Ordering::SeqCst);
            // An answer of this epoch was given in this mode, and not by system calls.
            if thread.epoch.get() == threads::epoch(Ordering::Acquire) {
                if backing == Backing::Heap {
                    thread.kept.set(kept - 1);
                    return Ok(Way::Direct(armed));
                }
                if is_busy(thread) {
                    return Ok(Way::Direct(armed));
                }
            }
        }
        enter_anew(thread, backing)
    })
}

#[cold]
fn enter_anew(thread: &Thread, backing: Backing) -> Result<Way> {
    loop {
        let epoch = threads::epoch(Ordering::SeqCst);
        let mode = mode();
        if mode == Mode::Syscall || !arch::RECOVERS {
            return Ok(without_handler(backing));
        }
        match ask(thread, epoch) {
            // Something changed meanwhile.
            Ok(_) if threads::epoch(Ordering::SeqCst) != epoch => {}
            Ok(armed) => {
                let now = ticks();
                if thread.timed.get() == 0 {
                    let is_short_stretch = now.wrapping_sub(thread.untimed.replace(now)) < STRETCH;
                    let span =
                        if is_short_stretch { (2 * thread.span.get()).clamp(*TIMED.start(), *TIMED.end()) } else { 0 };
                    thread.span.set(span);
                    thread.timed.set(span);
                }
                thread.asked.set(now);
                thread.busy.set(now);
                thread.since.set(0);
                return Ok(Way::Direct(armed));
            }
            Err(reason) if mode == Mode::Signal => return Err(Error::Handler(reason)),
            Err(_) => return Ok(without_handler(backing)),
        }
    }
}

fn without_handler(backing: Backing) -> Way {
    if backing.may_vanish() { Way::Syscalls } else { Way::Direct(Armed::unseen()) }
}

/// Whether the last answer is still good for memory that can go away: this thread has done nothing but copy since, and not for long.
#[inline]
fn is_busy(thread: &Thread) -> bool {
    let now = ticks();
    let idle = now.wrapping_sub(thread.busy.replace(now));
    idle < BUSY.load(Ordering::Relaxed) && now.wrapping_sub(thread.asked.get()) < GOOD_FOR
}

/// Tells that a copy of so many bytes of memory that can go away has ended. It may have taken longer than an answer is good for; its time
/// does not count in the first [`ASK_EVERY`] bytes of such copies, as nobody asks in between in so many bytes of one, either.
#[inline]
pub fn copied(nbytes: usize) {
    THREAD.with(|thread| {
        let timed = thread.timed.get();
        if nbytes < SHORT && timed == 0 {
            return;
        }
        let now = ticks();
        if nbytes < SHORT {
            thread.timed.set(timed - 1);
            thread.untimed.set(now);
        }
        let taken = now.wrapping_sub(thread.busy.replace(now));
        thread.since.set(thread.since.get().saturating_add(nbytes));
        if thread.since.get() <= ASK_EVERY {
            thread.asked.set(thread.asked.get().wrapping_add(taken));
        }
    });
}

/// Looks at the clock on the way to the next copy or back from one: each part of a long way is shorter than all of it, and what could not
/// be done to the signals in any part was not done.
#[inline]
pub fn on_the_way() {
    THREAD.with(|thread| {
        let now = ticks();
        if now.wrapping_sub(thread.busy.get()) < BUSY.load(Ordering::Relaxed) {
            thread.busy.set(now);
        }
    });
}

/// Tells of a fault, or that the handler is lost: what comes next had better be sure.
#[cold]
pub fn faulted() {
    THREAD.with(|thread| thread.kept.set(0));
}

const TAKEN: &str = "somebody keeps others from handling SIGBUS and SIGSEGV";

/// Has the handler be there for this thread, for whoever needs it and cannot do with system calls instead.
pub fn require_handler() -> Result<()> {
    let reason = match blocked_signal() {
        _ if mode() == Mode::Syscall => "the mode is \"syscall\"",
        Some(reason) => reason,
        None if !handler::is_installed() && !handler::install() => TAKEN,
        None => return Ok(()),
    };
    Err(Error::Handler(reason))
}

/// Still so? To be asked in between, in a long copy.
pub fn is_still_ours() -> bool {
    blocked_signal().is_none() && (handler::is_installed() || handler::install())
}

/// Asks the kernel. The answer is kept for copies of this `epoch`.
fn ask(thread: &Thread, epoch: u32) -> std::result::Result<Armed, &'static str> {
    thread.kept.set(0);
    if LEAVING.load(Ordering::SeqCst) {
        return Err("it is being uninstalled");
    }
    if let Some(reason) = blocked_signal() {
        return Err(reason);
    }
    if !handler::is_installed() && !handler::install() {
        return Err(TAKEN);
    }
    threads::watch_forks();
    let seated = SEAT.try_with(|seat| {
        let mut seat = seat.borrow_mut();
        if !seat.as_ref().is_some_and(|lease| lease.0.is_current()) {
            // The old lease ends before the new one begins.
            *seat = None;
            let taken = SlotGuard::take().ok_or("there is no memory to keep track of this thread")?;
            thread.slot.set(taken.slot());
            thread.tid.set(threads::current_tid());
            *seat = Some(Lease(taken));
        }
        Ok(())
    });
    seated.map_err(|_| "this thread is ending")??;
    thread.epoch.set(epoch);
    thread.kept.set(KEEP);
    Ok(Armed::new(thread))
}

/// A fault whose signal is blocked kills at once, handler or not.
fn blocked_signal() -> Option<&'static str> {
    // SAFETY: a sigset is plain bits, for which zeroes are valid.
    let mut blocked: libc::sigset_t = unsafe { std::mem::zeroed() };
    // The first call of all may take many times as long as any other.
    let calls = if BUSY.load(Ordering::Relaxed) == u64::MAX { 8 } else { 1 };
    let timed = || {
        let before = ticks();
        // SAFETY: a null new mask only asks; `blocked` is ours to fill.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked) };
        ticks().wrapping_sub(before)
    };
    let taken = std::iter::repeat_with(timed).take(calls).min().unwrap_or(0);
    BUSY.fetch_min(taken + taken.min(AROUND), Ordering::Relaxed);
    let names = ["SIGBUS is blocked in this thread", "SIGSEGV is blocked in this thread"];
    // SAFETY: `blocked` was just filled; the signals exist.
    let is_blocked = |signal: i32| unsafe { libc::sigismember(&raw const blocked, signal) } == 1;
    SIGNALS.into_iter().zip(names).find(|(signal, _)| is_blocked(*signal)).map(|(_, name)| name)
}
