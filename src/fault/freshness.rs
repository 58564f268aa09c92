//! Decides how long the kernel's answer, that the faults of a thread reach our handler, may be reused.
//!
//! A thread needs a system call to change its signals. If its next copy begins sooner after its last one ended than the
//! quickest such call takes, the thread cannot have changed anything, and the answer is still true as far as this
//! thread goes. Other threads may replace the handler at any time, so no answer is used for long. The caller supplies
//! the clock and the duration of the quickest change, in the same unit, so that the tests can use a fake clock.

use std::cell::Cell;

/// The number of copies of heap memory for which one answer is reused. It may be large, since only failing hardware
/// makes heap memory fault.
pub(super) const VALID_COPIES: u32 = 1024;

/// The clock ticks, about 0.1 ms, for which one answer is reused for memory that can vanish. A change by another thread
/// is noticed by then.
pub(super) const VALID_TICKS: u64 = 1 << 18;

/// The last answer that one thread got. A new thread has none.
pub(super) struct Freshness {
    /// The number of copies of heap memory for which the answer may still be used; 0 if there is no answer.
    copies_left: Cell<u32>,
    /// The time of the answer.
    answered: Cell<u64>,
    /// The last time at which no system call can have been made since the answer: when the last copy of memory that can
    /// vanish ended, or when `extend` was called in time.
    finished: Cell<u64>,
    /// Whether that was so long ago that the kernel is asked in any case: no more of the way is looked at.
    is_late: Cell<bool>,
}

impl Freshness {
    pub(super) const fn new() -> Self {
        Self { copies_left: Cell::new(0), answered: Cell::new(0), finished: Cell::new(0), is_late: Cell::new(true) }
    }

    /// Records that the kernel answered, at `now`, that faults reach our handler.
    pub(super) fn answer(&self, now: u64) {
        self.copies_left.set(VALID_COPIES);
        self.answered.set(now);
        self.finish(now);
    }

    /// Drops the answer, which may no longer be true.
    pub(super) fn invalidate(&self) {
        self.copies_left.set(0);
    }

    /// Whether there is an answer.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.copies_left.get() > 0
    }

    /// Counts a copy of heap memory. There must be an answer.
    #[inline]
    pub(super) fn use_up(&self) {
        self.copies_left.set(self.copies_left.get() - 1);
    }

    /// Whether the answer may be used for a copy of memory that can vanish and that begins at `now`.
    #[inline]
    pub(super) fn is_good(&self, now: u64, quickest_change: u64) -> bool {
        let is_in_time = now.wrapping_sub(self.finished.get()) < quickest_change;
        !self.is_late.get() && is_in_time && now.wrapping_sub(self.answered.get()) < VALID_TICKS
    }

    /// Extends the time for which the answer may be used, if no system call fits between the last copy and `now`.
    /// Otherwise the answer is late from then on, and the clock is not read again until the kernel has answered anew: a
    /// thread that copies only heap memory would pay for it with the time of a short copy.
    #[inline]
    pub(super) fn extend(&self, now: impl FnOnce() -> u64, quickest_change: u64) {
        if self.is_late.get() {
            return;
        }
        let now = now();
        if now.wrapping_sub(self.finished.get()) < quickest_change {
            self.finished.set(now);
        } else {
            self.is_late.set(true);
        }
    }

    /// Records that a copy of memory that can vanish ended at `now`.
    #[inline]
    pub(super) fn finish(&self, now: u64) {
        self.finished.set(now);
        self.is_late.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::{Freshness, VALID_COPIES, VALID_TICKS};

    const CALL: u64 = 230;

    #[test]
    fn nothing_is_known_before_the_kernel_answered() {
        let freshness = Freshness::new();
        assert!(!freshness.is_known());
        freshness.answer(1000);
        assert!(freshness.is_known());
        freshness.invalidate();
        assert!(!freshness.is_known());
    }

    #[test]
    fn one_answer_is_good_for_so_many_copies_of_heap_memory() {
        let freshness = Freshness::new();
        freshness.answer(1000);
        for _ in 0..VALID_COPIES {
            assert!(freshness.is_known());
            freshness.use_up();
        }
        assert!(!freshness.is_known());
    }

    #[test]
    fn a_gap_in_which_a_system_call_fits_is_too_long() {
        let freshness = Freshness::new();
        freshness.answer(1000);
        assert!(freshness.is_good(1000 + CALL - 1, CALL));
        assert!(!freshness.is_good(1000 + CALL, CALL));
        // The duration of the copy itself does not count.
        freshness.finish(50_000);
        assert!(freshness.is_good(50_000 + CALL - 1, CALL));
        assert!(!freshness.is_good(50_000 + CALL, CALL));
    }

    #[test]
    fn a_long_way_is_looked_at_in_parts_none_of_which_fits_a_call() {
        let freshness = Freshness::new();
        freshness.answer(1000);
        freshness.extend(|| 1000 + CALL - 1, CALL);
        assert!(freshness.is_good(1000 + 2 * (CALL - 1), CALL));
        freshness.extend(|| 1000 + 2 * CALL, CALL);
        assert!(!freshness.is_good(1000 + 2 * CALL, CALL), "one part was too long");
        freshness.extend(|| panic!("it is too late, whatever the time is"), CALL);
        assert!(!freshness.is_good(1000 + 1, CALL), "and stays too long");
        freshness.finish(5000);
        freshness.extend(|| 5001, CALL);
        assert!(freshness.is_good(5001 + CALL - 1, CALL), "until the next copy has ended");
    }

    #[test]
    fn copies_without_a_gap_ask_again_in_time() {
        let freshness = Freshness::new();
        freshness.answer(1000);
        let mut now = 1000;
        while freshness.is_good(now, CALL) {
            now += 100;
            freshness.finish(now);
        }
        assert_eq!((now - 1000) / 100, VALID_TICKS.div_ceil(100));
        freshness.answer(now);
        assert!(freshness.is_good(now + 1, CALL));
    }

    #[test]
    fn a_clock_that_goes_backwards_or_stands_still_for_ever_makes_it_ask() {
        let freshness = Freshness::new();
        freshness.answer(1000);
        assert!(!freshness.is_good(999, CALL));
        assert!(!freshness.is_good(1000, 0), "no call has been timed");
    }
}
