//! Whose turn it is to change what a guard covers: one thread's at a time, in the handler or out of it.
//!
//! No lock, since nobody waits for it in the handler: a thread whose fault comes during somebody else's turn runs its instruction
//! again, which faults again or finds zeroes. The turn is a few system calls long, signals cannot interrupt it, and whoever has it
//! waits for nobody.

use crate::sys::{maps, remap};
use std::cell::UnsafeCell;
use std::sync::Once;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// The process whose thread has the turn, 0 if nobody has.
static PROCESS: AtomicI32 = AtomicI32::new(0);

/// Signals that the thread which forks had blocked before. Its turn lasts as long as the fork.
static BLOCKED: AtomicU64 = AtomicU64::new(0);

/// It is this thread's turn.
pub(super) struct Turn {
    /// Signals that this thread blocks otherwise.
    blocked: u64,
}

/// Why there is no turn to be had.
pub(super) enum NoTurn {
    /// Another thread has it.
    Now,
    /// A thread of the process that this one was forked from had it, unseen by [`prepare_fork`]: it never ends.
    Ever,
}

impl Turn {
    /// Takes the turn if nobody has it.
    pub(super) fn try_take() -> Result<Self, NoTurn> {
        let process = remap::process();
        let turn = Self { blocked: remap::set_mask(u64::MAX) };
        match PROCESS.compare_exchange(0, process, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Ok(turn),
            Err(owner) => {
                remap::set_mask(turn.blocked);
                std::mem::forget(turn);
                Err(if owner == process { NoTurn::Now } else { NoTurn::Ever })
            }
        }
    }

    /// Waits for the turn. Not for the handler.
    pub(super) fn take() -> Self {
        loop {
            if let Ok(turn) = Self::try_take() {
                return turn;
            }
            remap::give_way();
        }
    }

    /// Whether anybody has it.
    pub(super) fn is_taken() -> bool {
        PROCESS.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        PROCESS.store(0, Ordering::SeqCst);
        remap::set_mask(self.blocked);
    }
}

extern "C" fn prepare_fork() {
    let turn = Turn::take();
    BLOCKED.store(turn.blocked, Ordering::Relaxed);
    std::mem::forget(turn);
}

/// In both processes: the child's only thread is the one that forked.
extern "C" fn after_fork() {
    drop(Turn { blocked: BLOCKED.load(Ordering::Relaxed) });
}

/// Has forks wait for the turn, so that a child finds the tables as they are between two.
pub(super) fn watch_forks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers call nothing that a fork might have left locked.
        unsafe { libc::pthread_atfork(Some(prepare_fork), Some(after_fork), Some(after_fork)) };
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
