//! A turn that processes take which were forked from one another.
//!
//! Two processes that sync one file disturb each other: each is told of the other's failures and cannot tell them from
//! its own. So who stores again after a failure does it while the others begin no sync. Nothing that is promised hangs
//! on it: a process that dies in its turn, or takes longer than [`LONGEST`], only has the others go on.

use super::fork::SharedPage;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long the others wait at most, in nanoseconds.
const LONGEST: u64 = 1_000_000_000;

/// How often a waiting process looks.
const PAUSE: Duration = Duration::from_micros(100);

/// When the turn ends, in nanoseconds of the monotonic clock, which all processes share; in the past if it is nobody's.
type End = AtomicU64;

/// Where the turn is, if there was memory for it. To be called before there are forks.
pub(super) fn end() -> Option<&'static End> {
    static PAGE: OnceLock<Option<SharedPage<End>>> = OnceLock::new();
    // SAFETY: the type is atomic, and zero lies in the past.
    PAGE.get_or_init(|| unsafe { SharedPage::zeroed() }.ok()).as_ref().map(SharedPage::get)
}

fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists in every kernel, and the answer goes to the local variable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits while it is anybody's turn.
pub(super) fn wait() {
    let Some(end) = end() else { return };
    // Nobody has ever had to store again.
    while end.load(Ordering::Acquire) != 0 && end.load(Ordering::Acquire) > now() {
        std::thread::sleep(PAUSE);
    }
}

/// The turn, until it is dropped.
pub(super) struct Turn(u64);

impl Turn {
    /// Takes it when it is nobody's.
    pub(super) fn take() -> Self {
        let Some(end) = end() else { return Self(0) };
        loop {
            let (seen, now) = (end.load(Ordering::Acquire), now());
            let mine = now + LONGEST;
            if seen <= now && end.compare_exchange(seen, mine, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Self(mine);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(end) = end() {
            // Somebody else's by now if this one took too long.
            let _ = end.compare_exchange(self.0, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
