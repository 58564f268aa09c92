//! One call of a whole transfer. It stops exactly at bad memory. On a socket with message boundaries it neither splits
//! nor truncates: the bytes of one call are one message.

use super::{Failure, Result, memory};
use crate::abi::{Direction, UIO_MAXIOV};
use crate::error::{Error, Result as Checked};
use crate::iter::IovIter;
use crate::sys::vectored::{self, Batch};
use std::ops::ControlFlow;
use std::os::fd::RawFd;

/// One call of a whole transfer over `fd`, for at most `limit` bytes.
///
/// A call over memory that is bad somewhere may fail as a whole although its first bytes are good: a stream socket
/// discards the chunk in which a fault happened, a pipe the page. So after EFAULT the bytes ahead are faulted in, and
/// the call is repeated for the good ones only; if the next byte is bad, the result is [`Failure::Fault`]. Memory may
/// go bad between those two steps, so this is repeated up to `TRIES` times. An EFAULT that has nothing to do with the
/// iterator's memory is returned as it is. A message is not repeated shorter: it fails.
pub fn whole<T>(
    i: &mut IovIter,
    fd: RawFd,
    limit: usize,
    mut call: impl FnMut(&mut IovIter, usize) -> Result<T>,
) -> Result<T> {
    match i.direction() {
        Direction::Source => require_one_message(i, fd, limit)?,
        Direction::Dest => require_room(i, fd, limit)?,
    }
    let mut good = limit;
    for _ in 0..TRIES {
        match call(i, good) {
            Err(Failure::Errno(libc::EFAULT)) => {}
            done => return done,
        }
        good = memory::good_prefix(i, limit);
        if good == 0 || !vectored::is_stream(fd) {
            return match memory::address_at(i, good) {
                Some(at) => Err(memory::fault(i, at)),
                None => Err(Failure::Errno(libc::EFAULT)),
            };
        }
    }
    Err(Failure::Errno(libc::EFAULT))
}

/// How often a call is made that fails with EFAULT although good bytes are ahead.
const TRIES: usize = 16;

/// Refuses to send more than one call for `limit` bytes takes to a socket with message boundaries, where it would
/// become several messages.
fn require_one_message(i: &IovIter, fd: RawFd, limit: usize) -> Checked<()> {
    let fits = i.count() <= limit && (1..=UIO_MAXIOV).contains(&i.nr_segs());
    if fits || vectored::is_stream(fd) {
        return Ok(());
    }
    let mut batch = Batch::new(limit.min(i.count()));
    i.pieces(i.count(), |piece| if batch.push(piece.seg) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) });
    if batch.nbytes() == i.count() {
        return Ok(());
    }
    let (count, taken, pieces) = (i.count(), batch.nbytes(), batch.pieces().len());
    let context = format!("i has {count} bytes: one message takes {taken}, the first {pieces} segments");
    Err(Error::os(libc::EMSGSIZE, context))
}

/// Refuses to receive from a socket with message boundaries into memory that is bad somewhere. The kernel removes a
/// message from the queue even if storing it faults.
fn require_room(i: &mut IovIter, fd: RawFd, limit: usize) -> Result<()> {
    if i.kind().is_destination_only() || vectored::is_stream(fd) {
        return Ok(());
    }
    let good = memory::good_prefix(i, limit);
    match memory::address_at(i, good) {
        Some(at) if good < limit.min(i.count()) => Err(memory::fault(i, at)),
        Some(_) | None => Ok(()),
    }
}
