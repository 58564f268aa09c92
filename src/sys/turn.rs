//! A turn, taken by one process at a time among those forked from one another.
//!
//! Two processes that sync one file disturb each other: a failure of one is reported to the other, too, which cannot
//! tell it from its own. So a process that stores again after a failure does so in its turn, during which the others
//! begin no sync. This only makes a false failure less likely; no promise depends on it. So a turn ends after
//! [`LONGEST`], even if its process has died.

use super::fork::SharedPage;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest turn, in nanoseconds.
const LONGEST: u64 = 1_000_000_000;

/// The interval at which a waiting process checks.
const PAUSE: Duration = Duration::from_micros(100);

/// The end of the current turn, in nanoseconds of the monotonic clock, which all processes share. A time in the past
/// means that no process has the turn; 0, that none ever had or the last one gave it back.
type End = AtomicU64;

/// The shared word of the turn; `None` if its page could not be mapped. It must be called before the first fork, since
/// only later children share the page.
pub(super) fn end() -> Option<&'static End> {
    static PAGE: OnceLock<Option<SharedPage<End>>> = OnceLock::new();
    // SAFETY: `End` is an atomic integer without a destructor, for which zero is a valid value.
    PAGE.get_or_init(|| unsafe { SharedPage::zeroed() }.ok()).as_ref().map(SharedPage::get)
}

fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: every kernel has this clock, and the call writes to the local variable only.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Waits while any process has the turn.
pub(super) fn wait() {
    let Some(end) = end() else { return };
    // The usual case, in which no process has had to store again, costs one load and no look at the clock.
    while end.load(Ordering::Acquire) != 0 && end.load(Ordering::Acquire) > now() {
        std::thread::sleep(PAUSE);
    }
}

/// The turn of this process. Dropping it gives it back.
pub(super) struct Turn(u64);

impl Turn {
    /// Waits until no process has the turn, and takes it.
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
            // If the turn has taken longer than `LONGEST`, another process may have it now: then the exchange fails and
            // changes nothing.
            let _ = end.compare_exchange(self.0, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}
