//! Locks that a forked child finds open.
//!
//! A child has one thread: the one that forked. A lock that another thread held at that moment stays shut in the child
//! for ever, over half-made changes. So a fork waits until nobody holds a [`Lock`], and lets nobody take one until it
//! is done. That is cheap as long as locks are held briefly: over a few lines of arithmetic, never over a copy, a
//! system call that may wait, or Python code. A thread holds at most one of them at a time, and does not fork
//! meanwhile.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Open to be read while no fork is going on. Every holder of a [`Lock`] reads it; a fork writes it.
static GATE: RwLock<()> = RwLock::new(());

/// The number of forks between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

thread_local! {
    /// The shut gate, in the thread that forks. It has no destructor, so that a thread may fork while it ends.
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

/// Has forks wait for locks from now on. Called when the module is imported, so that no fork comes in the middle of it.
pub fn watch() {
    static WATCHED: Once = Once::new();
    // SAFETY: the handlers are functions of this library, which is never unloaded; they only take and release a lock.
    WATCHED.call_once(|| unsafe {
        libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child));
    });
}

/// Tells one process from those it was forked from: what other threads had begun in one of them never ends in this one.
pub fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// A mutex that no fork leaves shut. To be held briefly, and one at a time: see the module.
#[derive(Default)]
pub struct Lock<T>(Mutex<T>);

/// Access to what is behind a [`Lock`].
pub struct Guard<'a, T> {
    // Dropped in this order: the gate opens after the lock.
    inner: MutexGuard<'a, T>,
    _gate: RwLockReadGuard<'static, ()>,
}

impl<T> Lock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        watch();
        Self(Mutex::new(value))
    }

    /// Waits for whoever holds it, which is brief.
    pub fn lock(&self) -> Guard<'_, T> {
        let gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
        Guard { inner: self.0.lock().unwrap_or_else(PoisonError::into_inner), _gate: gate }
    }

    /// Looks at what this lock and another one guard, in one moment. Two calls of [`Lock::lock`] would wait for ever if
    /// a fork came between them. The locks are taken in the order of their addresses, so that two threads with the same
    /// pair do not wait for each other. They must be two.
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
