//! Forks: values that a child must renew before it uses them, because a thread of the parent had them locked or because
//! the parent goes on using the same kernel object; and memory that the two share on purpose.

use super::errno;
use crate::abi::PAGE_SIZE;
use std::cell::UnsafeCell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The number of forks, by the C library's `fork`, between the first process and this one. A pid alone does not tell a
/// process from its ancestors, since a child may get the pid of an ancestor that has ended.
pub(super) static FORKS: AtomicU32 = AtomicU32::new(0);

/// A number that tells this process from its ancestors: the fork count and the pid. The pid is there because a fork
/// made past the C library, by a bare system call, changes the pid but not the count.
///
/// It is noted in a page that is zero in every forked child, however it was forked, since getpid takes as long as a
/// short copy.
pub(super) fn process() -> u64 {
    let Some(noted) = noted() else { return number() };
    match noted.load(Ordering::Relaxed) {
        NONE => {
            let number = number();
            noted.store(number, Ordering::Relaxed);
            number
        }
        number => number,
    }
}

fn number() -> u64 {
    // SAFETY: getpid has no preconditions and touches no memory.
    let pid = unsafe { libc::getpid() };
    u64::from(FORKS.load(Ordering::Relaxed)) << 32 | pid as u64
}

/// Where this process's number is noted. `None` if the kernel has no pages that a fork zeroes.
fn noted() -> Option<&'static AtomicU64> {
    static PLACE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
    /// Stands for no place.
    static NOWHERE: AtomicU64 = AtomicU64::new(NONE);
    let nowhere = (&raw const NOWHERE).cast_mut();
    let mut place = PLACE.load(Ordering::Acquire);
    if place.is_null() {
        let new = page_zeroed_by_forks().unwrap_or(nowhere);
        // A page of a thread that comes second stays mapped and is not used.
        let first = PLACE.compare_exchange(place, new, Ordering::AcqRel, Ordering::Acquire).err();
        place = first.unwrap_or(new);
    }
    // SAFETY: it is a static or the start of a page that is never unmapped, and all that is there is an atomic.
    (place != nowhere).then(|| unsafe { &*place })
}

/// A page of zeroes, which is zero again in every child.
fn page_zeroed_by_forks() -> Option<*mut AtomicU64> {
    let page = map_page(libc::MAP_PRIVATE).ok()?.as_ptr();
    // SAFETY: the page was just mapped, and nothing is in it.
    let is_zeroed = unsafe { libc::madvise(page, PAGE_SIZE, libc::MADV_WIPEONFORK) } == 0;
    if !is_zeroed {
        // SAFETY: nobody else knows of the page.
        unsafe { libc::munmap(page, PAGE_SIZE) };
    }
    is_zeroed.then_some(page.cast())
}

/// Maps a page of zeroes, private or shared with children.
fn map_page(sharing: i32) -> Result<NonNull<libc::c_void>, i32> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, sharing | libc::MAP_ANONYMOUS);
    // SAFETY: the address is null and `MAP_FIXED` is not set, so the kernel chooses a page where nothing is mapped.
    let page = unsafe { libc::mmap(ptr::null_mut(), PAGE_SIZE, protection, flags, -1, 0) };
    NonNull::new(page).filter(|_| page != libc::MAP_FAILED).ok_or_else(errno)
}

/// The number of no process: pids begin at 1.
const NONE: u64 = 0;

/// A value that belongs to one process. In a forked child, the first access makes a new value out of the inherited one.
pub(super) struct PerProcess<T> {
    /// The process that the value belongs to.
    owner: AtomicU64,
    /// The process in which a thread is making a new value.
    renewing: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: threads of one process share `&T`; `get` changes the value only before it has returned any reference in this
// process.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}

impl<T> PerProcess<T> {
    pub(super) fn new(value: T) -> Self {
        Self { owner: AtomicU64::new(process()), renewing: AtomicU64::new(NONE), value: UnsafeCell::new(value) }
    }

    /// This process's value. In a forked child the first call makes it with `renew` from the inherited value, whose
    /// locks may be held by threads that the child does not have. If `renew` fails, the next call tries again.
    pub(super) fn get<E>(&self, renew: impl FnOnce(&T) -> Result<T, E>) -> Result<&T, E> {
        let me = process();
        while self.owner.load(Ordering::Acquire) != me {
            let seen = self.renewing.load(Ordering::Relaxed);
            if seen == me || self.renewing.compare_exchange(seen, me, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another thread of this process is making the value.
                std::thread::yield_now();
                continue;
            }
            // SAFETY: `get` has returned no reference in this process yet, since `owner` names another one, and
            // `renewing` keeps every other thread out of this block.
            let value = unsafe { &mut *self.value.get() };
            let renewed = renew(value).map(|new| *value = new);
            if renewed.is_ok() {
                self.owner.store(me, Ordering::Release);
            }
            self.renewing.store(NONE, Ordering::Release);
            renewed?;
            break;
        }
        // SAFETY: `owner` is this process, so no thread enters the block above, the only one that changes the value.
        Ok(unsafe { &*self.value.get() })
    }
}

/// A value in a page that forked children share with their parent.
pub(super) struct SharedPage<T>(NonNull<T>);

// SAFETY: the value owns the page until it is dropped; other threads and processes access it only as `&T`.
unsafe impl<T: Send + Sync> Send for SharedPage<T> {}
// SAFETY: `get` hands out `&T` only.
unsafe impl<T: Sync> Sync for SharedPage<T> {}

impl<T> SharedPage<T> {
    /// Maps a zeroed page for a value.
    ///
    /// # Safety
    /// All zeroes is a valid `T`; `T` has no destructor; and several processes may access it at once, because its
    /// fields are atomic.
    pub(super) unsafe fn zeroed() -> Result<Self, i32> {
        const { assert!(size_of::<T>() <= PAGE_SIZE && align_of::<T>() <= PAGE_SIZE) };
        Ok(Self(map_page(libc::MAP_SHARED)?.cast()))
    }

    pub(super) fn get(&self) -> &T {
        // SAFETY: `zeroed` mapped the page, whose size and alignment suffice by the assertion there, and whose zeroes
        // are a `T` by that function's contract.
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
    use super::{NONE, Ordering, PerProcess, number, process};

    #[test]
    fn a_child_has_another_number_also_if_the_c_library_does_not_know_of_it() {
        let parent = process();
        assert_eq!((process(), number()), (parent, parent));
        // SAFETY: the child calls nothing but what follows, which neither allocates nor returns.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            let is_right = process() != parent && process() == number();
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!is_right)) };
        }
        let mut status = -1;
        // SAFETY: waits for the child just made.
        assert_eq!(i64::from(unsafe { libc::waitpid(child as i32, &raw mut status, 0) }), child);
        assert_eq!((status, process()), (0, parent));
    }

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
