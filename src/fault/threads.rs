//! What the handler has to know about threads, in tables it can read without thread-local storage, which might allocate.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};

/// Threads that can be inside a copy at once and be known for it. One more is only not recognised when somebody
/// re-raises its fault.
const THREADS: usize = 1024;

/// The ids of threads inside a copy.
static ARMED: [AtomicI32; THREADS] = [const { AtomicI32::new(0) }; THREADS];

/// Which slots of [`ARMED`] have a thread, and how many from the first on ever had one. No lock: a fork may come at any time, and
/// nobody would open it again in the child.
static TAKEN: [AtomicBool; THREADS] = [const { AtomicBool::new(false) }; THREADS];
static EVER_TAKEN: AtomicUsize = AtomicUsize::new(0);

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
    ARMED[..EVER_TAKEN.load(Ordering::Relaxed)].iter().map(|slot| slot.load(Ordering::Relaxed))
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
    for (slot, taken) in ARMED.iter().zip(&TAKEN) {
        slot.store(0, Ordering::Relaxed);
        taken.store(false, Ordering::Relaxed);
    }
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
        let take =
            |taken: &AtomicBool| taken.compare_exchange(false, true, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let slot = TAKEN.iter().position(take);
        if let Some(slot) = slot {
            EVER_TAKEN.fetch_max(slot + 1, Ordering::Relaxed);
        }
        Self { slot, forks: FORKS.load(Ordering::Relaxed) }
    }

    /// Whether it was taken in this very process.
    pub(super) fn is_current(&self) -> bool {
        self.forks == FORKS.load(Ordering::Relaxed)
    }

    /// Holds the thread's id while it is inside a copy.
    pub(super) fn flag(&self) -> Option<&'static AtomicI32> {
        self.slot.map(|slot| &ARMED[slot])
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.filter(|_| self.is_current()) {
            ARMED[slot].store(0, Ordering::Relaxed);
            TAKEN[slot].store(false, Ordering::Relaxed);
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
