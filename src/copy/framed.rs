//! A line of one's own in front of what an iterator holds, both written past the caches in one copy with one fence: how
//! a log appends.
//!
//! The bytes pass through a buffer on the stack, where they are summed: what the line says of them is said of the bytes
//! that are written, whoever changes the source meanwhile. The rest of the last line becomes zeroes, so that every line
//! is written whole.

use super::bounce::Outcome;
use super::chunk::poison;
use super::copier::Copier;
use super::flushcache::require_write_back;
use super::nontemporal::{self, Flush, LineStore};
use super::step::FromIter;
use crate::abi::Direction;
use crate::arch::LINE;
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::Memory;
use crc_fast::{CrcAlgorithm, Digest};
use std::mem::MaybeUninit;

/// How many bytes of data are read before they are written: they stay in the first cache.
const BLOCK: usize = 8 << 10;

/// Bytes that fit a small buffer, which is cheaper to have.
const SMALL: usize = 448;

/// A line, and room for data behind it, at a line's start.
#[repr(C, align(64))]
struct Stage<const N: usize> {
    line: [u8; LINE],
    data: [MaybeUninit<u8>; N],
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

/// Writes the line that `line` makes of the data's sum to `dst`, and `nbytes` of data behind it, with one fence. `fill`
/// reads the next bytes of the data to an address, and returns how many it read.
///
/// # Safety `dst` is the start of a line, and the line and the data, in whole lines, are a destination that
/// [`super::chunk::CopyChunk::copy`] accepts.
pub(super) unsafe fn frame<S: LineStore>(
    store: &mut S,
    flush: Flush,
    dst: usize,
    nbytes: usize,
    fill: impl FnMut(&mut S, usize, usize) -> usize,
    line: impl Fn(u32) -> [u8; LINE],
) -> Framed {
    let framed = if nbytes <= SMALL {
        // SAFETY: the caller's promise.
        unsafe { frame_staged::<S, SMALL>(store, flush, dst, nbytes, fill, line) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { frame_staged::<S, BLOCK>(store, flush, dst, nbytes, fill, line) }
    };
    store.fence();
    framed
}

#[inline(never)]
unsafe fn frame_staged<S: LineStore, const N: usize>(
    store: &mut S,
    flush: Flush,
    dst: usize,
    nbytes: usize,
    mut fill: impl FnMut(&mut S, usize, usize) -> usize,
    line: impl Fn(u32) -> [u8; LINE],
) -> Framed {
    let mut stage = Stage::<N> { line: [0; LINE], data: [MaybeUninit::uninit(); N] };
    poison(&mut stage.data);
    let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
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
        // SAFETY: `fill` has written the first `part` bytes of the buffer, which is ours alone.
        let bytes = unsafe { std::slice::from_raw_parts(stage.data.as_ptr().cast::<u8>(), part) };
        if part != 0 {
            sum.update(bytes);
        }
        let is_first = done == 0;
        done += part;
        let is_last = done == nbytes;
        if is_last {
            stage.line = line(sum.finalize() as u32);
        }
        let to = dst + LINE + (done - part);
        let left = if is_first && is_last {
            let whole = (&raw mut stage).expose_provenance();
            // SAFETY: the caller's promise; the source is the buffer, of which the line and `padded` bytes are
            // initialised.
            unsafe { nontemporal::copy(store, flush, dst, whole, LINE + padded) }
        } else {
            // SAFETY: the caller's promise; the source is the buffer, of which `padded` bytes are initialised.
            let left = unsafe { nontemporal::copy(store, flush, to, own, padded) };
            if left == 0 && is_last {
                let line = stage.line.as_ptr().expose_provenance();
                // SAFETY: the caller's promise; the source is the line, which stays until the copy is done.
                unsafe { nontemporal::copy(store, flush, dst, line, LINE) }
            } else {
                left
            }
        };
        if left != 0 {
            return Framed::Unwritten;
        }
        if is_last {
            return Framed::Whole;
        }
    }
}

/// Copies all that is left of an iterator behind the line that `line` makes of its sum. `dst` begins at a line's start
/// and has room for both, in whole lines; its length is returned if all of it was written. Otherwise 0, with the
/// iterator where it stood, and why: the fault of either side, or nothing where the iterator has a hole. Where
/// `is_durable`, what was written has left the caches.
pub(crate) fn copy_framed_from_iter(
    dst: Memory,
    i: &mut IovIter,
    is_durable: bool,
    line: impl Fn(u32) -> [u8; LINE],
) -> Result<Outcome> {
    let flush = if is_durable { Flush::Lines } else { Flush::None };
    if is_durable {
        require_write_back()?;
    }
    i.require(Direction::Source, "append")?;
    let (nbytes, len, addr) = (i.count(), dst.len(), dst.seg().addr);
    if !addr.is_multiple_of(LINE)
        || nbytes.checked_next_multiple_of(LINE).and_then(|n| n.checked_add(LINE)) != Some(len)
    {
        return Err(Error::BeyondBuffer { nbytes, len });
    }
    let mut copier = Copier::new(&[dst], &[i])?;
    let fill = |copier: &mut Copier, own: usize, len: usize| {
        // SAFETY: `frame` passes room for `len` bytes of a buffer of its own; the copier was made for the iterator.
        let mut step = unsafe { FromIter::new(own, copier) };
        i.walk(len, &mut step)
    };
    // SAFETY: `dst` is as long as the line and the data in whole lines, and the copier was made for it.
    let framed = unsafe { frame(&mut copier, flush, addr, nbytes, fill, line) };
    let consumed = nbytes - i.count();
    let fault = copier.into_fault(consumed, nbytes);
    match framed {
        Framed::Whole => {
            i.fault = None;
            Ok((len, None))
        }
        Framed::Unread | Framed::Unwritten => {
            i.take_back(consumed)?;
            Ok((0, fault))
        }
    }
}

#[cfg(test)]
pub(crate) mod recorded;
