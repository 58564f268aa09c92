//! Tables of threads for the signal handler, which cannot use thread-local storage, because access to that may
//! allocate.
//!
//! They have no lock: after a fork while another thread held it, the child would never get it.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// The epoch. It is incremented when the answers that threads keep become invalid: when the mode changes, when the
/// handler is installed or uninstalled on request, in a forked child, and when a guard replaces pages by zeroes or puts
/// them back.
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// The current epoch.
#[inline]
pub(super) fn epoch(ordering: Ordering) -> u32 {
    EPOCH.load(ordering)
}

/// The word that has the current epoch.
pub(super) fn epoch_word() -> &'static AtomicU32 {
    &EPOCH
}

/// Makes every thread ask the kernel before its next copy. Returns the new epoch.
pub(super) fn invalidate_all() -> u32 {
    EPOCH.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
}

/// The record of one thread. It has a cache line of its own, because it is stored to before and after every copy. All
/// zeroes are a free slot.
#[repr(align(64))]
pub(super) struct Slot {
    /// The thread's id while it is inside a copy, 0 otherwise.
    active: AtomicI32,
    is_taken: AtomicBool,
}

impl Slot {
    pub(super) const fn new() -> Self {
        Self { active: AtomicI32::new(0), is_taken: AtomicBool::new(false) }
    }

    /// Records that the thread with this id is inside a copy; 0 that none is.
    #[inline]
    pub(super) fn mark_active(&self, tid: i32) {
        self.active.store(tid, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.is_taken.compare_exchange(false, true, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn clear(&self) {
        self.mark_active(0);
        self.is_taken.store(false, Ordering::Relaxed);
    }
}

const SLOTS_PER_BLOCK: usize = 256;

/// A block of slots, in a list. A block is added when all slots are taken, and never freed, because the handler may be
/// reading it. So there are as many blocks as the largest number of threads with slots ever needed. All zeroes are a
/// block of free slots.
struct Block {
    slots: [Slot; SLOTS_PER_BLOCK],
    next: AtomicPtr<Block>,
}

static FIRST: Block = Block { slots: [const { Slot::new() }; SLOTS_PER_BLOCK], next: AtomicPtr::new(ptr::null_mut()) };

impl Block {
    fn following(&self) -> Option<&'static Self> {
        // SAFETY: the pointer is null, or to a block that `grow` allocated and published, and which is never freed.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    /// The next block, allocated if there is none. `None` if there is no memory for it.
    #[allow(clippy::cast_ptr_alignment)] // `alloc_zeroed` aligns it for a block
    fn grow(&self) -> Option<&'static Self> {
        // SAFETY: the size of a block is not 0.
        let made = unsafe { alloc_zeroed(Layout::new::<Self>()) }.cast::<Self>();
        if made.is_null() {
            return None;
        }
        if self.next.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread has added one meanwhile. SAFETY: allocated above with this layout and shown to nobody.
            unsafe { std::alloc::dealloc(made.cast(), Layout::new::<Self>()) };
        }
        self.following()
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(Some(&FIRST), |block| block.following()).flat_map(|block| &block.slots)
}

/// The number of forks that led to this process. A slot that was taken before the last one is not valid: thread ids
/// have changed.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The kernel's id of this thread.
pub(super) fn current_tid() -> i32 {
    // SAFETY: gettid has no arguments and no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Whether this thread is inside a copy. It runs in the signal handler.
pub(super) fn is_active() -> bool {
    let tid = current_tid();
    slots().any(|slot| slot.active.load(Ordering::Relaxed) == tid)
}

/// Whether any other thread is inside a copy.
pub(super) fn is_another_active() -> bool {
    let tid = current_tid();
    slots().map(|slot| slot.active.load(Ordering::Relaxed)).any(|active| active != 0 && active != tid)
}

/// A memory barrier on every thread of the process (`membarrier`): each sees the stores made here before, and this
/// thread sees theirs. If the kernel does not support it, a pause of a millisecond takes its place, by which a CPU's
/// stores have become visible.
pub(super) fn order_all_threads() {
    const REGISTER: i32 = 1 << 4;
    const PRIVATE: i32 = 1 << 3;
    let barrier = |command: i32| {
        // SAFETY: membarrier has no pointer arguments.
        unsafe { libc::syscall(libc::SYS_membarrier, libc::c_long::from(command), 0, 0) }
    };
    if barrier(REGISTER) != 0 || barrier(PRIVATE) != 0 {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

extern "C" fn in_child() {
    slots().for_each(Slot::clear);
    FORKS.fetch_add(1, Ordering::Relaxed);
    super::handler::unlock_after_fork();
    let _ = invalidate_all();
}

/// Makes forked children clear the tables, from now on. Called when the library is loaded, before the tables are used.
/// It takes no lock, which a fork during the first call would leave locked in the child.
pub(super) fn watch_forks() {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    if !WATCHING.swap(true, Ordering::Relaxed) {
        // SAFETY: `in_child` only stores to atomics, which is allowed in a forked child.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

/// A slot that belongs to a thread until it is dropped.
pub(super) struct SlotGuard {
    slot: &'static Slot,
    forks: u32,
}

impl SlotGuard {
    /// Takes a free slot. `None` if there is none and no memory for more.
    pub(super) fn take() -> Option<Self> {
        let forks = FORKS.load(Ordering::Relaxed);
        let mut block = &FIRST;
        loop {
            if let Some(slot) = block.slots.iter().find(|slot| slot.take()) {
                return Some(Self { slot, forks });
            }
            block = block.following().or_else(|| block.grow())?;
        }
    }

    /// Whether it was taken in this process, and not before a fork.
    pub(super) fn is_current(&self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    pub(super) fn slot(&self) -> &'static Slot {
        self.slot
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if self.is_current() {
            self.slot.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SLOTS_PER_BLOCK, SlotGuard, is_another_active, slots};

    #[test]
    fn there_is_a_slot_for_every_thread_and_each_is_seen() {
        let guards: Vec<_> = (0..3 * SLOTS_PER_BLOCK).map(|_| SlotGuard::take().unwrap()).collect();
        let mut addresses: Vec<_> = guards.iter().map(|guard| std::ptr::from_ref(guard.slot()).addr()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), guards.len(), "nobody shares a slot");
        let last = guards.iter().max_by_key(|guard| slots().position(|slot| std::ptr::eq(slot, guard.slot()))).unwrap();
        last.slot().mark_active(i32::MAX);
        assert!(is_another_active());
        last.slot().mark_active(0);

        let blocks = slots().count();
        drop(guards);
        let again: Vec<_> = (0..3 * SLOTS_PER_BLOCK).map(|_| SlotGuard::take().unwrap()).collect();
        assert!(slots().count() <= blocks.max(again.len() + SLOTS_PER_BLOCK), "slots given back are used again");
    }
}
