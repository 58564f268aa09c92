//! What the handler has to know about threads, in tables it can read without thread-local storage, which might allocate.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};

/// Threads that can be inside a copy at once and be known for it. One more is only not recognised when somebody
/// re-raises its fault.
const THREADS: usize = 1024;

/// No lock guards them: a fork may come at any time, and nobody would open it again in the child.
static SLOTS: [Slot; THREADS] = [const { Slot::new() }; THREADS];
/// How many slots from the first on ever had a thread.
static EVER_TAKEN: AtomicUsize = AtomicUsize::new(0);

/// What is told of one thread, on a line of its own: it is stored to around every copy.
#[repr(align(64))]
pub(super) struct Slot {
    /// The thread's id while it is inside a copy, 0 otherwise.
    armed: AtomicI32,
    is_taken: AtomicBool,
}

impl Slot {
    pub(super) const fn new() -> Self {
        Self { armed: AtomicI32::new(0), is_taken: AtomicBool::new(false) }
    }

    /// Tells who is inside a copy; 0 that nobody is.
    #[inline]
    pub(super) fn arm(&self, tid: i32) {
        self.armed.store(tid, Ordering::Relaxed);
    }

    fn take(&self) -> bool {
        self.is_taken.compare_exchange(false, true, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    fn clear(&self) {
        self.arm(0);
        self.is_taken.store(false, Ordering::Relaxed);
    }
}

/// Counted up in a forked child, whose threads have other ids.
static FORKS: AtomicU32 = AtomicU32::new(0);

/// The kernel's id of this thread.
pub(super) fn current_tid() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::syscall(libc::SYS_gettid) as i32 }
}

/// Whether this thread is inside a copy. Runs in the handler.
pub(super) fn is_armed() -> bool {
    let tid = current_tid();
    armed().any(|armed| armed == tid)
}

/// Whether any other thread is. One without a slot is not seen.
pub(super) fn is_another_armed() -> bool {
    let tid = current_tid();
    armed().any(|armed| armed != 0 && armed != tid)
}

fn armed() -> impl Iterator<Item = i32> {
    SLOTS[..EVER_TAKEN.load(Ordering::Relaxed)].iter().map(|slot| slot.armed.load(Ordering::Relaxed))
}

/// Has every other thread see what was stored here before, at the point where it is. Where the kernel cannot, a millisecond has to do.
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
    SLOTS[..EVER_TAKEN.load(Ordering::Relaxed)].iter().for_each(Slot::clear);
    FORKS.fetch_add(1, Ordering::Relaxed);
    super::engine::forget();
}

/// Has the tables cleared in forked children.
pub(super) fn watch_forks() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the child handler only stores to atomics.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// A thread's slot in the table of those inside a copy, for as long as the thread lives.
pub(super) struct Seat {
    slot: Option<usize>,
    forks: u32,
}

impl Seat {
    pub(super) fn take() -> Self {
        // Counted first: a child that is forked in between clears what is counted.
        let slot = SLOTS.iter().enumerate().position(|(at, slot)| {
            EVER_TAKEN.fetch_max(at + 1, Ordering::Relaxed);
            slot.take()
        });
        Self { slot, forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Whether it was taken in this very process.
    pub(super) fn is_current(&self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    pub(super) fn slot(&self) -> Option<&'static Slot> {
        self.slot.map(|slot| &SLOTS[slot])
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.filter(|_| self.is_current()) {
            SLOTS[slot].clear();
        }
    }
}

/// Threads that can be inside a delegated signal at once.
const DELEGATIONS: usize = 64;
/// Kernel faults inside one another that a handler below may have: one that leaves by longjmp is never seen to return.
const DEPTH: u32 = 4;

struct Record {
    /// The thread's id and the signal; 0 is free.
    key: AtomicUsize,
    /// Where on the stack it was.
    frame: AtomicUsize,
    depth: AtomicU32,
}

static RECORDS: [Record; DELEGATIONS] =
    [const { Record { key: AtomicUsize::new(0), frame: AtomicUsize::new(0), depth: AtomicU32::new(0) } }; DELEGATIONS];

/// Forgets who is inside a handler below: a new one is below now.
pub(super) fn forget_delegations() {
    for record in &RECORDS {
        record.key.store(0, Ordering::Relaxed);
    }
}

/// A signal handed on to the handler below, for as long as that runs.
pub(super) struct Delegation(Option<&'static Record>);

impl Delegation {
    /// `None` when this is the same signal coming round again.
    pub(super) fn begin(signal: i32, from_kernel: bool) -> Option<Self> {
        let key = (current_tid() as usize) << 8 | signal as usize;
        let here = 0_u8;
        let frame = (&raw const here).addr();
        if let Some(record) = RECORDS.iter().find(|record| record.key.load(Ordering::Relaxed) == key) {
            // A frame at least as high as the recorded one means that one was left without returning.
            let nested = frame < record.frame.load(Ordering::Relaxed);
            let depth = if nested { record.depth.load(Ordering::Relaxed) + 1 } else { 0 };
            if nested && (!from_kernel || depth > DEPTH) {
                return None;
            }
            record.frame.store(frame, Ordering::Relaxed);
            record.depth.store(depth, Ordering::Relaxed);
            return Some(Self(Some(record)));
        }
        let free = RECORDS
            .iter()
            .find(|record| record.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed).is_ok());
        if let Some(record) = free {
            record.frame.store(frame, Ordering::Relaxed);
            record.depth.store(0, Ordering::Relaxed);
        }
        Some(Self(free))
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        if let Some(record) = self.0 {
            record.key.store(0, Ordering::Relaxed);
        }
    }
}
