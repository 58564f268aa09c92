//! One system call over what remains of an iterator, and the cursor moved by exactly its result.
//!
//! The kernel fills a file's read from, and a file's write to, an `iov_iter`; here the same cursor stands on the
//! caller's side of the call. Every function below makes one call of
//! [`crate::sys::vectored`]; what to do about EINTR, EAGAIN and short counts is for the caller, whose loop it is.

mod memory;
mod over;
mod splice;
mod whole;

pub use splice::splice;
pub use vectored::is_stream;
pub use whole::whole;

use crate::abi::Direction;
use crate::error::Error;
use crate::fault::Fault;
use crate::fault::shelter::Mark;
use crate::iter::IovIter;
use crate::memory::Segment;
use crate::sys::vectored::{self, Beside, Received};
use over::over;
use std::os::fd::RawFd;

/// Why a call transferred nothing that counts, in all cases but the last. The iterator stands where it stood.
#[derive(Debug)]
pub enum Failure {
    /// It was not made.
    Refused(Error),
    /// The kernel's answer.
    Errno(i32),
    /// EFAULT, and memory ahead in the iterator is why: the very first byte, or one of a message.
    Fault(Box<Fault>),
    /// It transferred more than counts: a guard of another thread put zeroes in place of bad memory meanwhile.
    Torn(Torn),
}

/// What a call transferred, some of it zeroes of a guard, or lost in their place. Only the good bytes count, and the
/// iterator stands behind them: at the bad memory.
#[derive(Debug)]
pub struct Torn {
    /// Bytes before the first that may be wrong.
    pub good: usize,
    /// Bytes from there on that have gone out all the same, or came and may be lost.
    pub wrong: usize,
    /// What the guard met.
    pub fault: Box<Fault>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Result of one call.
pub type Result<T> = std::result::Result<T, Failure>;

/// What a successful call says of the bytes it transferred.
pub trait Transferred {
    /// How many bytes.
    fn nbytes(&self) -> usize;

    /// Whether a message was longer than the memory for it, so that its end is lost.
    fn is_cut(&self) -> bool {
        false
    }
}

impl Transferred for usize {
    fn nbytes(&self) -> usize {
        *self
    }
}

impl Transferred for Received {
    fn nbytes(&self) -> usize {
        self.nbytes
    }

    fn is_cut(&self) -> bool {
        self.flags & libc::MSG_TRUNC != 0
    }
}

/// `readv`, `preadv`, `preadv2` into a destination: at most `limit` bytes.
pub fn read(i: &mut IovIter, fd: RawFd, at: Option<i64>, flags: i32, limit: usize) -> Result<usize> {
    i.require(Direction::Dest, if at.is_none() { "readv" } else { "preadv" })?;
    // SAFETY: `over` hands out memory of a READ iterator, which whoever made the iterator gave to be overwritten.
    over(i, Some(fd), limit, |segs| unsafe { vectored::read(fd, segs, at, flags) })
}

/// The same, but from a socket that keeps messages apart with `recvmsg`, which tells of one that was cut.
pub fn read_message(i: &mut IovIter, fd: RawFd, at: Option<i64>, flags: i32, limit: usize) -> Result<Received> {
    if at.is_some() || flags != 0 || is_stream(fd) {
        let nbytes = read(i, fd, at, flags, limit)?;
        return Ok(Received { nbytes, ..Received::default() });
    }
    // SAFETY: nothing is received beside the data.
    unsafe { receive(i, fd, Beside::default(), 0, limit) }
}

/// `writev`, `pwritev`, `pwritev2` from a source: at most `limit` bytes.
pub fn write(i: &mut IovIter, fd: RawFd, at: Option<i64>, flags: i32, limit: usize) -> Result<usize> {
    i.require(Direction::Source, if at.is_none() { "writev" } else { "pwritev" })?;
    over(i, Some(fd), limit, |segs| vectored::write(fd, segs, at, flags))
}

/// `sendmsg` from a source: at most `limit` bytes.
pub fn send(i: &mut IovIter, fd: RawFd, beside: Beside, flags: i32, limit: usize) -> Result<usize> {
    i.require(Direction::Source, "sendmsg")?;
    over(i, Some(fd), limit, |segs| vectored::send(fd, segs, beside, flags))
}

/// `recvmsg` into a destination: at most `limit` bytes. Only bytes that came into memory move the iterator,
/// whatever number `MSG_TRUNC` has the call return: it tells a datagram's length, and has TCP drop what it counts.
///
/// # Safety
/// Every byte of the ranges in `beside` that is mapped and writable is the caller's to overwrite.
pub unsafe fn receive(i: &mut IovIter, fd: RawFd, beside: Beside, flags: i32, limit: usize) -> Result<Received> {
    i.require(Direction::Dest, "recvmsg")?;
    // SAFETY: `over` hands out memory of a READ iterator, given to be overwritten; the caller answers for `beside`.
    over(i, Some(fd), limit, |segs| unsafe { vectored::receive(fd, segs, beside, flags) })
}

/// `vmsplice`: a source's pages into a pipe by reference, or a pipe's bytes into a destination. EBADF unless `fd` is
/// the end of the pipe that goes with the direction: the kernel would go by the descriptor and transfer the other way.
/// The kernel waits at a pipe that does not block, too, unless `SPLICE_F_NONBLOCK` is among the flags: here it is then.
pub fn vmsplice(i: &mut IovIter, fd: RawFd, flags: u32) -> Result<usize> {
    let status = vectored::status(fd).map_err(Failure::Errno)?;
    let fits = match i.direction() {
        Direction::Source => status.writable,
        Direction::Dest => status.readable && !status.writable,
    };
    if !fits {
        return Err(Failure::Errno(libc::EBADF));
    }
    let flags = if status.blocks { flags } else { flags | libc::SPLICE_F_NONBLOCK };
    // SAFETY: a source is only spliced into a descriptor that is open for writing; a destination was given to be
    // overwritten.
    over(i, None, usize::MAX, |segs| unsafe { vectored::vmsplice(fd, segs, flags) })
}

/// `process_vm_readv` into a destination, from the remote ranges one after the other.
pub fn process_vm_read(i: &mut IovIter, pid: i32, remote: &[Segment]) -> Result<usize> {
    i.require(Direction::Dest, "process_vm_readv")?;
    // SAFETY: `over` hands out memory of a READ iterator, given to be overwritten.
    remotely(i, pid, remote, |segs| unsafe { vectored::process_vm_read(pid, segs, remote) })
}

/// `process_vm_writev` from a source, to the remote ranges one after the other.
///
/// # Safety
/// `pid` is another process, or every byte of `remote` that is mapped and writable is the caller's to overwrite.
pub unsafe fn process_vm_write(i: &mut IovIter, pid: i32, remote: &[Segment]) -> Result<usize> {
    i.require(Direction::Source, "process_vm_writev")?;
    // SAFETY: the caller answers for `remote`.
    remotely(i, pid, remote, |segs| unsafe { vectored::process_vm_write(pid, segs, remote) })
}

/// A call whose remote ranges, in this process, may be under zeroes, too.
fn remotely(
    i: &mut IovIter,
    pid: i32,
    remote: &[Segment],
    call: impl FnOnce(&[Segment]) -> std::result::Result<usize, i32>,
) -> Result<usize> {
    let mark = Mark::now();
    // No other process is asked about while nothing of this one's is under zeroes.
    let clear = |nbytes| {
        let all_clear = mark.is_undisturbed() || !vectored::is_own_process(pid);
        if all_clear { nbytes } else { memory::clear(mark, remote, nbytes) }
    };
    let nbytes = remote.iter().fold(0_usize, |nbytes, seg| nbytes.saturating_add(seg.len));
    let limit = match clear(nbytes) {
        0 if nbytes != 0 => return Err(Failure::Errno(libc::EFAULT)),
        limit => limit,
    };
    let done = over(i, None, limit, call)?;
    let good = clear(done);
    if good == done {
        return Ok(done);
    }
    i.take_back(done - good)?;
    // What is the source here is the destination there.
    let far = if i.direction() == Direction::Source { Direction::Dest } else { Direction::Source };
    let fault = Box::new(memory::met(mark, remote, good, far));
    Err(Failure::Torn(Torn { good, wrong: done - good, fault }))
}

#[cfg(test)]
mod tests;
