//! For how long the kernel's answer, that a thread's faults come to our handler, is worth something.
//!
//! A thread that does anything to its signals makes a system call. So an answer is as good as new for a copy that
//! begins less time after the thread's last one ended than the quickest such call takes: there was no time for
//! anything. Other threads may act at any time, so no answer is good for long. The clock and the time of the quickest
//! call are the caller's, in the same unit.

use std::cell::Cell;

/// Copies of heap memory for which one answer is good: only failing hardware can take that memory away.
pub(super) const VALID_COPIES: u32 = 1024;

/// Clock ticks, about a tenth of a millisecond, after which what other threads do is noticed.
pub(super) const VALID_TICKS: u64 = 1 << 18;

/// What one thread knows. Nothing, to begin with.
pub(super) struct Freshness {
    /// Copies of heap memory for which the last answer is still good; 0 if there is no answer.
    copies_left: Cell<u32>,
    /// When the kernel answered.
    answered: Cell<u64>,
    /// When the last copy of memory that can vanish ended, or the kernel answered for it.
    finished: Cell<u64>,
}

impl Freshness {
    pub(super) const fn new() -> Self {
        Self { copies_left: Cell::new(0), answered: Cell::new(0), finished: Cell::new(0) }
    }

    /// The kernel has just said that faults come to our handler.
    pub(super) fn answer(&self, now: u64) {
        self.copies_left.set(VALID_COPIES);
        self.answered.set(now);
        self.finished.set(now);
    }

    /// What was known may be true no more.
    pub(super) fn invalidate(&self) {
        self.copies_left.set(0);
    }

    /// Whether there is an answer that is good for some copy.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.copies_left.get() > 0
    }

    /// Counts a copy of heap memory, for which an answer is known.
    #[inline]
    pub(super) fn use_up(&self) {
        self.copies_left.set(self.copies_left.get() - 1);
    }

    /// Whether a known answer is good for a copy of memory that can vanish, which begins now.
    #[inline]
    pub(super) fn is_good(&self, now: u64, quickest_call: u64) -> bool {
        now.wrapping_sub(self.finished.get()) < quickest_call && now.wrapping_sub(self.answered.get()) < VALID_TICKS
    }

    /// No call fits between the last copy and now either, or it is too late.
    #[inline]
    pub(super) fn extend(&self, now: u64, quickest_call: u64) {
        if now.wrapping_sub(self.finished.get()) < quickest_call {
            self.finished.set(now);
        }
    }

    /// A copy of memory that can vanish has ended.
    #[inline]
    pub(super) fn finish(&self, now: u64) {
        self.finished.set(now);
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
        // However long the copy itself took.
        freshness.finish(50_000);
        assert!(freshness.is_good(50_000 + CALL - 1, CALL));
        assert!(!freshness.is_good(50_000 + CALL, CALL));
    }

    #[test]
    fn a_long_way_is_looked_at_in_parts_none_of_which_fits_a_call() {
        let freshness = Freshness::new();
        freshness.answer(1000);
        freshness.extend(1000 + CALL - 1, CALL);
        assert!(freshness.is_good(1000 + 2 * (CALL - 1), CALL));
        freshness.extend(1000 + 2 * CALL, CALL);
        assert!(!freshness.is_good(1000 + 2 * CALL, CALL), "one part was too long");
        freshness.extend(1000 + 2 * CALL + 1, CALL);
        assert!(!freshness.is_good(1000 + 2 * CALL + 1, CALL), "and stays too long");
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
