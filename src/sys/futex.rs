//! Waiting for a number to change (`futex(2)`), as Python needs it: a signal ends the wait, and so does time.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Waits while `word` is `seen`: until [`wake_all`], for at most `timeout`, or until a signal arrives.
pub fn wait(word: &AtomicU32, seen: u32, timeout: Duration) {
    let timeout = libc::timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time are valid for the call, which only reads them. Why it ended makes no difference.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, seen, &raw const timeout) };
}

/// Wakes everybody who waits for `word`.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: the call does not access the word; it wakes threads of this process that wait at its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX) };
}
