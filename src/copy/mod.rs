//! Copies between an iterator and flat memory. Each flavour is a closure of a few lines that is passed to [`bounce`].

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
pub mod sums;
pub(crate) mod uncached;

pub use blocks::BlockCopy;
pub use bounce::Outcome;
pub use checksum::{csum_and_copy_from_iter, csum_and_copy_to_iter};

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Page, Segment};
pub(crate) use chunk::{BLOCK, SUMMED_AT_ONCE};
use chunk::{CopyChunk, poison};
use copier::Copier;
use std::mem::MaybeUninit;
use step::{FromIter, ToIter, Zero};

/// Called when the library is loaded. Initialises what would otherwise be initialised at first use, under a lock that a
/// fork at that moment would leave locked in the child.
pub fn prepare() {
    chunk::is_poison_asked_for();
}

/// Copies `nbytes` from `src` into the iterator, as if all of them had been read first (`copy_to_iter`). Returns the
/// number of bytes copied. If bad memory made that short, `i.fault` says so.
pub fn copy_to_iter(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    bounce::to_iter(src, i, nbytes, "copy_to_iter", |copier, i, src| {
        copier.expect(src.len);
        // SAFETY: `bounce::to_iter` gives a source of as many bytes, and made the copier for both sides.
        let mut step = unsafe { ToIter::new(src.addr, copier) };
        i.walk(src.len, &mut step)
    })
}

/// Copies `nbytes` from the iterator to `dst`, as if all of them had been read first (`copy_from_iter`). Returns the
/// number of bytes copied. If bad memory made that short, `i.fault` says so.
pub fn copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, "copy_from_iter", |copier, i, dst| {
        copier.expect(dst.len);
        // SAFETY: `bounce::from_iter` gives a destination of as many bytes, and made the copier for both sides.
        let mut step = unsafe { FromIter::new(dst.addr, copier) };
        i.walk(dst.len, &mut step)
    })
}

/// Copies up to `nbytes` from one iterator to another. Both advance by the bytes copied, whose number it returns.
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

/// Copies one range to another of the same length, as if all of the source had been read first. Returns the number of
/// bytes copied, and the fault if that is not all.
#[inline(always)]
#[allow(clippy::inline_always)] // out of line, the ranges would be loaded right after their stores
pub fn memcpy(dst: Memory, src: Memory) -> Result<Outcome> {
    bounce::flat(dst, src, |copier, dst, src| {
        copier.expect(src.len);
        // SAFETY: `bounce::flat` gives ranges of one length, and made the copier for them.
        src.len - unsafe { copier.copy(dst, src.addr, src.len) }
    })
}

/// Copies memory into a buffer of ours, as much as fits. Returns the number of bytes copied, which are initialised
/// then, and the fault if that is not all.
pub(crate) fn read_into(own: &mut [MaybeUninit<u8>], src: Memory) -> Result<Outcome> {
    let src = src.take(own.len());
    let own = &mut own[..src.len()];
    poison(own);
    let seg = Segment::new(own.as_mut_ptr().expose_provenance(), own.len());
    // SAFETY: the buffer is borrowed mutably until the copy is done, which the value does not outlive.
    memcpy(unsafe { Memory::new(seg, Backing::Heap) }, src)
}

/// Ends a copy that is to be all or nothing (`copy_to_iter_full`, `copy_from_iter_full`). After a short copy it moves
/// the iterator back by the bytes copied and returns `false`. Bytes that were written stay written; `i.fault` still
/// says why.
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
    // SAFETY: the copier was made for the iterator, whose memory may be written to: `Memory::new` promises that if it
    // is a destination, and the caller of `zero` if it is a source.
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

/// Copies from the iterator into `page[offset..offset + nbytes]` (`copy_page_from_iter`).
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
