//! Framed copies: a header line, which has the sums of an iterator's data, and the data, written together with
//! non-temporal stores. A log appends and a slot publishes in this way.
//!
//! The data pass through a buffer on the stack, where they are summed. So the sums are those of the bytes written,
//! even if somebody changes the source meanwhile. The rest of the last line is filled with zeroes, so that every line
//! is written whole.

use super::blocks::{StagingBuffer, prefetch_ahead_of, prefetch_page_ahead};
use super::bounce::{Ahead, Outcome, must_read_ahead};
use super::chunk::{BLOCK, CopyChunk, SUMMED_AT_ONCE, poison};
use super::copier::Copier;
use super::flushcache::require_write_back;
use super::nontemporal::{self, Flush, LineStore};
use super::step::FromIter;
use super::sums::{Summing, Sums};
use crate::abi::Direction;
use crate::arch::LINE;
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};
use std::mem::MaybeUninit;

/// Up to this many bytes of data use a smaller buffer, which is cheaper to set up.
const SMALL: usize = 448;

/// A header line, and a buffer for data right behind it.
#[repr(C, align(64))]
struct StagedFrame<const N: usize> {
    line: [u8; LINE],
    data: StagingBuffer<N>,
}

/// The destinations of a header line and its data, and the order in which they may reach the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The data go right behind the line. The two may reach the medium in any order; one fence orders both before
    /// whatever follows.
    Behind {
        /// The address of the line.
        line: usize,
    },
    /// The data go anywhere. A fence between them makes the data reach the medium before the line.
    Before {
        /// The address of the line.
        line: usize,
        /// The address of the data.
        data: usize,
    },
}

/// The result of writing a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framed {
    /// The line and all of the data were written and fenced.
    Whole,
    /// Some of the data could not be read. The line was not written.
    Unread,
    /// Some of the destination could not be written. The line may have been.
    Unwritten,
}

/// Writes the next `nbytes` of an iterator and the header line, which `line` makes of their sums, and fences.
///
/// # Safety
/// [`CopyChunk::copy`] accepts the iterator's memory as a source, and the destinations of the line and of the data; the
/// latter is as long as the data rounded up to whole lines.
pub(super) unsafe fn frame<S: LineStore + CopyChunk>(
    store: &mut S,
    flush: Flush,
    to: Place,
    i: &mut IovIter,
    nbytes: usize,
    line: impl Fn(Sums) -> [u8; LINE],
) -> Framed {
    let framed = if nbytes <= SMALL {
        // SAFETY: `frame` has the same contract, which its caller upholds.
        unsafe { frame_staged::<S, SMALL>(store, flush, to, i, nbytes, line) }
    } else {
        // SAFETY: `frame` has the same contract, which its caller upholds.
        unsafe { frame_staged::<S, SUMMED_AT_ONCE>(store, flush, to, i, nbytes, line) }
    };
    store.fence();
    framed
}

/// # Safety
/// As for [`frame`].
#[inline(never)]
unsafe fn frame_staged<S: LineStore + CopyChunk, const N: usize>(
    store: &mut S,
    flush: Flush,
    to: Place,
    i: &mut IovIter,
    nbytes: usize,
    line: impl Fn(Sums) -> [u8; LINE],
) -> Framed {
    let mut stage = StagedFrame::<N> { line: [0; LINE], data: StagingBuffer::EMPTY };
    poison(&mut stage.data.0);
    let (line_at, data_at) = match to {
        Place::Behind { line } => (line, line + LINE),
        Place::Before { line, data } => (line, data),
    };
    let mut sums = Summing::new();
    let mut done = 0;
    loop {
        // The block goes behind those that are in the buffer, or to its start if that is full.
        let start = done % N;
        let part = BLOCK.min(N).min(nbytes - done);
        let padded = part.next_multiple_of(LINE);
        let own = stage.data.addr() + start;
        prefetch_ahead_of(i, nbytes - done, part);
        prefetch_page_ahead(Segment::new(data_at, nbytes).skip(done), part);
        // SAFETY: the destination is the buffer, which has room for `part` bytes there; `frame`'s caller promises the
        // iterator's memory.
        let mut step = unsafe { FromIter::new(own, store) };
        if i.walk(part, &mut step) < part {
            return Framed::Unread;
        }
        if part < padded {
            stage.data.0[start + part..start + padded].fill(MaybeUninit::new(0));
        }
        let is_last = done + part == nbytes;
        let is_in_one = done == 0 && is_last && matches!(to, Place::Behind { .. });
        if !is_in_one {
            // SAFETY: `frame`'s caller promises the destination, in whole lines; the source is the buffer, of which
            // `padded` bytes are initialised.
            if unsafe { nontemporal::copy(store, flush, data_at + done, own, padded) } != 0 {
                return Framed::Unwritten;
            }
        }
        let filled = start + part;
        // SAFETY: the walks have written these bytes, in this round and in those since `start` was 0.
        let staged = unsafe { stage.data.bytes(0..filled) };
        let is_full = filled == N || is_last;
        if is_full {
            sums.add_crc64(staged);
        }
        // This may change a block that is shorter than `BLOCK`, except for the first of all. A first block that is
        // written below, together with the line, is therefore intact.
        sums.add_crc32c(&mut staged[start..]);
        if start == 0 && !is_full {
            sums.carry_crc64(staged);
        }
        done += part;
        if is_last {
            stage.line = line(sums.finish());
            if matches!(to, Place::Before { .. }) {
                store.fence();
            }
            let whole = (&raw mut stage).expose_provenance();
            let len = if is_in_one { LINE + padded } else { LINE };
            // SAFETY: `frame`'s caller promises the destination; the source is the buffer, of which the line is
            // initialised and, if the data are written with it, the `padded` bytes behind it.
            let left = unsafe { nontemporal::copy(store, flush, line_at, whole, len) };
            return if left == 0 { Framed::Whole } else { Framed::Unwritten };
        }
    }
}

/// Copies the rest of an iterator, and in front of it the header line that `line` makes of its sums, with one
/// fence. `dst` begins at a line boundary and is exactly as long as both, in whole lines. Returns the length of `dst`
/// if all of it was written. Otherwise it returns 0 and the fault of either side, or no fault if the iterator has a
/// hole, and the iterator is where it was. If `is_durable`, the bytes written have left the caches.
pub(crate) fn copy_framed_from_iter(
    dst: Memory,
    i: &mut IovIter,
    is_durable: bool,
    line: impl Fn(Sums) -> [u8; LINE],
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

/// Copies the rest of an iterator to `data`, fences, and then writes the header line that `line` makes of its sums
/// to `header`, which is one line long. `data` has room for the bytes rounded up to whole lines. Afterwards all bytes
/// written have left the caches. Returns the number of bytes of data; or 0 as [`copy_framed_from_iter`] does, and then
/// the line was not written whole.
pub(crate) fn copy_published_from_iter(
    header: Memory,
    data: Memory,
    i: &mut IovIter,
    line: impl Fn(Sums) -> [u8; LINE],
) -> Result<Outcome> {
    let (nbytes, len) = (i.count(), data.len());
    if header.len() != LINE || nbytes.checked_next_multiple_of(LINE).is_none_or(|padded| padded > len) {
        return Err(Error::BeyondBuffer { nbytes, len });
    }
    let to = Place::Before { line: header.seg().addr, data: data.seg().addr };
    let (done, fault) = copy_framed([header, data], to, i, Flush::Lines, "publish", line)?;
    Ok((if done == 0 { 0 } else { nbytes }, fault))
}

/// As [`copy_framed_from_iter`], for either order. `dst` has the destination of the line, whose length is returned on
/// success, and the destination of the data.
fn copy_framed(
    dst: [Memory; 2],
    to: Place,
    i: &mut IovIter,
    flush: Flush,
    operation: &'static str,
    line: impl Fn(Sums) -> [u8; LINE],
) -> Result<Outcome> {
    if flush == Flush::Lines {
        require_write_back()?;
    }
    i.require(Direction::Source, operation)?;
    let nbytes = i.count();
    let mut copier = Copier::new(&dst, &[i])?;
    let mut ahead = None;
    // Only the data's destination matters for overlap, since the line is written after all of the source was read.
    if must_read_ahead(i, dst[1].seg(), Direction::Source) {
        ahead = Some(Ahead::read(&mut copier, i, nbytes)?);
    }
    let source = ahead.as_mut().map_or(&mut *i, |ahead| &mut ahead.i);
    // SAFETY: the callers of `copy_framed` have checked that `dst` has room for the line and for the data in whole
    // lines; the copier was made for both, and for the iterator. `source` is that, or one over `ahead`'s buffer, which
    // stays.
    let framed = unsafe { frame(&mut copier, flush, to, source, nbytes, line) };
    let consumed = nbytes - i.count();
    let fault = match framed {
        Framed::Whole => {
            i.fault = copier.into_fault(nbytes, nbytes);
            return Ok((dst[0].len(), None));
        }
        Framed::Unread => copier.into_fault(consumed, nbytes),
        // A part of a frame counts as nothing, so the fault is at offset 0 of the whole.
        Framed::Unwritten => copier.into_fault(0, LINE + nbytes),
    };
    i.take_back(consumed)?;
    Ok((0, fault))
}

#[cfg(test)]
pub(crate) mod recorded;
#[cfg(test)]
mod tests;
