//! Writing a ring's bytes to a descriptor.

use super::{Failure, Result, memory};
use crate::abi::{Direction, UIO_MAXIOV};
use crate::error::Result as Checked;
use crate::fault::shelter::Mark;
use crate::structure::{Reader, Slot};
use crate::sys::vectored::{self, Batch};
use std::os::fd::RawFd;

/// Makes one `writev` of the ring's oldest bytes: at most `nbytes`, up to the first page that a guard has replaced by
/// zeroes. It consumes the bytes written, of a torn write only the good ones. Returns their number, or why there are
/// none, and the slots that were offered: the caller drops those after it has given up the reading end, since dropping
/// a page may run Python code.
///
/// On a socket with message boundaries all bytes are sent as one message or none is: EMSGSIZE if one call does not take
/// them all, EFAULT if some are replaced by zeroes.
pub fn splice(reader: &Reader<'_>, fd: RawFd, nbytes: usize) -> Checked<(Result<usize>, Vec<Slot>)> {
    let slots = reader.peek(nbytes, UIO_MAXIOV + 1)?;
    let mut batch = Batch::new(nbytes);
    for slot in &slots {
        batch.push(slot.seg());
    }
    if batch.nbytes() == 0 {
        return Ok((Ok(0), slots));
    }
    let mark = Mark::now();
    let clear = memory::clear(mark, batch.pieces(), batch.nbytes());
    let refused = match (clear, slots.len()) {
        (0, _) => Some(libc::EFAULT),
        (_, slots) if slots > UIO_MAXIOV && !vectored::is_stream(fd) => Some(libc::EMSGSIZE),
        (clear, _) if clear < batch.nbytes() && !vectored::is_stream(fd) => Some(libc::EFAULT),
        _ => None,
    };
    if let Some(errno) = refused {
        return Ok((Err(Failure::Errno(errno)), slots));
    }
    batch.truncate(clear);
    // SAFETY: the batch has the pages of `slots`, which keep them, and which the ring was given as memory to read
    // (`Memory::new`).
    let written = unsafe { vectored::write(fd, batch.pieces(), None, 0) }.map_err(Failure::Errno);
    let written = written.and_then(|written| {
        let good = memory::clear(mark, batch.pieces(), written);
        reader.consume(&slots, good);
        if good == written {
            return Ok(written);
        }
        Err(Failure::Torn(memory::torn(mark, batch.pieces(), written, Direction::Source)))
    });
    Ok((written, slots))
}
