//! One system call over the rest of an iterator, which moves by exactly the call's result.
//!
//! In the kernel an `iov_iter` is what a file's read fills and a file's write reads from. Here the same cursor is on
//! the caller's side of the call. Each function makes one call of [`crate::sys::vectored`]. The caller has the loop
//! around it, and decides what to do about EINTR, EAGAIN and short counts.

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
use crate::sys::vectored::{self, MessageHeader, Received};
use over::over;
use std::os::fd::RawFd;

/// Why a call failed. In all cases but [`Failure::Torn`] it transferred nothing, and the iterator has not moved.
#[derive(Debug)]
pub enum Failure {
    /// The call was not made.
    Refused(Error),
    /// The errno that the kernel returned.
    Errno(i32),
    /// EFAULT, because of the iterator's memory: its next byte, or, on a socket with message boundaries, any byte of
    /// the message.
    Fault(Box<Fault>),
    /// The call transferred bytes of which some do not count, because a guard replaced bad memory by zeroes at that
    /// moment.
    Torn(Torn),
}

/// A transfer whose last part is wrong: zeroes of a guard were sent as data, or received data was stored in a guard's
/// zeroes and may be lost. Only the good bytes count. The iterator has moved by them and is at the bad memory.
#[derive(Debug)]
pub struct Torn {
    /// Bytes before the first one that may be wrong.
    pub good: usize,
    /// Bytes from there on: sent all the same, or received and perhaps lost.
    pub wrong: usize,
    /// The fault that the guard survived.
    pub fault: Box<Fault>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// The result of one call.
pub type Result<T> = std::result::Result<T, Failure>;

/// The result of a successful call.
pub trait Transferred {
    /// The bytes transferred.
    fn nbytes(&self) -> usize;

    /// Whether a message was longer than the memory for it, so that its end was discarded.
    fn is_truncated(&self) -> bool {
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

    fn is_truncated(&self) -> bool {
        self.flags & libc::MSG_TRUNC != 0
    }
}

/// `readv`, `preadv`, `preadv2` into a destination: at most `limit` bytes.
pub fn read(i: &mut IovIter, fd: RawFd, at: Option<i64>, flags: i32, limit: usize) -> Result<usize> {
    i.require(Direction::Dest, if at.is_none() { "readv" } else { "preadv" })?;
    // SAFETY: `over` passes the memory of a READ iterator, which its maker vouched for as a destination
    // (`Memory::new`).
    over(i, Some(fd), limit, |segs| unsafe { vectored::read(fd, segs, at, flags) })
}

/// [`read`], but with `recvmsg` if the descriptor is a socket with message boundaries: only that call reports a
/// truncated message.
pub fn read_message(i: &mut IovIter, fd: RawFd, at: Option<i64>, flags: i32, limit: usize) -> Result<Received> {
    if at.is_some() || flags != 0 || is_stream(fd) {
        let nbytes = read(i, fd, at, flags, limit)?;
        return Ok(Received { nbytes, ..Received::default() });
    }
    // SAFETY: `MessageHeader::default()` is two empty ranges, so nothing but the data is received.
    unsafe { receive(i, fd, MessageHeader::default(), 0, limit) }
}

/// `writev`, `pwritev`, `pwritev2` from a source: at most `limit` bytes.
pub fn write(i: &mut IovIter, fd: RawFd, at: Option<i64>, flags: i32, limit: usize) -> Result<usize> {
    i.require(Direction::Source, if at.is_none() { "writev" } else { "pwritev" })?;
    // SAFETY: `over` passes the memory of a WRITE iterator, which its maker vouched for as a source (`Memory::new`).
    over(i, Some(fd), limit, |segs| unsafe { vectored::write(fd, segs, at, flags) })
}

/// `sendmsg` from a source: at most `limit` bytes.
///
/// # Safety
/// Every byte of the ranges in `beside` that is mapped and readable is the caller's to read.
pub unsafe fn send(i: &mut IovIter, fd: RawFd, beside: MessageHeader, flags: i32, limit: usize) -> Result<usize> {
    i.require(Direction::Source, "sendmsg")?;
    // SAFETY: `over` passes the memory of a WRITE iterator, which its maker vouched for as a source (`Memory::new`);
    // the caller vouches for `beside`.
    over(i, Some(fd), limit, |segs| unsafe { vectored::send(fd, segs, beside, flags) })
}

/// `recvmsg` into a destination: at most `limit` bytes. The iterator moves by the bytes stored in its memory. With
/// `MSG_TRUNC` among the flags the call may return more: the full length of a datagram, or bytes that TCP discarded.
///
/// # Safety
/// Every byte of the ranges in `beside` that is mapped and writable is the caller's to overwrite.
pub unsafe fn receive(i: &mut IovIter, fd: RawFd, beside: MessageHeader, flags: i32, limit: usize) -> Result<Received> {
    i.require(Direction::Dest, "recvmsg")?;
    // SAFETY: `over` passes the memory of a READ iterator, which its maker vouched for as a destination
    // (`Memory::new`); the caller vouches for `beside`.
    over(i, Some(fd), limit, |segs| unsafe { vectored::receive(fd, segs, beside, flags) })
}

/// `vmsplice`: gives a pipe references to a source's pages, or copies a pipe's bytes into a destination.
///
/// EBADF unless `fd` is the pipe's end for the direction. The kernel chooses the direction by the descriptor, so with
/// the wrong end it would overwrite the source. And it blocks even on a descriptor with `O_NONBLOCK` unless
/// `SPLICE_F_NONBLOCK` is among the flags, so this function adds that flag for such a descriptor.
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
    // SAFETY: a source is only passed with a descriptor that is open for writing (`fits`); the memory of a destination
    // was vouched for as one (`Memory::new`).
    over(i, None, usize::MAX, |segs| unsafe { vectored::vmsplice(fd, segs, flags) })
}

/// `process_vm_readv` into a destination, from the remote ranges in order.
///
/// # Safety
/// `pid` is another process, or every byte of `remote` that is mapped and readable is the caller's to read.
pub unsafe fn process_vm_read(i: &mut IovIter, pid: i32, remote: &[Segment]) -> Result<usize> {
    i.require(Direction::Dest, "process_vm_readv")?;
    // SAFETY: `over` passes the memory of a READ iterator, which its maker vouched for as a destination
    // (`Memory::new`); the caller vouches for `remote`.
    remotely(i, pid, remote, |segs| unsafe { vectored::process_vm_read(pid, segs, remote) })
}

/// `process_vm_writev` from a source, to the remote ranges in order.
///
/// # Safety
/// `pid` is another process, or every byte of `remote` that is mapped and writable is the caller's to overwrite.
pub unsafe fn process_vm_write(i: &mut IovIter, pid: i32, remote: &[Segment]) -> Result<usize> {
    i.require(Direction::Source, "process_vm_writev")?;
    // SAFETY: `over` passes the memory of a WRITE iterator, which its maker vouched for as a source (`Memory::new`);
    // the caller vouches for `remote`.
    remotely(i, pid, remote, |segs| unsafe { vectored::process_vm_write(pid, segs, remote) })
}

/// A call with remote ranges. If the remote process is this one, a guard's zeroes may be in those ranges, too, so they
/// are checked as the iterator's memory is.
fn remotely(
    i: &mut IovIter,
    pid: i32,
    remote: &[Segment],
    call: impl FnOnce(&[Segment]) -> std::result::Result<usize, i32>,
) -> Result<usize> {
    let mark = Mark::now();
    // `is_own_process` makes a system call, so it is asked only if some memory is or was replaced by zeroes.
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
    // The remote side of a source is the destination, and the other way round.
    let far = if i.direction() == Direction::Source { Direction::Dest } else { Direction::Source };
    let fault = Box::new(memory::zeroes_fault(mark, remote, good, far));
    Err(Failure::Torn(Torn { good, wrong: done - good, fault }))
}

#[cfg(test)]
mod tests;
