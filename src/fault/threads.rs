//! What the handler has to know about threads, in tables it can read without thread-local storage, which might allocate.

use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};

/// Threads that can be inside a copy at once and be known for it. One more is only not recognised when somebody
/// re-raises its fault.
const THREADS: usize = 1024;

/// The ids of threads inside a copy.
static ARMED: [AtomicI32; THREADS] = [const { AtomicI32::new(0) }; THREADS];

/// Slots of [`ARMED`] handed out so far; freed ones are re-used through [`FREE`].
static HANDED_OUT: AtomicUsize = AtomicUsize::new(0);
static FREE: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());

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
    let known = HANDED_OUT.load(Ordering::Relaxed).min(THREADS);
    ARMED[..known].iter().any(|slot| slot.load(Ordering::Relaxed) == tid)
}

extern "C" fn in_child() {
    for slot in &ARMED {
        slot.store(0, Ordering::Relaxed);
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
        let freed = FREE.lock().ok().and_then(|mut free| free.pop());
        let slot = freed.or_else(|| Some(HANDED_OUT.fetch_add(1, Ordering::Relaxed)).filter(|slot| *slot < THREADS));
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
        if let (Some(slot), Ok(mut free)) = (self.slot, FREE.lock()) {
            ARMED[slot].store(0, Ordering::Relaxed);
            free.push(slot);
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
