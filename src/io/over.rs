//! One call over the next pieces of an iterator: the one dispatch over kinds.

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

/// Calls `call` with the next pieces, as many as one call takes and at most `limit` bytes, and moves the iterator by
/// its result.
///
/// Where bytes remain but no memory for them, nothing is called and the answer is EFAULT, as the kernel's file
/// operations answer a copy that got nowhere: at a hole of an XARRAY, at the end of a FOLIOQ, and for a PIPE that is
/// full. Memory that a guard has zeroes in place of ends a call before it (what it puts there during the call is not
/// counted, see [`Torn`]), and keeps a message from being sent or
/// received at all: `socket` is what the call goes over if that may be one that keeps messages apart.
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
    let mark = Mark::now();
    let clear = memory::clear(mark, batch.pieces(), batch.nbytes());
    if clear < batch.nbytes() {
        if clear == 0 || socket.is_some_and(|fd| !vectored::is_stream(fd)) {
            return Err(memory::fault(i, batch.address_at(clear)));
        }
        batch.cut(clear);
    }
    let done = call(batch.pieces()).map_err(Failure::Errno)?;
    // MSG_TRUNC makes recvmsg return bytes that went nowhere.
    let nbytes = done.nbytes().min(batch.nbytes());
    if memory::clear(mark, batch.pieces(), nbytes) < nbytes {
        let torn = memory::torn(mark, batch.pieces(), nbytes, i.direction());
        return Err(torn_at(i, torn, moved));
    }
    i.fault = None;
    // An advance by nothing would step over empty segments.
    if nbytes != 0 {
        moved(i, nbytes)?;
    }
    Ok(done)
}

/// Moves the iterator on by the good bytes of a torn transfer.
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
pub(super) struct Sink(std::cell::UnsafeCell<[u8; 16 * PAGE_SIZE]>);

// SAFETY: only the kernel writes to it, and nothing reads it.
unsafe impl Sync for Sink {}

pub(super) static SINK: Sink = Sink(std::cell::UnsafeCell::new([0; 16 * PAGE_SIZE]));

impl Sink {
    fn seg(&self) -> Segment {
        Segment::new(self.0.get().expose_provenance(), size_of::<Self>())
    }
}
