//! Overlap: every copy ends as if its source had been read as a whole before anything was written.
//!
//! If the two sides overlap and are one range each, of which the destination does not begin above the source, a
//! front-to-back copy does that by itself. Any other overlapping copy bounces: it reads the source ahead into a buffer
//! of ours (as much as can be read), and copies from there. Its count covers the bytes that were both read and written,
//! the iterator ends behind the last byte written, and the fault is that of the side that stopped first.
//!
//! [`to_iter`], [`from_iter`], [`across`] and [`flat`] do this for every flavour of copy. A flavour is the closure that
//! they are given. Everything that can refuse a copy is checked before the closure runs.

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

/// The result of an operation without an iterator: the bytes done, and the fault if those are not all.
pub type Outcome = (usize, Option<Box<Fault>>);

/// A buffer of ours to read ahead into. It is not initialised, so only bytes that were read into it may be read from
/// it.
pub(super) struct Scratch(Vec<MaybeUninit<u8>>);

impl Scratch {
    /// Allocates `len` bytes; [`Error::NoMemory`] if there is no memory for them.
    pub(super) fn new(len: usize) -> Result<Self> {
        let mut memory = Vec::new();
        memory.try_reserve_exact(len).map_err(|_| Error::NoMemory(len))?;
        // SAFETY: the capacity was just reserved, and elements that may be uninitialised need no initialisation.
        unsafe { memory.set_len(len) };
        poison(&mut memory);
        Ok(Self(memory))
    }

    /// Reads as much of `source` as fits and can be read. Returns the number of bytes read.
    ///
    /// # Safety
    /// [`CopyChunk::copy`] of this copier accepts the range as a source.
    pub(super) unsafe fn fill(&mut self, copier: &mut Copier, source: Segment) -> usize {
        let len = source.len.min(self.0.len());
        // SAFETY: the destination is the buffer, which has at least `len` bytes and stays in place until `self` is
        // dropped; `fill`'s caller promises the source.
        len - unsafe { copier.copy(self.addr(), source.addr, len) }
    }

    /// The address of the buffer.
    pub(super) fn addr(&mut self) -> usize {
        self.0.as_mut_ptr().expose_provenance()
    }
}

/// Makes all checks that can refuse a copy between `flat` and `i`. Returns the number of bytes to copy, at most
/// `i.count()`.
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

/// The length of both sides of a flat copy; an error if they differ.
#[inline]
pub(super) fn same_length(dst: Memory, src: Memory) -> Result<usize> {
    if dst.len() == src.len() { Ok(src.len()) } else { Err(other_length(dst.len(), src.len())) }
}

#[cold]
fn other_length(other: usize, len: usize) -> Error {
    Error::invalid("dst", format!("{other} bytes"), format!("{len} bytes, as many as src has"))
}

/// Copies `nbytes` from `src` into the iterator. `copy` gets the source to copy from; whatever it writes may overlap
/// that only from below. It returns the number of bytes copied, by which it has moved the iterator.
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

/// As [`to_iter`], but only the first `readable` bytes of the source are read ahead. If fewer could be read, `copy`
/// gets those.
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
            // SAFETY: the source is a part of `src`, for which the copier was made.
            let read = unsafe { ahead.fill(copier, source) };
            Ok(Segment::new(ahead.addr(), read))
        })?;
    }
    let done = copy(&mut copier, i, source);
    i.fault = copier.into_fault(done, nbytes);
    Ok(done)
}

/// Copies `nbytes` from the iterator to `dst`. `copy` gets an iterator over the source, which may be one over bytes
/// that were read ahead, and a destination as long, which may overlap the source only from below. It returns the number
/// of bytes copied. If `i` was moved by more, it is moved back to behind those.
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

/// Copies one range to another of the same length. `copy` gets the address of the destination, and the source to copy
/// from; whatever it writes may overlap that only from below. It returns the number of bytes copied.
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
            // SAFETY: `source` is all of `src`, for which the copier was made.
            let read = unsafe { ahead.fill(copier, source) };
            Ok(copy(copier, target.addr, Segment::new(ahead.addr(), read)))
        })?
    } else {
        copy(&mut copier, target.addr, source)
    };
    Ok((done, copier.into_fault(done, nbytes)))
}

/// Copies `nbytes`, which both have, from one iterator to the other. Both advance by the number of bytes copied, which
/// it returns.
pub(super) fn across(copier: &mut Copier, dst: &mut IovIter, src: &mut IovIter, nbytes: usize) -> Result<usize> {
    if !share_memory(dst, src, nbytes) {
        // SAFETY: the copier was made for both iterators.
        let mut step = unsafe { Across::new(dst, copier) };
        return Ok(src.walk(nbytes, &mut step));
    }
    let mut ahead = Ahead::read(copier, src, nbytes)?;
    let read = ahead.i.count();
    // SAFETY: the copier was made for the destination; the source is `ahead`'s buffer, which stays until the copy is
    // done.
    let mut step = unsafe { Across::new(dst, copier) };
    let done = ahead.i.walk(read, &mut step);
    src.take_back(read - done)?;
    Ok(done)
}

/// The next bytes of an iterator, read ahead: an iterator over a buffer that has them.
pub(super) struct Ahead {
    pub(super) i: Box<IovIter>,
    /// The buffer that `i` runs over. Fields are dropped in order, so it is dropped after `i`.
    _buffer: Scratch,
}

impl Ahead {
    /// Reads the next `nbytes` of an iterator, or as many as can be read, and moves the iterator behind those.
    pub(super) fn read(copier: &mut Copier, i: &mut IovIter, nbytes: usize) -> Result<Self> {
        let mut buffer = Scratch::new(nbytes)?;
        // SAFETY: the buffer has `nbytes` bytes, and the copier was made for the iterator.
        let mut step = unsafe { FromIter::new(buffer.addr(), copier) };
        let read = Segment::new(buffer.addr(), i.walk(nbytes, &mut step));
        // SAFETY: `_buffer` keeps the bytes as long as the iterator over them, which is a source and is not handed out;
        // `read` covers only bytes that were read into the buffer.
        let memory = unsafe { Memory::new(read, Backing::Heap) };
        Ok(Self { i: Box::new(IovIter::whole(Direction::Source, memory)), _buffer: buffer })
    }
}

/// Whether copying between `flat` and the next bytes of `i` could overwrite a source byte before it is read.
#[inline]
pub(super) fn must_read_ahead(i: &IovIter, flat: Segment, direction: Direction) -> bool {
    i.overlaps(flat, flat.len) && !is_one_range_moved_down(i, flat, direction)
}

/// Whether the iterator is one range and the copy moves bytes down, or leaves them in place: then a front-to-back copy
/// overwrites only bytes that it has read.
#[cold]
fn is_one_range_moved_down(i: &IovIter, flat: Segment, direction: Direction) -> bool {
    i.one_range().is_some_and(|range| match direction {
        Direction::Dest => range.addr <= flat.addr,
        Direction::Source => flat.addr <= range.addr,
    })
}

/// Whether the next `nbytes` bytes of the two iterators overlap. Sorts the pieces of both by address, and looks for one
/// that begins before a piece of the other side ends. `true` also if there is no memory for the list of pieces, so that
/// the copy is made the safe way.
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
    // The highest end of the pieces so far, of either side.
    let mut reach = [0_usize; 2];
    pieces.iter().any(|(seg, side)| {
        let met = seg.addr < reach[1 - side];
        reach[*side] = reach[*side].max(seg.end());
        met
    })
}

/// Whether any of the source lies in the page of the ring that the next byte is appended to. Other pages of a ring are
/// new, and overlap nothing.
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
