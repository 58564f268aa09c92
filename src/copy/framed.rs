//! A line of one's own that says what an iterator's data sum to, and the data, both written past the caches in one
//! copy: how a log appends and how a slot publishes.
//!
//! The bytes pass through a buffer on the stack, where they are summed: what the line says of them is said of the bytes
//! that are written, whoever changes the source meanwhile. The rest of the last line becomes zeroes, so that every line
//! is written whole.

use super::bounce::{Ahead, Outcome, must_read_ahead};
use super::chunk::poison;
use super::copier::Copier;
use super::crc32c::Sum;
use super::flushcache::require_write_back;
use super::nontemporal::{self, Flush, LineStore};
use super::step::FromIter;
use crate::abi::Direction;
use crate::arch::LINE;
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::Memory;
use std::mem::MaybeUninit;

/// How many bytes of data are read before they are written. More are not: they would drain while nothing is summed, and
/// be summed while nothing drains.
const BLOCK: usize = 4 << 10;

/// Bytes that fit a small buffer, which is cheaper to have.
const SMALL: usize = 448;

/// A line, and room for data behind it, at a line's start.
#[repr(C, align(64))]
struct StagingBuffer<const N: usize> {
    line: [u8; LINE],
    data: [MaybeUninit<u8>; N],
}

/// Where a line and its data go, and in what order they may reach the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The data right behind the line, in any order: one fence orders both before whatever follows.
    Behind {
        /// Where the line goes.
        line: usize,
    },
    /// The data anywhere, and before the line: a fence is between them.
    Before {
        /// Where the line goes.
        line: usize,
        /// Where the data go.
        data: usize,
    },
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framed {
    /// All of it was written, and fenced.
    Whole,
    /// Not all of the data could be read. The line was not written.
    Unread,
    /// Some of the memory cannot be written to. The line may have been.
    Unwritten,
}

/// Writes the line that `line` makes of the data's sum, and `nbytes` of data, and fences. `fill` reads the next bytes
/// of the data to an address, and returns how many it read.
///
/// # Safety
/// The line and the data, in whole lines, go to destinations that [`super::chunk::CopyChunk::copy`] accepts.
pub(super) unsafe fn frame<S: LineStore>(
    store: &mut S,
    flush: Flush,
    to: Place,
    nbytes: usize,
    fill: impl FnMut(&mut S, usize, usize) -> usize,
    line: impl Fn(u32) -> [u8; LINE],
) -> Framed {
    let framed = if nbytes <= SMALL {
        // SAFETY: the caller of `frame` promises it.
        unsafe { frame_staged::<S, SMALL>(store, flush, to, nbytes, fill, line) }
    } else {
        // SAFETY: the caller of `frame` promises it.
        unsafe { frame_staged::<S, BLOCK>(store, flush, to, nbytes, fill, line) }
    };
    store.fence();
    framed
}

/// # Safety
/// As for [`frame`].
#[inline(never)]
unsafe fn frame_staged<S: LineStore, const N: usize>(
    store: &mut S,
    flush: Flush,
    to: Place,
    nbytes: usize,
    mut fill: impl FnMut(&mut S, usize, usize) -> usize,
    line: impl Fn(u32) -> [u8; LINE],
) -> Framed {
    let mut stage = StagingBuffer::<N> { line: [0; LINE], data: [MaybeUninit::uninit(); N] };
    poison(&mut stage.data);
    let (line_at, data_at) = match to {
        Place::Behind { line } => (line, line + LINE),
        Place::Before { line, data } => (line, data),
    };
    let mut sum = Sum::from(0);
    let mut done = 0;
    loop {
        let part = N.min(nbytes - done);
        let padded = part.next_multiple_of(LINE);
        let own = stage.data.as_mut_ptr().expose_provenance();
        let read = if part == 0 { 0 } else { fill(store, own, part) };
        if read < part {
            return Framed::Unread;
        }
        stage.data[part..padded].fill(MaybeUninit::new(0));
        let is_last = done + part == nbytes;
        let is_in_one = done == 0 && is_last && matches!(to, Place::Behind { .. });
        if !is_in_one {
            // SAFETY: the caller of `frame` promises it; the source is the buffer, of which `padded` bytes are
            // initialised.
            if unsafe { nontemporal::copy(store, flush, data_at + done, own, padded) } != 0 {
                return Framed::Unwritten;
            }
        }
        // SAFETY: `fill` has written the first `part` bytes of the buffer, which is ours alone.
        let staged = unsafe { std::slice::from_raw_parts_mut(stage.data.as_mut_ptr().cast::<u8>(), part) };
        // The first block, which may not have been written yet, is left as it is: nothing was summed before it.
        sum.add(staged);
        done += part;
        if is_last {
            stage.line = line(sum.finish());
            if matches!(to, Place::Before { .. }) {
                store.fence();
            }
            let whole = (&raw mut stage).expose_provenance();
            let len = if is_in_one { LINE + padded } else { LINE };
            // SAFETY: the caller of `frame` promises it; the source is the buffer, of which the line and, where all is
            // written in one, `padded` bytes behind it are initialised.
            let left = unsafe { nontemporal::copy(store, flush, line_at, whole, len) };
            return if left == 0 { Framed::Whole } else { Framed::Unwritten };
        }
    }
}

/// Copies all that is left of an iterator behind the line that `line` makes of its sum, with one fence. `dst` begins at
/// a line's start and has room for both, in whole lines; its length is returned if all of it was written. Otherwise 0,
/// with the iterator where it stood, and why: the fault of either side, or nothing where the iterator has a hole. Where
/// `is_durable`, what was written has left the caches.
pub(crate) fn copy_framed_from_iter(
    dst: Memory,
    i: &mut IovIter,
    is_durable: bool,
    line: impl Fn(u32) -> [u8; LINE],
) -> Result<Outcome> {
    let (nbytes, len, addr) = (i.count(), dst.len(), dst.seg().addr);
    if !addr.is_multiple_of(LINE)
        || nbytes.checked_next_multiple_of(LINE).and_then(|n| n.checked_add(LINE)) != Some(len)
    {
        return Err(Error::BeyondBuffer { nbytes, len });
    }
    let flush = if is_durable { Flush::Lines } else { Flush::None };
    copy_framed([dst, dst.skip(LINE)], Place::Behind { line: addr }, i, flush, "append", line)
}

/// Copies all that is left of an iterator to `data`, and then, behind a fence, the line that `line` makes of its sum to
/// `header`, which is a line long. `data` has room in whole lines. All of it has left the caches then. Returns the
/// bytes of data, or 0 as [`copy_framed_from_iter`] does: then the line was not written whole.
pub(crate) fn copy_published_from_iter(
    header: Memory,
    data: Memory,
    i: &mut IovIter,
    line: impl Fn(u32) -> [u8; LINE],
) -> Result<Outcome> {
    let (nbytes, len) = (i.count(), data.len());
    if header.len() != LINE || nbytes.checked_next_multiple_of(LINE).is_none_or(|padded| padded > len) {
        return Err(Error::BeyondBuffer { nbytes, len });
    }
    let to = Place::Before { line: header.seg().addr, data: data.seg().addr };
    let (done, fault) = copy_framed([header, data], to, i, Flush::Lines, "publish", line)?;
    Ok((if done == 0 { 0 } else { nbytes }, fault))
}

/// As [`copy_framed_from_iter`]: the bytes of what the line goes to. `dst` is that, and what the data go to.
fn copy_framed(
    dst: [Memory; 2],
    to: Place,
    i: &mut IovIter,
    flush: Flush,
    operation: &'static str,
    line: impl Fn(u32) -> [u8; LINE],
) -> Result<Outcome> {
    if flush == Flush::Lines {
        require_write_back()?;
    }
    i.require(Direction::Source, operation)?;
    let nbytes = i.count();
    let mut copier = Copier::new(&dst, &[i])?;
    let mut ahead = None;
    // The line is written when all of the source has been read.
    if must_read_ahead(i, dst[1].seg(), Direction::Source) {
        ahead = Some(Ahead::read(&mut copier, i, nbytes)?);
    }
    let source = ahead.as_mut().map_or(&mut *i, |ahead| &mut ahead.i);
    let mut done = 0;
    let fill = |copier: &mut Copier, own: usize, len: usize| {
        copier.recheck(done, done.min(BLOCK));
        // SAFETY: `frame` passes room for `len` bytes of a buffer of its own; the copier was made for the iterator, or
        // the source is a buffer of our own.
        let mut step = unsafe { FromIter::new(own, copier) };
        let read = source.walk(len, &mut step);
        done += read;
        read
    };
    // SAFETY: the callers of `copy_framed` have seen that `dst` has room for the line and the data in whole lines, and
    // the copier was made for it.
    let framed = unsafe { frame(&mut copier, flush, to, nbytes, fill, line) };
    let consumed = nbytes - i.count();
    let fault = match framed {
        Framed::Whole => {
            i.fault = copier.into_fault(nbytes, nbytes);
            return Ok((dst[0].len(), None));
        }
        Framed::Unread => copier.into_fault(consumed, nbytes),
        // Whatever was written counts for nothing without the rest.
        Framed::Unwritten => copier.into_fault(0, LINE + nbytes),
    };
    i.take_back(consumed)?;
    Ok((0, fault))
}

#[cfg(test)]
pub(crate) mod recorded;
