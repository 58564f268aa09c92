//! Which of the two signals a thread blocks, and the shortest time in which a thread can change its signals.
//!
//! A change is timed when the first thread reads its mask, and again whenever a read takes less time than any before.
//! The speed of the CPU affects both alike, so that a change cannot have become quicker unnoticed.

use super::handler::SIGNALS;
use crate::arch::ticks;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};

/// The shortest time, in clock ticks, that a read of the signal mask has taken in any thread. `u64::MAX` until a thread
/// has measured it.
static QUICKEST_ANSWER: AtomicU64 = AtomicU64::new(u64::MAX);

/// The shortest time, in clock ticks, that a change of the signal mask, or a read of a handler, has taken in any
/// thread.
static QUICKEST_CHANGE: AtomicU64 = AtomicU64::new(u64::MAX);

/// The shortest time, in clock ticks, in which a system call can change a thread's mask or a handler. A handler is
/// replaced no quicker than it is read. `u64::MAX` until a thread has measured it.
#[inline]
pub(super) fn quickest_change() -> u64 {
    QUICKEST_CHANGE.load(Ordering::Relaxed)
}

/// Says which of the two signals this thread blocks, if it blocks one: a fault kills the process then, whatever the
/// handler. Also measures how long a read of the signal mask takes, and if need be a change.
pub(super) fn blocked_signal() -> Option<&'static str> {
    // SAFETY: a `sigset_t` is an array of integers, for which all zeroes are valid.
    let mut blocked: libc::sigset_t = unsafe { std::mem::zeroed() };
    // The very first call may take many times as long as later ones, so the first measurement is the best of eight.
    let calls = if QUICKEST_ANSWER.load(Ordering::Acquire) == u64::MAX { TIMED_CALLS } else { 1 };
    // SAFETY: with a null new mask the call changes nothing; it fills `blocked`, a local.
    let ask = || unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut blocked) };
    let taken = quickest(calls, ask);
    if taken < QUICKEST_ANSWER.load(Ordering::Relaxed) {
        // In this order: a thread that finds the time of a read finds the time of a change as well.
        time_a_change(&blocked, taken);
        QUICKEST_ANSWER.fetch_min(taken, Ordering::Release);
    }
    let names = ["SIGBUS is blocked in this thread", "SIGSEGV is blocked in this thread"];
    // SAFETY: `blocked` is a valid set, which the call above filled; both signals exist.
    let is_blocked = |signal: i32| unsafe { libc::sigismember(&raw const blocked, signal) } == 1;
    SIGNALS.into_iter().zip(names).find(|(signal, _)| is_blocked(*signal)).map(|(_, name)| name)
}

/// How many calls a first measurement is the best of.
const TIMED_CALLS: usize = 8;

/// Makes `calls` calls and returns the shortest time that one of them took, in clock ticks.
fn quickest(calls: usize, mut call: impl FnMut() -> i32) -> u64 {
    let timed = || {
        let before = ticks();
        let _ = call();
        ticks().wrapping_sub(before)
    };
    std::iter::repeat_with(timed).take(calls).min().unwrap_or(0)
}

/// Measures how long a change of the signal mask takes, by blocking a signal that is not `blocked` and unblocking it
/// again. If that signal arrives meanwhile, it is delivered 0.1 microseconds later. If all of the candidates are
/// blocked, the time of a read, `answer`, stands for the time of a change: it is shorter.
#[cold]
fn time_a_change(blocked: &libc::sigset_t, answer: u64) {
    /// Signals that lose nothing by coming a little later.
    const PATIENT: [i32; 3] = [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD];
    // SAFETY: a set that its borrower has filled; the signals exist.
    let is_blocked = |signal: &i32| unsafe { libc::sigismember(blocked, *signal) } == 1;
    let Some(signal) = PATIENT.into_iter().find(|signal| !is_blocked(signal)) else {
        QUICKEST_CHANGE.fetch_min(answer, Ordering::Relaxed);
        return;
    };
    // SAFETY: a sigset is plain bits, for which zeroes are valid.
    let mut one: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours to fill; the signal exists.
    unsafe { libc::sigaddset(&raw mut one, signal) };
    // SAFETY: `one` was just filled, and nobody asks for the old mask.
    let change = |how| unsafe { libc::pthread_sigmask(how, &raw const one, std::ptr::null_mut()) };
    let mut least = u64::MAX;
    for _ in 0..TIMED_CALLS {
        for how in [libc::SIG_BLOCK, libc::SIG_UNBLOCK] {
            least = least.min(quickest(1, || change(how)));
        }
    }
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action only asks; `action` is ours to fill; the signal exists.
    let ask = || unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    QUICKEST_CHANGE.fetch_min(least.min(quickest(TIMED_CALLS, ask)), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::{blocked_signal, quickest, quickest_change, ticks, time_a_change};
    use std::mem::MaybeUninit;

    fn set(how: i32, signal: i32) -> i32 {
        let mut one = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: the set is ours to fill; the signal exists.
        unsafe { libc::sigaddset(one.as_mut_ptr(), signal) };
        // SAFETY: the set was just filled, and nobody asks for the old mask.
        unsafe { libc::pthread_sigmask(how, one.as_ptr(), std::ptr::null_mut()) }
    }

    fn blocked() -> libc::sigset_t {
        let mut blocked = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: a null new mask only asks; the set is ours to fill.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), blocked.as_mut_ptr()) };
        // SAFETY: filled by the call, and zeroes are valid, too.
        unsafe { blocked.assume_init() }
    }

    fn is_in(set: &libc::sigset_t, signal: i32) -> bool {
        // SAFETY: a filled set; the signal exists.
        unsafe { libc::sigismember(set, signal) == 1 }
    }

    #[test]
    fn no_change_of_this_threads_mask_is_quicker_than_the_quickest() {
        assert_eq!(blocked_signal(), None);
        if ticks() == 0 {
            assert_eq!(quickest_change(), 0, "without a clock no gap is short enough");
            return;
        }
        let change = || set(libc::SIG_BLOCK, libc::SIGUSR2) + set(libc::SIG_UNBLOCK, libc::SIGUSR2);
        // Two changes, so that a clock which goes up in this moment is no failure.
        assert!(quickest(10_000, change) > quickest_change());
    }

    #[test]
    fn timing_a_change_leaves_the_mask_as_it_was() {
        for own in [&[][..], &[libc::SIGURG], &[libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD]] {
            for signal in own {
                assert_eq!(set(libc::SIG_BLOCK, *signal), 0);
            }
            time_a_change(&blocked(), u64::MAX);
            for signal in [libc::SIGURG, libc::SIGWINCH, libc::SIGCHLD, libc::SIGBUS] {
                assert_eq!(is_in(&blocked(), signal), own.contains(&signal));
            }
            for signal in own {
                assert_eq!(set(libc::SIG_UNBLOCK, *signal), 0);
            }
        }
    }
}
