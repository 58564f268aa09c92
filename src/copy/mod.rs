//! Copies through an iterator. Each flavour is a [`Step`] of a few lines and a function around it.

mod checksum;
pub mod durable;
pub mod mcsafe;
mod mover;
mod overlap;
mod past_caches;

pub use checksum::{csum_and_copy_from_iter, csum_and_copy_to_iter};
pub use mover::copy_flat;
pub(crate) use mover::read_into;

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::{IovIter, Step};
use crate::memory::{Memory, Page, Segment};
use mover::{Move, Mover};
use overlap::Scratch;

/// What a flat operation came to: the bytes done, and what stopped it if not all are.
pub type Outcome = (usize, Option<Box<Fault>>);

/// From flat memory to the iterator's.
struct ToIter<'m, M = Mover> {
    src: usize,
    mover: &'m mut M,
}

impl<M: Move> Step for ToIter<'_, M> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        self.mover.copy(addr, self.src + progress, len)
    }

    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn announce(&mut self, seg: Segment) {
        self.mover.target_comes(seg);
    }
}

/// From the iterator's memory to flat memory.
struct FromIter<'m, M = Mover> {
    dst: usize,
    mover: &'m mut M,
}

impl<M: Move> Step for FromIter<'_, M> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        self.mover.copy(self.dst + progress, addr, len)
    }

    #[inline(always)]
    #[allow(clippy::inline_always)]
    fn announce(&mut self, seg: Segment) {
        self.mover.source_comes(seg);
    }
}

/// Zeroes.
struct Zero<'m>(&'m mut Mover);

impl Step for Zero<'_> {
    fn step(&mut self, addr: usize, _progress: usize, len: usize) -> usize {
        self.0.zero(addr, len)
    }
}

/// From one iterator's memory to another's: a chunk of the source is a flat copy to the destination.
struct Across<'m, 'd> {
    dst: &'d mut IovIter,
    mover: &'m mut Mover,
}

impl Step for Across<'_, '_> {
    fn step(&mut self, addr: usize, _progress: usize, len: usize) -> usize {
        len - self.dst.walk(len, &mut ToIter { src: addr, mover: self.mover })
    }
}

/// How many bytes a copy between `flat` and `i` is about, after all checks that can refuse it.
fn begin(flat: Memory, i: &mut IovIter, nbytes: usize, direction: Direction, operation: &'static str) -> Result<usize> {
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
fn same_length(dst: Memory, src: Memory) -> Result<usize> {
    let (len, other) = (src.len(), dst.len());
    if other == len { Ok(len) } else { Err(other_length(other, len)) }
}

#[cold]
fn other_length(other: usize, len: usize) -> Error {
    Error::invalid("dst", format!("{other} bytes"), format!("{len} bytes, as many as src has"))
}

/// Copies `nbytes` from `src` into the iterator, as if all of them had been read first (`copy_to_iter`). Returns the bytes
/// copied; a count short for bad memory leaves the reason in `i.fault`.
pub fn copy_to_iter(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    let nbytes = begin(src, i, nbytes, Direction::Dest, "copy_to_iter")?;
    let mut mover = Mover::new(&[src], &[i])?;
    mover.expect(nbytes);
    let flat = src.seg().take(nbytes);
    let done = if overlap::must_read_ahead(i, flat, Direction::Dest) {
        let mut scratch = Scratch::new(nbytes)?;
        let read = nbytes - mover.copy(scratch.addr(), flat.addr, nbytes);
        i.walk(read, &mut ToIter { src: scratch.addr(), mover: &mut mover })
    } else {
        i.walk(nbytes, &mut ToIter { src: flat.addr, mover: &mut mover })
    };
    i.fault = mover.into_fault(done, nbytes);
    Ok(done)
}

/// Copies `nbytes` out of the iterator to `dst`, as if all of them had been read first (`copy_from_iter`). Returns the bytes
/// copied; a count short for bad memory leaves the reason in `i.fault`.
pub fn copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    let nbytes = begin(dst, i, nbytes, Direction::Source, "copy_from_iter")?;
    let mut mover = Mover::new(&[dst], &[i])?;
    mover.expect(nbytes);
    let flat = dst.seg().take(nbytes);
    let done = if overlap::must_read_ahead(i, flat, Direction::Source) {
        let mut scratch = Scratch::new(nbytes)?;
        let read = i.walk(nbytes, &mut FromIter { dst: scratch.addr(), mover: &mut mover });
        let left = mover.copy(flat.addr, scratch.addr(), read);
        i.take_back(left)?;
        read - left
    } else {
        i.walk(nbytes, &mut FromIter { dst: flat.addr, mover: &mut mover })
    };
    i.fault = mover.into_fault(done, nbytes);
    Ok(done)
}

/// All or nothing: a short copy is taken back and `false` (`copy_to_iter_full`, `copy_from_iter_full`). What was written by then
/// stays written; `i.fault` still tells why.
pub fn full(copied: usize, nbytes: usize, i: &mut IovIter) -> Result<bool> {
    if copied == nbytes {
        return Ok(true);
    }
    i.take_back(copied)?;
    Ok(false)
}

/// Zeroes the next `nbytes` of the iterator's memory, whatever its direction (`iov_iter_zero`). The caller vouches that it
/// may be written to.
pub fn zero(i: &mut IovIter, nbytes: usize) -> Result<usize> {
    i.require_writable(nbytes)?;
    let mut mover = Mover::new(&[], &[i])?;
    let done = i.walk(nbytes, &mut Zero(&mut mover));
    i.fault = mover.into_fault(done, nbytes);
    Ok(done)
}

/// Copies `page[offset..offset + nbytes]` into the iterator (`copy_page_to_iter`). A PIPE takes a reference to the page instead
/// of the bytes, all or nothing: later changes of the page show in the pipe.
pub fn copy_page_to_iter(page: &Page, offset: usize, nbytes: usize, i: &mut IovIter) -> Result<usize> {
    i.require(Direction::Dest, "copy_page_to_iter")?;
    let flat = within_page(page, offset, nbytes)?;
    if i.kind() == Kind::Pipe {
        i.fault = None;
        return Ok(i.append_page(page, offset, nbytes));
    }
    copy_to_iter(flat, i, nbytes)
}

/// Copies out of the iterator into `page[offset..offset + nbytes]` (`copy_page_from_iter`).
pub fn copy_page_from_iter(page: &Page, offset: usize, nbytes: usize, i: &mut IovIter) -> Result<usize> {
    i.require(Direction::Source, "copy_page_from_iter")?;
    copy_from_iter(within_page(page, offset, nbytes)?, i, nbytes)
}

fn within_page(page: &Page, offset: usize, nbytes: usize) -> Result<Memory> {
    let memory = page.memory();
    memory.range(offset, nbytes).ok_or(Error::BeyondPage { offset, nbytes, len: memory.len() })
}

/// Copies up to `nbytes` from one iterator to another, the largest common piece at a time; both advance by what was copied.
pub fn copy_iter(dst: &mut IovIter, src: &mut IovIter, nbytes: usize) -> Result<usize> {
    dst.require(Direction::Dest, "copy_iter: dst")?;
    src.require(Direction::Source, "copy_iter: src")?;
    let nbytes = nbytes.min(dst.count()).min(src.count());
    dst.require_writable(nbytes)?;
    let mut mover = Mover::new(&[], &[dst, src])?;
    mover.expect(nbytes);
    let done = if overlap::shared(dst, src, nbytes) {
        let mut scratch = Scratch::new(nbytes)?;
        let read = src.walk(nbytes, &mut FromIter { dst: scratch.addr(), mover: &mut mover });
        let done = dst.walk(read, &mut ToIter { src: scratch.addr(), mover: &mut mover });
        src.take_back(read - done)?;
        done
    } else {
        src.walk(nbytes, &mut Across { dst, mover: &mut mover })
    };
    let fault = mover.into_fault(done, nbytes);
    dst.fault.clone_from(&fault);
    src.fault = fault;
    Ok(done)
}

#[cfg(test)]
mod tests;
