//! One call of a whole transfer. It stops exactly at bad memory, and neither splits nor cuts a message: on a socket
//! that keeps messages apart, what is sent is one message, and what is received is one.

use super::{Failure, Result, memory};
use crate::abi::{Direction, UIO_MAXIOV};
use crate::error::{Error, Result as Checked};
use crate::iter::IovIter;
use crate::sys::vectored::{self, Batch};
use std::ops::ControlFlow;
use std::os::fd::RawFd;

/// One call of a whole transfer over `fd`, for at most `limit` bytes.
///
/// A call over memory that is bad somewhere may fail as a whole, though its first bytes are good: a stream socket drops
/// the chunk that a fault was met in, a pipe the page. So a call that fails with EFAULT is made again for the good
/// bytes only, and one with no good byte ahead fails with [`Failure::Fault`]. Memory may go bad between the look and
/// the call, which is then made again, [`TRIES`] times at most. EFAULT for another reason stays what it is. A message
/// is not made again shorter: it fails where its memory is bad.
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

/// How often a call is made that fails with EFAULT, though there are good bytes ahead.
const TRIES: usize = 16;

/// Refuses to send what one call for `limit` bytes cannot take, to a socket that would make several messages of it.
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

/// Refuses to receive from a socket that keeps messages apart into memory that is bad somewhere: the message would be
/// lost.
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
