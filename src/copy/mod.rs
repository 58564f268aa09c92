//! Copies through an iterator. Each flavour is a step of a few lines, handed to [`bounce`].

mod blocks;
mod bounce;
mod checksum;
mod chunk;
mod copier;
pub mod crc32c;
pub mod flushcache;
pub(crate) mod framed;
pub mod mcsafe;
mod nontemporal;
pub mod ranges;
pub mod ring;
mod step;

pub use blocks::BlockCopy;
pub use bounce::Outcome;
pub use checksum::{csum_and_copy_from_iter, csum_and_copy_to_iter};

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Page, Segment};
use chunk::{CopyChunk, poison};
use copier::Copier;
use std::mem::MaybeUninit;
use step::{FromIter, ToIter, Zero};

/// Finds out now what would otherwise be found out at first use, under a lock that a fork may leave shut. Called when
/// the library is loaded.
pub fn prepare() {
    chunk::is_poison_asked_for();
}

/// Copies `nbytes` from `src` into the iterator, as if all of them had been read first (`copy_to_iter`). Returns the
/// bytes copied; a count short for bad memory leaves the reason in `i.fault`.
pub fn copy_to_iter(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    bounce::to_iter(src, i, nbytes, "copy_to_iter", |copier, i, src| {
        copier.expect(src.len);
        // SAFETY: `bounce::to_iter` gives a source of as many bytes, and made the copier for both sides.
        let mut step = unsafe { ToIter::new(src.addr, copier) };
        i.walk(src.len, &mut step)
    })
}

/// Copies `nbytes` out of the iterator to `dst`, as if all of them had been read first (`copy_from_iter`). Returns the
/// bytes copied; a count short for bad memory leaves the reason in `i.fault`.
pub fn copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, "copy_from_iter", |copier, i, dst| {
        copier.expect(dst.len);
        // SAFETY: `bounce::from_iter` gives a destination of as many bytes, and made the copier for both sides.
        let mut step = unsafe { FromIter::new(dst.addr, copier) };
        i.walk(dst.len, &mut step)
    })
}

/// Copies up to `nbytes` from one iterator to another, the largest common piece at a time; both advance by what was
/// copied.
pub fn copy_iter(dst: &mut IovIter, src: &mut IovIter, nbytes: usize) -> Result<usize> {
    dst.require(Direction::Dest, "copy_iter: dst")?;
    src.require(Direction::Source, "copy_iter: src")?;
    let nbytes = nbytes.min(dst.count()).min(src.count());
    dst.require_writable(nbytes)?;
    let mut copier = Copier::new(&[], &[dst, src])?;
    copier.expect(nbytes);
    let done = bounce::across(&mut copier, dst, src, nbytes)?;
    let fault = copier.into_fault(done, nbytes);
    dst.fault.clone_from(&fault);
    src.fault = fault;
    Ok(done)
}

/// A flat copy between ranges of one length, as if all of the source had been read first. Returns the bytes copied, and
/// why not all of them.
#[inline(always)]
#[allow(clippy::inline_always)] // ranges that are passed on are copied right after they were written, and wait for that
pub fn memcpy(dst: Memory, src: Memory) -> Result<Outcome> {
    bounce::flat(dst, src, |copier, dst, src| {
        copier.expect(src.len);
        // SAFETY: `bounce::flat` gives ranges of one length, and made the copier for them.
        src.len - unsafe { copier.copy(dst, src.addr, src.len) }
    })
}

/// Copies memory into a buffer of our own, as much as that takes: the bytes copied, which are initialised now, and what
/// stopped it.
pub(crate) fn read_into(own: &mut [MaybeUninit<u8>], src: Memory) -> Result<Outcome> {
    let src = src.take(own.len());
    let own = &mut own[..src.len()];
    poison(own);
    let seg = Segment::new(own.as_mut_ptr().expose_provenance(), own.len());
    // SAFETY: the buffer is borrowed mutably until the copy is done, which the value does not outlive.
    memcpy(unsafe { Memory::new(seg, Backing::Heap) }, src)
}

/// All or nothing: a short copy is taken back and `false` (`copy_to_iter_full`, `copy_from_iter_full`). What was
/// written by then stays written; `i.fault` still tells why.
pub fn full(copied: usize, nbytes: usize, i: &mut IovIter) -> Result<bool> {
    if copied == nbytes {
        return Ok(true);
    }
    i.take_back(copied)?;
    Ok(false)
}

/// Zeroes the next `nbytes` of the iterator's memory, whatever its direction (`iov_iter_zero`).
///
/// # Safety
/// If the iterator is a source, its memory is good for a destination, too, as [`Memory::new`] asks for.
pub unsafe fn zero(i: &mut IovIter, nbytes: usize) -> Result<usize> {
    i.require_writable(nbytes)?;
    let mut copier = Copier::new(&[], &[i])?;
    // SAFETY: the copier was made for the iterator, whose memory is a destination: its direction says so, or the caller
    // does.
    let mut step = unsafe { Zero::new(&mut copier) };
    let done = i.walk(nbytes, &mut step);
    i.fault = copier.into_fault(done, nbytes);
    Ok(done)
}

/// Copies `page[offset..offset + nbytes]` into the iterator (`copy_page_to_iter`). A PIPE takes a reference to the page
/// instead of the bytes, all or nothing: later changes of the page show in the pipe.
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
    if !page.writable() {
        return Err(Error::ReadOnly { what: "page", index: 0 });
    }
    copy_from_iter(within_page(page, offset, nbytes)?, i, nbytes)
}

fn within_page(page: &Page, offset: usize, nbytes: usize) -> Result<Memory> {
    let memory = page.memory();
    memory.range(offset, nbytes).ok_or(Error::BeyondPage { offset, nbytes, len: memory.len() })
}

#[cfg(test)]
mod tests;
