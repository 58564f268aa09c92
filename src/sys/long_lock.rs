//! A lock that may be held during long work, such as a copy or an msync.
//!
//! A fork cannot wait for such work, as it does for a [`Lock`](super::lock::Lock). So the lock notes in which process
//! it was taken. If a thread of the parent held it at the fork, it can never be released in the child, and
//! [`LongLock::lock`] returns `None` there instead of waiting for ever.

use super::futex;
use super::lock::{generation, watch};
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const OPEN: u32 = 0;

/// The lock.
pub struct LongLock<T> {
    /// [`OPEN`], or the holder's process: its [`generation`] plus 1.
    holder: AtomicU32,
    /// How many threads wait. A forked child inherits its parent's count, which costs it a needless wake-up call per
    /// release.
    waiting: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: `holder` lets one thread at a time access the value, and `T: Send` allows that to be another thread than
// before.
unsafe impl<T: Send> Sync for LongLock<T> {}

/// Access to what is behind a [`LongLock`].
///
/// It is a `&mut T` to whoever shares or sends it: two threads may read through one guard only if `T` is `Sync`.
///
/// ```compile_fail,E0277
/// use _core::sys::long_lock::LongLock;
/// use std::cell::Cell;
///
/// let lock = LongLock::new(Cell::new(0));
/// let guard = lock.lock().unwrap();
/// std::thread::scope(|scope| {
///     scope.spawn(|| guard.set(guard.get() + 1));
///     scope.spawn(|| guard.set(guard.get() + 1));
/// });
/// ```
pub struct Guard<'a, T>(&'a LongLock<T>, PhantomData<&'a mut T>);

impl<T> LongLock<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        watch();
        Self { holder: AtomicU32::new(OPEN), waiting: AtomicU32::new(0), value: UnsafeCell::new(value) }
    }

    /// Locks it, after waiting for its holder. `None` if the holder is a thread of a process that this one was forked
    /// from.
    pub fn lock(&self) -> Option<Guard<'_, T>> {
        let own = generation().wrapping_add(1);
        let take = || self.holder.compare_exchange(OPEN, own, Ordering::Acquire, Ordering::Relaxed).err();
        let Some(mut holder) = take() else { return Some(Guard(self, PhantomData)) };
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let taken = loop {
            if holder != OPEN && holder != own {
                break None;
            }
            futex::wait(&self.holder, holder, Duration::from_millis(100));
            match take() {
                None => break Some(Guard(self, PhantomData)),
                Some(other) => holder = other,
            }
        };
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        taken
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: there is one guard at a time, since the compare-exchange of `holder` from `OPEN` succeeds in one
        // thread only.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: there is one guard at a time, since the compare-exchange of `holder` from `OPEN` succeeds in one
        // thread only; and that guard is borrowed mutably.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        self.0.holder.store(OPEN, Ordering::SeqCst);
        if self.0.waiting.load(Ordering::SeqCst) != 0 {
            futex::wake_all(&self.0.holder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::LongLock;
    use std::sync::Arc;
    use std::sync::mpsc::channel;

    #[test]
    fn one_thread_at_a_time_has_it() {
        let lock = Arc::new(LongLock::new(0_u64));
        let add = |lock: &LongLock<u64>| {
            for _ in 0..20_000 {
                let mut value = lock.lock().unwrap();
                let seen = *value;
                std::hint::spin_loop();
                *value = seen + 1;
            }
        };
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let lock = Arc::clone(&lock);
                std::thread::spawn(move || add(&lock))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(*lock.lock().unwrap(), 60_000);
    }

    #[test]
    fn a_child_is_told_that_a_thread_of_its_parent_has_it() {
        let (lock, free) = (Arc::new(LongLock::new(())), LongLock::new(()));
        let ((holds, held), (end, ended)) = (channel(), channel::<()>());
        let holder = {
            let lock = Arc::clone(&lock);
            std::thread::spawn(move || {
                let guard = lock.lock().unwrap();
                holds.send(()).unwrap();
                ended.recv().unwrap();
                drop(guard);
            })
        };
        held.recv().unwrap();
        // SAFETY: the child calls nothing but what follows, which neither allocates nor returns.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_right = lock.lock().is_none() && free.lock().is_some();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!is_right)) };
        }
        let mut status = 0;
        // SAFETY: waits for the child just made.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert_eq!(status, 0);
        end.send(()).unwrap();
        holder.join().unwrap();
        assert!(lock.lock().is_some());
    }
}
