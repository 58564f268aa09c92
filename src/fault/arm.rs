//! Arming: before a copy, makes sure that a fault of this thread would reach our handler, or else has the copy made by
//! system calls.
//!
//! To ask the kernel who handles the two signals and which signals this thread blocks takes three system calls, many
//! times as long as a copy of 64 bytes. So an answer is reused; [`super::freshness`] decides for how long.
//! docs/faults.md has a table of what that guarantees.

use super::freshness::Freshness;
use super::handler;
use super::mask::{self, blocked_signal};
use super::shelter::{is_any, is_idle};
use super::threads::{self, Slot, SlotGuard};
use crate::arch::{self, ticks};
use crate::error::{Error, Result};
use crate::memory::Backing;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering, compiler_fence};

/// How faults are handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Mode {
    /// By the signal handler if it can be installed, otherwise by making copies with system calls.
    Auto,
    /// By the signal handler. If it cannot be installed, copies are refused.
    Signal,
    /// By making copies with system calls. No handler is installed.
    Syscall,
}

static MODE: AtomicU8 = AtomicU8::new(Mode::Auto as u8);

/// Whether `uninstall` is running, during which no thread may arm itself.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// The mode in use.
pub fn mode() -> Mode {
    match MODE.load(Ordering::Relaxed) {
        0 => Mode::Auto,
        1 => Mode::Signal,
        _ => Mode::Syscall,
    }
}

/// Sets the mode from now on, in all threads.
pub fn set_mode(mode: Mode) {
    MODE.store(mode as u8, Ordering::Relaxed);
    invalidate_all();
}

/// Restores the handlers that were there before ours, after the running copies have ended. Refused while a guard is
/// entered, because guards need our handler.
///
/// The order keeps a new copy from running without a handler: `LEAVING` is set first, then the epoch changes, and the
/// barrier makes every thread see both. A thread that arms itself later therefore asks anew and is refused; one that
/// armed itself earlier is seen as active and waited for.
pub fn uninstall() -> Result<()> {
    LEAVING.store(true, Ordering::SeqCst);
    // A guard that is entered after this check sees `LEAVING` and is refused.
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

/// A copy of memory that can vanish rechecks the handler after this many bytes.
pub const RECHECK_EVERY: usize = 4 << 20;

/// A thread's state that every copy reads. It has no destructor, so that access to it needs no check whether the thread
/// is ending.
struct Thread {
    /// The thread's slot and id. They are copies, for speed, of what `OWN_SLOT` has.
    slot: Cell<&'static Slot>,
    tid: Cell<i32>,
    /// The epoch of the kernel's last answer.
    epoch: Cell<u32>,
    freshness: Freshness,
}

/// The slot of threads that have none of their own, and of copies that need not be seen by `uninstall`.
static NO_SLOT: Slot = Slot::new();

thread_local! {
    static THREAD: Thread = const {
        Thread { slot: Cell::new(&NO_SLOT), tid: Cell::new(0), epoch: Cell::new(0), freshness: Freshness::new() }
    };
    static OWN_SLOT: RefCell<Option<OwnSlot>> = const { RefCell::new(None) };
}

/// The slot that a thread owns. When the thread ends, dropping it also invalidates the thread's answer.
struct OwnSlot(SlotGuard);

impl Drop for OwnSlot {
    fn drop(&mut self) {
        THREAD.with(|thread| {
            thread.freshness.invalidate();
            thread.slot.set(&NO_SLOT);
        });
    }
}

/// How a copy accesses memory.
pub enum Path {
    /// By the CPU. While the `Armed` lives, the handler recovers a fault. If the handler cannot be installed, only heap
    /// memory is accessed in this way, as safely as by any `memcpy`.
    Direct(Armed),
    /// By system calls.
    Syscalls,
}

/// Proof that this thread is inside a copy, and is seen to be by `uninstall` and the handler.
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

    /// An `Armed` for heap memory without a handler. Nobody needs to see such a copy.
    fn unseen(epoch: u32) -> Self {
        Self { slot: &NO_SLOT, epoch }
    }

    /// The epoch in which the copy began. A guard begins a new epoch before it replaces pages by zeroes.
    #[inline]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The word that has the epoch, and the epoch in which the copy began, for a routine that checks it by itself.
    pub fn watched(&self) -> (&'static AtomicU32, u32) {
        (threads::epoch_word(), self.epoch)
    }

    /// Whether the epoch is still the same. Then none of the bytes read so far were a guard's zeroes.
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

/// Decides how a copy accesses its memory, and arms this thread if the CPU does.
///
/// The thread marks its slot active *before* it checks the epoch; `uninstall` changes the epoch *before* it looks for
/// active slots, with a barrier on all threads between. So at least one of the two sees the other.
#[inline(always)]
#[allow(clippy::inline_always)] // a few loads, ahead of every copy
pub fn arm(backing: Backing) -> Result<Path> {
    THREAD.with(|thread| {
        if thread.freshness.is_known() {
            // The compiler must not move the check of the epoch before the mark. The CPU's order is `uninstall`'s
            // concern: its barrier (`order_all_threads`) supplies it.
            let armed = Armed::new(thread);
            compiler_fence(Ordering::SeqCst);
            // An answer of the current epoch was given in the current mode, and says that the handler is installed.
            if thread.epoch.get() == threads::epoch(Ordering::Acquire) {
                if backing == Backing::Heap {
                    thread.freshness.use_up();
                    return Ok(Path::Direct(armed));
                }
                if thread.freshness.is_good(ticks(), mask::quickest_change()) {
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
        // While a guard has replaced pages by zeroes, reading them raises no fault. The system-call path checks for
        // such pages.
        if !is_idle() {
            return Ok(Path::Syscalls);
        }
        let mode = mode();
        if mode == Mode::Syscall || !arch::RECOVERS {
            return Ok(without_handler(backing, epoch));
        }
        match ask(thread, epoch) {
            // The epoch changed during the questions, so the answer may be outdated: ask again.
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

/// Notes that a copy of memory that can vanish has ended.
///
/// Whoever waits for memory at the end of a copy calls [`arch::load_fence`] first: the CPU would read the clock before
/// that wait is over. Then a system call would seem to fit between this copy and the next one, which would ask the
/// kernel anew.
#[inline]
pub fn finish() {
    THREAD.with(|thread| thread.freshness.finish(ticks()));
}

/// Reads the clock on the way from one copy to the next. A gap that is long enough for a system call may consist of
/// parts of our own code, each of which is too short for one; calls of this function between them keep the answer
/// fresh.
#[inline]
pub fn extend() {
    THREAD.with(|thread| thread.freshness.extend(ticks, mask::quickest_change()));
}

/// Makes this thread ask the kernel before its next copy. Called after a fault, and when the handler is lost.
#[cold]
pub fn invalidate() {
    THREAD.with(|thread| thread.freshness.invalidate());
}

/// Makes every thread ask the kernel before its next copy.
pub fn invalidate_all() {
    let _ = threads::invalidate_all();
}

/// Makes sure that the handler is installed and reachable for this thread, or says why it cannot be. For guards, which
/// have no other way.
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

/// Whether faults of this thread still reach our handler. Installs it again if somebody replaced it. Long copies call
/// this between spans.
pub fn recheck() -> bool {
    blocked_signal().is_none() && (handler::is_installed() || handler::install())
}

/// Asks the kernel whether faults of this thread reach our handler, and installs the handler if it is not. If they do,
/// the answer is kept for copies in this `epoch`; if not, the error says why.
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
            // The thread was forked. Its old slot is dropped before a new one is taken.
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
