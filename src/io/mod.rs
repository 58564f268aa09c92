//! One system call over what remains of an iterator, and the cursor moved by exactly its result.
//!
//! The kernel fills a file's read from, and a file's write to, an `iov_iter`; here the same cursor stands on the
//! caller's side of the call. [`over`] is the one dispatch over kinds. Every function below makes one call of
//! [`crate::sys::vectored`]; what to do about EINTR, EAGAIN and short counts is for the caller, whose loop it is.

mod memory;
mod splice;
mod whole;

pub use splice::splice;
pub use vectored::is_stream;
pub use whole::whole;

use crate::abi::{Direction, MAX_RW_COUNT, PAGE_SIZE, UIO_MAXIOV};
use crate::error::{Error, Result as Checked, try_push};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::memory::{Owner, Segment};
use crate::sys::vectored::{self, Batch, Beside, Received};
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Why a call transferred nothing. The iterator stands where it stood.
#[derive(Debug)]
pub enum Failure {
    /// It was not made.
    Refused(Error),
    /// The kernel's answer.
    Errno(i32),
    /// EFAULT, and memory ahead in the iterator is why: the very first byte, or one of a message.
    Fault(Box<Fault>),
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
    let limit = remote_limit(pid, remote)?;
    // SAFETY: `over` hands out memory of a READ iterator, given to be overwritten.
    over(i, None, limit, |segs| unsafe { vectored::process_vm_read(pid, segs, remote) })
}

/// `process_vm_writev` from a source, to the remote ranges one after the other.
///
/// # Safety
/// `pid` is another process, or every byte of `remote` that is mapped and writable is the caller's to overwrite.
pub unsafe fn process_vm_write(i: &mut IovIter, pid: i32, remote: &[Segment]) -> Result<usize> {
    i.require(Direction::Source, "process_vm_writev")?;
    let limit = remote_limit(pid, remote)?;
    // SAFETY: the caller answers for `remote`.
    over(i, None, limit, |segs| unsafe { vectored::process_vm_write(pid, segs, remote) })
}

/// The most bytes that can go to or come from the remote ranges: in this process they may be under zeroes, too.
fn remote_limit(pid: i32, remote: &[Segment]) -> Result<usize> {
    let nbytes = remote.iter().fold(0_usize, |nbytes, seg| nbytes.saturating_add(seg.len));
    if i64::from(pid) != i64::from(std::process::id()) {
        return Ok(usize::MAX);
    }
    match memory::clear(remote) {
        clear if clear == nbytes => Ok(usize::MAX),
        0 => Err(Failure::Errno(libc::EFAULT)),
        clear => Ok(clear),
    }
}

/// Calls `call` with the next pieces, as many as one call takes and at most `limit` bytes, and moves the iterator by
/// its result.
///
/// Where bytes remain but no memory for them, nothing is called and the answer is EFAULT, as the kernel's file
/// operations answer a copy that got nowhere: at a hole of an XARRAY, at the end of a FOLIOQ, and for a PIPE that is
/// full. Memory that a guard has zeroes in place of ends a call before it, and keeps a message from being sent or
/// received at all: `socket` is what the call goes over if that may be one that keeps messages apart.
fn over<T: Transferred>(
    i: &mut IovIter,
    socket: Option<RawFd>,
    limit: usize,
    call: impl FnOnce(&[Segment]) -> std::result::Result<T, i32>,
) -> Result<T> {
    let limit = limit.min(i.count());
    if let Some((segs, offered)) = i.next_whole(UIO_MAXIOV, limit.min(MAX_RW_COUNT))
        && memory::clear(segs) == offered
    {
        let segments = segs.len();
        let done = call(segs).map_err(Failure::Errno)?;
        i.fault = None;
        match done.nbytes().min(offered) {
            0 => {}
            nbytes if nbytes == offered => i.skip_whole(segments, nbytes),
            nbytes => i.advance(nbytes)?,
        }
        return Ok(done);
    }
    over_pieces(i, socket, limit, call)
}

/// The same where the pieces have to be collected first.
#[inline(never)]
fn over_pieces<T: Transferred>(
    i: &mut IovIter,
    socket: Option<RawFd>,
    limit: usize,
    call: impl FnOnce(&[Segment]) -> std::result::Result<T, i32>,
) -> Result<T> {
    let mut batch = Batch::new(limit);
    if let Some(offer) = i.offer(limit) {
        let _ = offer.segs().all(|seg| batch.push(seg));
        return finish(i, socket, &mut batch, call, |i, nbytes| {
            i.accept(offer, nbytes);
            Ok(())
        });
    }
    if i.kind().is_destination_only() {
        // DISCARD: the call needs memory, though nobody reads it.
        while batch.push(SINK.seg()) {}
        return finish(i, socket, &mut batch, call, IovIter::advance);
    }
    // The pages stay while the kernel works on them, whatever somebody stores in their place meanwhile.
    let kept = collect(i, limit, &mut batch)?;
    let result = finish(i, socket, &mut batch, call, IovIter::advance);
    drop(kept);
    result
}

fn go_on(more: bool) -> ControlFlow<()> {
    if more { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn finish<T: Transferred>(
    i: &mut IovIter,
    socket: Option<RawFd>,
    batch: &mut Batch,
    call: impl FnOnce(&[Segment]) -> std::result::Result<T, i32>,
    moved: impl FnOnce(&mut IovIter, usize) -> Checked<()>,
) -> Result<T> {
    if batch.nbytes() == 0 && i.count() != 0 && batch.limit() != 0 {
        return Err(no_memory(i).into());
    }
    let clear = memory::clear(batch.pieces());
    if clear < batch.nbytes() {
        if clear == 0 || socket.is_some_and(|fd| !vectored::is_stream(fd)) {
            return Err(memory::fault(i, batch.address_at(clear)));
        }
        batch.cut(clear);
    }
    let done = call(batch.pieces()).map_err(Failure::Errno)?;
    i.fault = None;
    // MSG_TRUNC makes recvmsg return bytes that went nowhere.
    let nbytes = done.nbytes().min(batch.nbytes());
    // An advance by nothing would step over empty segments.
    if nbytes != 0 {
        moved(i, nbytes)?;
    }
    Ok(done)
}

#[cold]
fn no_memory(i: &IovIter) -> Error {
    if i.has_free_slots() {
        return Error::NoMemory(PAGE_SIZE);
    }
    Error::os(libc::EFAULT, format!("{}, {} bytes before the iterator's end", i.kind().end_of_memory(), i.count()))
}

/// Puts the next pieces into `batch`; returns what keeps the pages among them. Refuses a destination with a page that
/// has become read-only.
fn collect(i: &IovIter, limit: usize, batch: &mut Batch) -> Checked<Vec<Owner>> {
    let (mut kept, mut result) = (Vec::new(), Ok(()));
    let is_destination = i.direction() == Direction::Dest;
    i.pieces(limit, |piece| {
        if let Some(page) = piece.page {
            if is_destination && !page.writable() {
                result = Err(Error::ReadOnly { what: i.kind().unit(), index: kept.len() });
                return ControlFlow::Break(());
            }
            result = try_push(&mut kept, Arc::clone(page.owner()));
            if result.is_err() {
                return ControlFlow::Break(());
            }
        }
        go_on(batch.push(piece.seg))
    });
    result.map(|()| kept)
}

/// Where DISCARD has the kernel put bytes that nobody reads: the same memory for every piece of every call of every
/// thread.
#[repr(align(4096))]
struct Sink(std::cell::UnsafeCell<[u8; 16 * PAGE_SIZE]>);

// SAFETY: only the kernel writes to it, and nothing reads it.
unsafe impl Sync for Sink {}

static SINK: Sink = Sink(std::cell::UnsafeCell::new([0; 16 * PAGE_SIZE]));

impl Sink {
    fn seg(&self) -> Segment {
        Segment::new(self.0.get().expose_provenance(), size_of::<Self>())
    }
}

#[cfg(test)]
mod tests;
