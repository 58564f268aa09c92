//! Waiting for a word to change (`futex(2)`). A wait ends after a time, and when a signal arrives, so that Python can
//! run its signal handlers.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Waits while `word` equals `seen`: until [`wake_all`], a signal or `timeout`. The caller looks at the word again,
/// since this does not say which ended the wait.
pub fn wait(word: &AtomicU32, seen: u32, timeout: Duration) {
    let timeout = libc::timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: timeout.subsec_nanos().into() };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the word and the time are valid for the call, which only reads them.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, seen, &raw const timeout) };
}

/// Wakes every thread that waits for `word`.
pub fn wake_all(word: &AtomicU32) {
    // SAFETY: the call does not access the word; it wakes threads of this process that wait at its address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG, i32::MAX) };
}
