//! One system call over the next pieces of an iterator, for every kind.

use super::{Failure, Result, Torn, Transferred, memory};
use crate::abi::{Direction, MAX_RW_COUNT, PAGE_SIZE, UIO_MAXIOV};
use crate::error::{Error, Result as Checked, try_push};
use crate::fault::shelter::Mark;
use crate::iter::IovIter;
use crate::memory::{Owner, Segment};
use crate::sys::vectored::{self, Batch};
use std::ops::ControlFlow;
use std::os::fd::RawFd;
use std::sync::Arc;

/// Passes `call` the next pieces, as many as one system call takes and at most `limit` bytes, and moves the iterator by
/// its result.
///
/// If bytes remain but there is no memory for them, it makes no call and returns EFAULT: at a hole of an XARRAY, at the
/// end of a FOLIOQ, and for a full PIPE. (The kernel's file operations return EFAULT when a copy makes no progress.)
///
/// A page that a guard has replaced by zeroes ends the transfer before it. A page replaced during the call makes the
/// result [`Torn`]. A message cannot be sent or received in part: if `socket` has message boundaries, the call is not
/// made at all. Calls over other things than sockets pass `None`.
pub(super) fn over<T: Transferred>(
    i: &mut IovIter,
    socket: Option<RawFd>,
    limit: usize,
    call: impl FnOnce(&[Segment]) -> std::result::Result<T, i32>,
) -> Result<T> {
    let (mark, limit) = (Mark::now(), limit.min(i.count()));
    if let Some((segs, offered)) = i.next_whole(UIO_MAXIOV, limit.min(MAX_RW_COUNT))
        && memory::clear(mark, segs, offered) == offered
    {
        let segments = segs.len();
        let done = call(segs).map_err(Failure::Errno)?;
        let nbytes = done.nbytes().min(offered);
        if !mark.is_undisturbed() && memory::clear(mark, segs, nbytes) < nbytes {
            let torn = memory::torn(mark, segs, nbytes, i.direction());
            return Err(torn_at(i, torn, IovIter::advance));
        }
        i.fault = None;
        match nbytes {
            0 => {}
            nbytes if nbytes == offered => i.skip_whole(segments, nbytes),
            nbytes => i.advance(nbytes)?,
        }
        return Ok(done);
    }
    over_pieces(i, socket, limit, call)
}

/// [`over`], for pieces that must be collected in a batch first.
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
        // DISCARD has no memory, but the system call needs a place for the bytes.
        while batch.push(SINK.seg()) {}
        return finish(i, socket, &mut batch, call, IovIter::advance);
    }
    // `kept` keeps the pages alive during the call, even if another thread replaces them in the structure meanwhile.
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
    let mark = Mark::now();
    let clear = memory::clear(mark, batch.pieces(), batch.nbytes());
    if clear < batch.nbytes() {
        if clear == 0 || socket.is_some_and(|fd| !vectored::is_stream(fd)) {
            return Err(memory::fault(i, batch.address_at(clear)));
        }
        batch.truncate(clear);
    }
    let done = call(batch.pieces()).map_err(Failure::Errno)?;
    // With MSG_TRUNC, recvmsg counts bytes that were stored nowhere.
    let nbytes = done.nbytes().min(batch.nbytes());
    if memory::clear(mark, batch.pieces(), nbytes) < nbytes {
        let torn = memory::torn(mark, batch.pieces(), nbytes, i.direction());
        return Err(torn_at(i, torn, moved));
    }
    i.fault = None;
    // An advance by 0 bytes would move past empty segments, and a call that transferred nothing must change nothing.
    if nbytes != 0 {
        moved(i, nbytes)?;
    }
    Ok(done)
}

/// Moves the iterator by the good bytes of a torn transfer.
#[cold]
fn torn_at(i: &mut IovIter, torn: Torn, moved: impl FnOnce(&mut IovIter, usize) -> Checked<()>) -> Failure {
    i.fault = Some(torn.fault.clone());
    if torn.good != 0
        && let Err(error) = moved(i, torn.good)
    {
        return error.into();
    }
    Failure::Torn(torn)
}

#[cold]
fn no_memory(i: &IovIter) -> Error {
    if i.has_free_slots() {
        return Error::NoMemory(PAGE_SIZE);
    }
    Error::os(libc::EFAULT, format!("{}, {} bytes before the iterator's end", i.kind().end_of_memory(), i.count()))
}

/// Adds the next pieces to `batch`; returns the owners of their pages. Refuses a destination with a page that has
/// become read-only.
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

/// Where the kernel stores bytes for DISCARD. All pieces of all calls of all threads use the same memory, since nobody
/// reads it.
#[repr(align(4096))]
pub(super) struct Sink(std::cell::UnsafeCell<[u8; 16 * PAGE_SIZE]>);

// SAFETY: only the kernel writes to the bytes, nothing reads them, and no reference to them is ever made.
unsafe impl Sync for Sink {}

pub(super) static SINK: Sink = Sink(std::cell::UnsafeCell::new([0; 16 * PAGE_SIZE]));

impl Sink {
    fn seg(&self) -> Segment {
        Segment::new(self.0.get().expose_provenance(), size_of::<Self>())
    }
}
