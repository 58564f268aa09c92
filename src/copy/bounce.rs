//! Every copy ends as if its source had been read before anything was written.
//!
//! Where the two sides overlap, one front-to-back copy to a lower address does that by itself. Anything else bounces:
//! the source is read into a buffer of our own, and what could be read is copied on from there. The copy is then short
//! by what was not read and what was not written, the iterator stands where the last byte written leaves it, and the
//! fault is that of the side that stopped.
//!
//! [`to_iter`], [`from_iter`], [`across`] and [`flat`] do all of this for every flavour of copy. A flavour is the
//! closure they are given.

use super::chunk::{CopyChunk, poison};
use super::copier::Copier;
use super::step::{Across, FromIter};
use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use std::mem::MaybeUninit;
use std::ops::ControlFlow;

/// What a flat operation came to: the bytes done, and what stopped it if not all are.
pub type Outcome = (usize, Option<Box<Fault>>);

/// A buffer of our own to read ahead into. Only what was read into it is read from it.
pub(super) struct Scratch(Vec<MaybeUninit<u8>>);

impl Scratch {
    /// For `len` bytes; [`Error::NoMemory`] where there is no room for them.
    pub(super) fn new(len: usize) -> Result<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|_| Error::NoMemory(len))?;
        // SAFETY: the capacity was just reserved, and elements that may be uninitialised need no initialisation.
        unsafe { memory.set_len(len) };
        poison(&mut memory);
        Ok(Self(memory))
    }

    /// Reads as much of `source` as can be read, at most what there is room for: the bytes read.
    ///
    /// # Safety
    /// [`CopyChunk::copy`] of this copier accepts the range as a source.
    pub(super) unsafe fn fill(&mut self, copier: &mut Copier, source: Segment) -> usize {
        let len = source.len.min(self.0.len());
        // SAFETY: the destination is the buffer, which is at least as long and stays until `self` is dropped.
        len - unsafe { copier.copy(self.addr(), source.addr, len) }
    }

    /// Where it is.
    pub(super) fn addr(&mut self) -> usize {
        self.0.as_mut_ptr().expose_provenance()
    }
}

/// How many bytes a copy between `flat` and `i` is about, after all checks that can refuse it.
pub(super) fn begin(
    flat: Memory,
    i: &IovIter,
    nbytes: usize,
    direction: Direction,
    operation: &'static str,
) -> Result<usize> {
    i.require(direction, operation)?;
    if nbytes > flat.len() {
        return Err(Error::BeyondBuffer { nbytes, len: flat.len() });
    }
    if direction == Direction::Dest {
        i.require_writable(nbytes)?;
    }
    Ok(nbytes.min(i.count()))
}

/// The length that both ends of a flat copy have.
#[inline]
pub(super) fn same_length(dst: Memory, src: Memory) -> Result<usize> {
    if dst.len() == src.len() { Ok(src.len()) } else { Err(other_length(dst.len(), src.len())) }
}

#[cold]
fn other_length(other: usize, len: usize) -> Error {
    Error::invalid("dst", format!("{other} bytes"), format!("{len} bytes, as many as src has"))
}

/// Copies `nbytes` from `src` into the iterator. `copy` is given the bytes to copy, which nothing that it writes
/// overlaps but from below, and returns how many of them it copied: as many as it moved the iterator by.
#[inline(always)]
#[allow(clippy::inline_always)] // into each flavour, so that its copier stays in registers
pub(super) fn to_iter(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    operation: &'static str,
    copy: impl FnOnce(&mut Copier, &mut IovIter, Segment) -> usize,
) -> Result<usize> {
    to_iter_until(src, i, nbytes, usize::MAX, operation, copy)
}

/// The same, but nothing behind the first `readable` bytes of the source is read ahead. `copy` is given fewer bytes
/// than those if not even they could be read.
#[inline(always)]
#[allow(clippy::inline_always)] // into each flavour, so that its copier stays in registers
pub(super) fn to_iter_until(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    readable: usize,
    operation: &'static str,
    copy: impl FnOnce(&mut Copier, &mut IovIter, Segment) -> usize,
) -> Result<usize> {
    let nbytes = begin(src, i, nbytes, Direction::Dest, operation)?;
    let mut copier = Copier::new(&[src], &[i])?;
    let mut source = src.seg().take(nbytes);
    let mut scratch = None;
    if must_read_ahead(i, source, Direction::Dest) {
        source = copier.out_of_line(|copier| {
            let ahead = scratch.insert(Scratch::new(nbytes.min(readable))?);
            // SAFETY: the source is a part of `src`, which the copier was made for.
            let read = unsafe { ahead.fill(copier, source) };
            Ok(Segment::new(ahead.addr(), read))
        })?;
    }
    let done = copy(&mut copier, i, source);
    i.fault = copier.into_fault(done, nbytes);
    Ok(done)
}

/// Copies `nbytes` out of the iterator to `dst`. `copy` is given an iterator over the source, which is read ahead where
/// it has to be, and a destination of as many bytes, which overlaps nothing of it but from below. It returns the bytes
/// copied; where it moved the iterator by more, that is taken back.
#[inline(always)]
#[allow(clippy::inline_always)] // into each flavour, so that its copier stays in registers
pub(super) fn from_iter(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    operation: &'static str,
    copy: impl FnOnce(&mut Copier, &mut IovIter, Segment) -> usize,
) -> Result<usize> {
    let nbytes = begin(dst, i, nbytes, Direction::Source, operation)?;
    let mut copier = Copier::new(&[dst], &[i])?;
    let mut target = dst.seg().take(nbytes);
    let before = i.count();
    let mut ahead = None;
    if must_read_ahead(i, target, Direction::Source) {
        target = copier.out_of_line(|copier| {
            let ahead = ahead.insert(Ahead::read(copier, i, nbytes)?);
            Ok(target.take(ahead.i.count()))
        })?;
    }
    let source = ahead.as_mut().map_or(&mut *i, |ahead| &mut ahead.i);
    let done = copy(&mut copier, source, target);
    i.fault = copier.into_fault(done, nbytes);
    let surplus = before - i.count() - done;
    if surplus != 0 {
        i.take_back(surplus)?;
    }
    Ok(done)
}

/// Copies from one range to another of the same length. `copy` is given the destination and the bytes to copy, which
/// nothing that it writes overlaps but from below, and returns how many it copied.
#[inline(always)]
#[allow(clippy::inline_always)] // into each flavour, so that its copier stays in registers
pub(super) fn flat(
    dst: Memory,
    src: Memory,
    copy: impl FnOnce(&mut Copier, usize, Segment) -> usize,
) -> Result<Outcome> {
    let nbytes = same_length(dst, src)?;
    let mut copier = Copier::new(&[dst, src], &[])?;
    let (target, source) = (dst.seg(), src.seg());
    let done = if source.overlaps(target) && source.addr < target.addr {
        copier.out_of_line(|copier| {
            let mut ahead = Scratch::new(nbytes)?;
            // SAFETY: the copier was made for the source.
            let read = unsafe { ahead.fill(copier, source) };
            Ok(copy(copier, target.addr, Segment::new(ahead.addr(), read)))
        })?
    } else {
        copy(&mut copier, target.addr, source)
    };
    Ok((done, copier.into_fault(done, nbytes)))
}

/// Copies `nbytes`, which both have, from one iterator to the other; both advance by the bytes copied, which it
/// returns.
pub(super) fn across(copier: &mut Copier, dst: &mut IovIter, src: &mut IovIter, nbytes: usize) -> Result<usize> {
    if !share_memory(dst, src, nbytes) {
        // SAFETY: the copier was made for both iterators.
        let mut step = unsafe { Across::new(dst, copier) };
        return Ok(src.walk(nbytes, &mut step));
    }
    let mut ahead = Ahead::read(copier, src, nbytes)?;
    let read = ahead.i.count();
    // SAFETY: the copier was made for the destination; the source is a buffer of our own that stays.
    let mut step = unsafe { Across::new(dst, copier) };
    let done = ahead.i.walk(read, &mut step);
    src.take_back(read - done)?;
    Ok(done)
}

/// What of an iterator's next bytes could be read ahead: an iterator over a buffer with them.
pub(super) struct Ahead {
    pub(super) i: Box<IovIter>,
    /// Dropped after the iterator over it.
    _buffer: Scratch,
}

impl Ahead {
    /// Reads the next `nbytes` of an iterator, or as many as can be read, and moves it over those.
    pub(super) fn read(copier: &mut Copier, i: &mut IovIter, nbytes: usize) -> Result<Self> {
        let mut buffer = Scratch::new(nbytes)?;
        // SAFETY: the buffer has `nbytes` bytes, and the copier was made for the iterator.
        let mut step = unsafe { FromIter::new(buffer.addr(), copier) };
        let read = Segment::new(buffer.addr(), i.walk(nbytes, &mut step));
        // SAFETY: the buffer stays beside the iterator over it, which is a source and gives the memory to nobody.
        let memory = unsafe { Memory::new(read, Backing::Heap) };
        Ok(Self { i: Box::new(IovIter::whole(Direction::Source, memory)), _buffer: buffer })
    }
}

/// Whether copying between `flat` and the next bytes of `i` could overwrite a source byte before it is read.
#[inline]
pub(super) fn must_read_ahead(i: &IovIter, flat: Segment, direction: Direction) -> bool {
    i.overlaps(flat, flat.len) && !is_one_range_moved_down(i, flat, direction)
}

/// One front-to-back copy to a lower address overwrites only what it has read.
#[cold]
fn is_one_range_moved_down(i: &IovIter, flat: Segment, direction: Direction) -> bool {
    i.one_range().is_some_and(|range| match direction {
        Direction::Dest => range.addr <= flat.addr,
        Direction::Source => flat.addr <= range.addr,
    })
}

/// Whether the next `nbytes` bytes of the two have a byte in common, or may have: where there is no memory to find out
/// with.
fn share_memory(dst: &IovIter, src: &IovIter, nbytes: usize) -> bool {
    if let (Some(a), Some(b)) = (dst.hull(), src.hull())
        && !a.overlaps(b)
    {
        return false;
    }
    if dst.kind() == Kind::Pipe {
        return is_read_from_open_page(dst, src, nbytes);
    }
    let (mut pieces, mut is_short_of_memory) = (Vec::new(), false);
    for (side, i) in [dst, src].into_iter().enumerate() {
        i.pieces(nbytes, |piece| {
            if pieces.try_reserve(1).is_err() {
                is_short_of_memory = true;
                return ControlFlow::Break(());
            }
            pieces.push((piece.seg, side));
            ControlFlow::Continue(())
        });
    }
    if is_short_of_memory {
        return true;
    }
    pieces.sort_unstable_by_key(|(seg, _)| seg.addr);
    // Where what was met of either side ends.
    let mut reach = [0_usize; 2];
    pieces.iter().any(|(seg, side)| {
        let met = seg.addr < reach[1 - side];
        reach[*side] = reach[*side].max(seg.end());
        met
    })
}

/// Whether any of the source is in the ring's page that the next byte goes to.
fn is_read_from_open_page(pipe: &IovIter, src: &IovIter, nbytes: usize) -> bool {
    let mut found = false;
    src.pieces(nbytes, |piece| {
        found = pipe.overlaps(piece.seg, nbytes);
        if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found
}

#[cfg(test)]
mod tests;
