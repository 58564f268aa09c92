//! Waiting for a descriptor.

use super::errno;
use std::os::fd::RawFd;
use std::time::Duration;

/// What a descriptor is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ready {
    /// It can be read from, or has ended.
    Read,
    /// It can be written to.
    Write,
}

/// Waits until the descriptor is ready or has failed, for at most `timeout`: whether it is. EINTR when a signal came
/// first.
pub fn wait(fd: RawFd, ready: Ready, timeout: Duration) -> Result<bool, i32> {
    let events = match ready {
        Ready::Read => libc::POLLIN,
        Ready::Write => libc::POLLOUT,
    };
    let mut asked = libc::pollfd { fd, events, revents: 0 };
    // Rounded up: to wake up before the time is over would be to ask again and again for its last fraction.
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
    // SAFETY: one record of ours, for the length of the call.
    match unsafe { libc::poll(&raw mut asked, 1, milliseconds) } {
        0 => Ok(false),
        1.. => Ok(true),
        _ => Err(errno()),
    }
}
