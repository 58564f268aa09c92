//! Locks that are never held in a forked child.
//!
//! A forked child has one thread, the one that forked. A mutex that another thread held at that moment would stay
//! locked in the child for ever, with the data behind it half changed. So a fork waits, in a `pthread_atfork` handler,
//! until no thread holds a [`Lock`], and keeps threads from taking one until it is done.
//!
//! That works under three rules. A lock is held for a few lines of arithmetic, never over a copy, a system call that
//! may wait, or Python code: else forks would wait as long. A thread holds one of these locks at a time: with two, it
//! could wait for a gate that the fork has shut while the fork waits for it. And a thread does not fork while it holds
//! one.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The gate. Every holder of a [`Lock`] has it locked for reading; a fork locks it for writing.
static GATE: RwLock<()> = RwLock::new(());

/// The number of forks between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The gate's write lock, in the thread that forks. `ManuallyDrop` leaves the thread-local without a destructor, so
    /// a thread can fork even while its thread-locals are being destroyed.
    static SHUT: Cell<Option<ManuallyDrop<RwLockWriteGuard<'static, ()>>>> = const { Cell::new(None) };
}

extern "C" fn before_fork() {
    SHUT.set(Some(ManuallyDrop::new(GATE.write().unwrap_or_else(PoisonError::into_inner))));
}

extern "C" fn after_fork_in_parent() {
    drop(SHUT.take().map(ManuallyDrop::into_inner));
}

extern "C" fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    drop(SHUT.take().map(ManuallyDrop::into_inner));
}

/// Registers the fork handlers. The import of the module calls it, so that no fork can come between registering them
/// and the first lock.
pub fn watch() {
    static WATCHED: Once = Once::new();
    // SAFETY: the handlers are functions of this library, which is never unloaded; they only take and release a lock.
    WATCHED.call_once(|| unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child));
    });
}

/// A number that tells this process from those it was forked from. Work that other threads had begun in one of those
/// never ends in this one.
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// A mutex that no fork leaves locked. The module documentation has the rules for holding it.
#[derive(Default)]
pub struct Lock<T>(Mutex<T>);

/// Access to the value behind a [`Lock`].
pub struct Guard<'a, T> {
    // Fields drop in this order: the mutex is released before the gate.
    inner: MutexGuard<'a, T>,
    _gate: RwLockReadGuard<'static, ()>,
}

impl<T> Lock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        watch();
        Self(Mutex::new(value))
    }

    /// Locks it. The wait is short, since a holder only computes.
    pub fn lock(&self) -> Guard<'_, T> {
        let gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
        Guard { inner: self.0.lock().unwrap_or_else(PoisonError::into_inner), _gate: gate }
    }

    /// Calls `look` with the values of this lock and another, both locked. It passes the gate once for both; two nested
    /// calls of [`Lock::lock`] would deadlock with a fork that shuts the gate between them. The mutexes are locked in
    /// the order of their addresses, so two threads with the same pair do not wait for each other. The two locks must
    /// be distinct.
    pub fn both<R>(&self, other: &Self, look: impl FnOnce(&T, &T) -> R) -> R {
        let _gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(!std::ptr::eq(self, other));
        if std::ptr::from_ref(self) < std::ptr::from_ref(other) {
            let here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let there = other.0.lock().unwrap_or_else(PoisonError::into_inner);
            look(&here, &there)
        } else {
            let there = other.0.lock().unwrap_or_else(PoisonError::into_inner);
            let here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            look(&here, &there)
        }
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::{Lock, generation};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_child_finds_every_lock_open_and_every_change_whole() {
        let pair = Arc::new(Lock::new((0_u64, 0_u64)));
        let stop = Arc::new(AtomicBool::new(false));
        let changers: Vec<_> = (0..2)
            .map(|_| {
                let (pair, stop) = (Arc::clone(&pair), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let mut pair = pair.lock();
                        pair.0 += 1;
                        std::hint::spin_loop();
                        pair.1 += 1;
                    }
                })
            })
            .collect();
        let parent = generation();
        for _ in 0..200 {
            // SAFETY: the child calls nothing but what follows, which neither allocates nor returns.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let seen = pair.lock();
                let wrong = seen.0 != seen.1 || generation() != parent + 1;
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(wrong)) };
            }
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
        assert_eq!(generation(), parent);
        stop.store(true, Ordering::Relaxed);
        for changer in changers {
            changer.join().unwrap();
        }
    }
}
