//! Forks: what a child may not go on using as it finds it, because another thread held its lock or because the parent
//! shares it; and memory that the two share on purpose.

use super::errno;
use crate::abi::PAGE_SIZE;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Forks between the first process and this one that the C library made. A child may be given the number of an ancestor
/// that has ended.
pub(super) static FORKS: AtomicU32 = AtomicU32::new(0);

/// Tells this process from its ancestors: its number is the kernel's own answer, which a fork of any kind changes.
pub(super) fn process() -> u64 {
    // SAFETY: getpid has no preconditions and touches no memory.
    let number = unsafe { libc::getpid() };
    u64::from(FORKS.load(Ordering::Relaxed)) << 32 | number as u64
}

/// No process: the kernel numbers them from 1.
const NONE: u64 = 0;

/// A value that belongs to one process. A forked child makes its own out of the one it inherited before it is handed
/// out there.
pub(super) struct PerProcess<T> {
    /// Whose the value is.
    owner: AtomicU64,
    /// Which process has a thread that is making its value.
    renewing: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: threads of one process share `&T`; `get` changes the value only before its process has handed out any.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}

impl<T> PerProcess<T> {
    pub(super) fn new(value: T) -> Self {
        Self { owner: AtomicU64::new(process()), renewing: AtomicU64::new(NONE), value: UnsafeCell::new(value) }
    }

    /// The value of this process. In a forked child the first call makes it with `renew`, from what was inherited,
    /// whose locks may be held for good. If that fails, the next call tries again.
    pub(super) fn get<E>(&self, renew: impl FnOnce(&T) -> Result<T, E>) -> Result<&T, E> {
        let me = process();
        while self.owner.load(Ordering::Acquire) != me {
            let seen = self.renewing.load(Ordering::Relaxed);
            if seen == me || self.renewing.compare_exchange(seen, me, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another thread of this process is at it.
                std::thread::yield_now();
                continue;
            }
            // SAFETY: this process has handed out no reference yet, since `owner` is another, and `renewing` lets no
            // second thread in here.
            let value = unsafe { &mut *self.value.get() };
            let renewed = renew(value).map(|new| *value = new);
            if renewed.is_ok() {
                self.owner.store(me, Ordering::Release);
            }
            self.renewing.store(NONE, Ordering::Release);
            renewed?;
            break;
        }
        // SAFETY: it is this process's, so nobody changes it any more.
        Ok(unsafe { &*self.value.get() })
    }
}

/// A value that forked children share.
pub(super) struct SharedPage<T>(NonNull<T>);

// SAFETY: the page is this value's own until it is dropped; other threads and processes touch it as they may touch
// `&T`.
unsafe impl<T: Send + Sync> Send for SharedPage<T> {}
// SAFETY: `get` hands out `&T` only.
unsafe impl<T: Sync> Sync for SharedPage<T> {}

impl<T> SharedPage<T> {
    /// Maps a page for a value.
    ///
    /// # Safety
    /// Zeroes are a value of `T`, which has nothing to drop and may be touched by several processes at once: it is
    /// atomic.
    pub(super) unsafe fn zeroed() -> Result<Self, i32> {
        const { assert!(size_of::<T>() <= PAGE_SIZE && align_of::<T>() <= PAGE_SIZE) };
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: without an address given, the kernel takes one where nothing is mapped.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE_SIZE, protection, flags, -1, 0) };
        match NonNull::new(page) {
            Some(start) if page != libc::MAP_FAILED => Ok(Self(start.cast())),
            _ => Err(errno()),
        }
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: `zeroed` mapped a page for it, which the assertion there says is large and aligned enough, full of
        // zeroes.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for SharedPage<T> {
    fn drop(&mut self) {
        // SAFETY: `zeroed` mapped it, and no reference outlives this value.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE_SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::{NONE, Ordering, PerProcess};

    #[test]
    fn the_value_is_made_again_only_after_a_fork() {
        let value = PerProcess::new(1);
        assert_eq!(value.get(|_| Err("not forked")), Ok(&1));
        value.owner.store(NONE, Ordering::Relaxed);
        assert_eq!(value.get(|_| Err("no")), Err("no"));
        assert_eq!(value.get(|old| Ok::<_, &str>(old + 1)), Ok(&2));
        assert_eq!(value.get(|_| Err("made already")), Ok(&2));
    }

    #[test]
    fn one_thread_makes_it() {
        let value = PerProcess::new(0);
        value.owner.store(NONE, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(value.get(|old| Ok::<_, ()>(old + 1)), Ok(&1)));
            }
        });
    }
}
