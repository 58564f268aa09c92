//! Whose turn it is to change what a guard covers: one thread's at a time, in the handler or out of it.
//!
//! No lock, since nobody waits for it in the handler: a thread whose fault comes during somebody else's turn runs its
//! instruction again, which faults again or finds zeroes. The turn is a few system calls long, signals cannot interrupt
//! it, and whoever has it waits for nobody. A fork has the turn, too, so that the child finds the tables as they are
//! between two; but not for long.

use crate::sys::{maps, remap};
use std::cell::{Cell, UnsafeCell};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose turn it is: the process of the thread that has it, and above its 32 bits, if that thread has it for a fork,
/// the fork's number. 0 if nobody has it.
static OWNER: AtomicU64 = AtomicU64::new(0);
/// Where the number of a fork begins.
const FORK: u32 = 32;
/// Forks there were.
static FORKS: AtomicU64 = AtomicU64::new(0);
/// When the last of them began, in nanoseconds of the monotonic clock.
static FORK_BEGAN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The turn that this thread has for a fork.
    static FORKING: Cell<u64> = const { Cell::new(0) };
}

/// How long a fork may keep the turn from threads that want it. Nothing but the fork itself should last, but other
/// libraries have handlers of forks, too, and may wait in theirs for a thread of their own that waits for the turn in
/// ours.
const FORK_NANOSECONDS: u64 = 100_000_000;

/// It is this thread's turn.
pub(super) struct Turn {
    /// Signals that this thread blocks otherwise.
    blocked: u64,
}

/// What only this thread's turn lets exist: whoever holds one may change the tables.
pub(super) trait InTurn {}

impl InTurn for Turn {}

/// Why there is no turn to be had.
pub(super) enum NoTurn {
    /// Another thread has it.
    Now,
    /// A thread of the process that this one was forked from had it, since [`prepare_fork`] was not called: it never
    /// ends.
    Ever,
}

impl Turn {
    /// Takes the turn if nobody has it.
    pub(super) fn try_take() -> Result<Self, NoTurn> {
        let process = process();
        Self::take_from(0, process).or_else(|owner| match owner {
            _ if is_of_fork(owner) && has_fork_had_its_time() => {
                Self::take_from(owner, process).map_err(|_| NoTurn::Now)
            }
            _ if is_of_fork(owner) || owner == process => Err(NoTurn::Now),
            _ => Err(NoTurn::Ever),
        })
    }

    /// Takes the turn for this process from an owner, 0 if nobody is to have it. Otherwise: who has it.
    fn take_from(owner: u64, process: u64) -> Result<Self, u64> {
        let turn = Self { blocked: remap::set_mask(u64::MAX) };
        match OWNER.compare_exchange(owner, process, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Ok(turn),
            Err(other) => {
                remap::set_mask(turn.blocked);
                std::mem::forget(turn);
                Err(other)
            }
        }
    }

    /// Waits for the turn. Not for the handler.
    pub(super) fn take() -> Self {
        loop {
            match Self::try_take() {
                Ok(turn) => return turn,
                Err(NoTurn::Now) => remap::give_way(),
                Err(NoTurn::Ever) => inherit(OWNER.load(Ordering::SeqCst)),
            }
        }
    }

    /// Whether anybody has it.
    pub(super) fn is_taken() -> bool {
        OWNER.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        OWNER.store(0, Ordering::SeqCst);
        remap::set_mask(self.blocked);
    }
}

fn process() -> u64 {
    u64::from(remap::process().cast_unsigned())
}

fn is_of_fork(owner: u64) -> bool {
    owner >> FORK != 0
}

fn has_fork_had_its_time() -> bool {
    remap::nanoseconds().saturating_sub(FORK_BEGAN.load(Ordering::SeqCst)) > FORK_NANOSECONDS
}

/// What forgets where pages are kept aside.
static FORGET_KEPT: OnceLock<fn(&Turn)> = OnceLock::new();

/// Ends the turn that a thread of another process had when this one was forked, in whatever it did then. What it had
/// kept aside is not put back here, since some of it may have been: it stays zeroes, and guards say so.
fn inherit(owner: u64) {
    let process = process();
    if owner != 0
        && owner != process
        && let Ok(turn) = Turn::take_from(owner, process)
        && let Some(forget_kept) = FORGET_KEPT.get()
    {
        forget_kept(&turn);
    }
}

/// The turn goes over to the fork, whoever comes to make it.
extern "C" fn prepare_fork() {
    let turn = Turn::take();
    FORK_BEGAN.store(remap::nanoseconds(), Ordering::SeqCst);
    let number = FORKS.fetch_add(1, Ordering::Relaxed) % u64::from(u32::MAX) + 1;
    let owner = number << FORK | process();
    FORKING.set(owner);
    OWNER.store(owner, Ordering::SeqCst);
    remap::set_mask(turn.blocked);
    std::mem::forget(turn);
}

/// In the parent. Another thread's fork may have begun, if this one has had its time.
extern "C" fn after_fork() {
    let _ = OWNER.compare_exchange(FORKING.get(), 0, Ordering::SeqCst, Ordering::SeqCst);
}

/// In the child, whose only thread is the one that forked.
extern "C" fn after_fork_in_child() {
    let owner = OWNER.load(Ordering::SeqCst);
    if is_of_fork(owner) {
        OWNER.store(0, Ordering::SeqCst);
    } else {
        inherit(owner);
    }
}

/// Has forks wait for the turn, so that a child finds the tables as they are between two; and where it does not, has it
/// forget where pages are kept aside.
pub(super) fn watch_forks(forget_kept: fn(&Turn)) {
    FORGET_KEPT.get_or_init(|| {
        // SAFETY: the handlers are functions of this library, which is never unloaded; they call nothing that a fork
        // might have left locked.
        unsafe { libc::pthread_atfork(Some(prepare_fork), Some(after_fork), Some(after_fork_in_child)) };
        forget_kept
    });
}

/// What `/proc` says: the handler's stack may have no room for it.
struct Text(UnsafeCell<[u8; maps::BUFFER]>);

// SAFETY: only `text` hands it out, to whoever has the turn.
unsafe impl Sync for Text {}

static TEXT: Text = Text(UnsafeCell::new([0; maps::BUFFER]));

/// A buffer for it, for as long as the turn is lent.
pub(super) fn text(_turn: &mut Turn) -> &mut [u8; maps::BUFFER] {
    // SAFETY: one thread has the turn, and cannot borrow it twice.
    unsafe { &mut *TEXT.0.get() }
}
