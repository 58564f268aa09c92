//! Waiting for a descriptor.

use super::errno;
use std::os::fd::RawFd;
use std::time::Duration;

/// The condition to wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// A read would not block: there is data, or the end.
    Read,
    /// A write would not block.
    Write,
}

/// Waits at most `timeout` until the descriptor is ready or has failed; whether it is or has. EINTR if a signal came
/// first.
pub fn wait(fd: RawFd, ready: Ready, timeout: Duration) -> Result<bool, i32> {
    let events = match ready {
        Ready::Read => libc::POLLIN,
        Ready::Write => libc::POLLOUT,
    };
    let mut asked = libc::pollfd { fd, events, revents: 0 };
    // Rounded up to milliseconds: a wait that ended before the caller's deadline would be repeated in a busy loop.
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
    // SAFETY: the call reads and writes one record, a local variable.
    match unsafe { libc::poll(&raw mut asked, 1, milliseconds) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => Err(errno()),
    }
}
