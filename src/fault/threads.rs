//! What the handler has to know about threads, in tables it can read without thread-local storage, which might
//! allocate.
//!
//! No lock guards them: a fork may come at any time, and nobody would open the lock again in the child.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// Counted up when kept answers are worth nothing any more: after the mode has changed, after a fork.
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// The present epoch.
#[inline]
pub(super) fn epoch(ordering: Ordering) -> u32 {
    EPOCH.load(ordering)
}

/// Has every thread ask the kernel before its next copy: the new epoch.
pub(super) fn invalidate_all() -> u32 {
    EPOCH.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
}

/// What is told of one thread, on a cache line of its own: it is stored to around every copy. All zeroes is a free
/// slot.
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

    /// Tells who is inside a copy; 0 that nobody is.
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

/// Slots, and where more of them are. Blocks are added when all slots are taken and never freed, because the handler
/// may be reading them; there are as many as the threads that ever copied at the same time need. All zeroes is a block
/// of free slots.
struct Block {
    slots: [Slot; SLOTS_PER_BLOCK],
    next: AtomicPtr<Block>,
}

static FIRST: Block = Block { slots: [const { Slot::new() }; SLOTS_PER_BLOCK], next: AtomicPtr::new(ptr::null_mut()) };

impl Block {
    fn following(&self) -> Option<&'static Self> {
        // SAFETY: null, or a block that `grow` allocated, which nobody frees.
        unsafe { self.next.load(Ordering::Acquire).as_ref() }
    }

    /// The block after this one, made if there is none. `None` if there is no memory for it.
    #[allow(clippy::cast_ptr_alignment)] // allocated with the block's own
    fn grow(&self) -> Option<&'static Self> {
        // SAFETY: a block is not of size zero.
        let made = unsafe { alloc_zeroed(Layout::new::<Self>()) }.cast::<Self>();
        if made.is_null() {
            return None;
        }
        if self.next.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread was faster.
            // SAFETY: allocated above with this layout and shown to nobody.
            unsafe { std::alloc::dealloc(made.cast(), Layout::new::<Self>()) };
        }
        self.following()
    }
}

fn slots() -> impl Iterator<Item = &'static Slot> {
    std::iter::successors(Some(&FIRST), |block| block.following()).flat_map(|block| &block.slots)
}

/// Counted up in a forked child, whose threads have other ids.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The kernel's id of this thread.
pub(super) fn current_tid() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Whether this thread is inside a copy. Runs in the handler.
pub(super) fn is_active() -> bool {
    let tid = current_tid();
    slots().any(|slot| slot.active.load(Ordering::Relaxed) == tid)
}

/// Whether any other thread is.
pub(super) fn is_another_active() -> bool {
    let tid = current_tid();
    slots().map(|slot| slot.active.load(Ordering::Relaxed)).any(|active| active != 0 && active != tid)
}

/// Has every other thread see what was stored here before, at the point where it is. Where the kernel cannot, a
/// millisecond has to do.
pub(super) fn order_all_threads() {
    const REGISTER: i32 = 1 << 4;
    const PRIVATE: i32 = 1 << 3;
    let barrier = |command: i32| {
        // SAFETY: touches no memory of ours.
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

/// Has the tables cleared in forked children from now on. Called when the library is loaded, before any of them is
/// used. Locks nothing: a fork in the middle of the first call would leave such a lock shut in the child.
pub(super) fn watch_forks() {
    static WATCHING: AtomicBool = AtomicBool::new(false);
    if !WATCHING.swap(true, Ordering::Relaxed) {
        // SAFETY: the child handler only stores to atomics.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    }
}

/// A thread's slot, for as long as the thread lives.
pub(super) struct SlotGuard {
    slot: &'static Slot,
    forks: u32,
}

impl SlotGuard {
    /// `None` if there is no memory for one more slot.
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

    /// Whether it was taken in this very process.
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
