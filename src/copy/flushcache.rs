//! Non-temporal copies (`copy_from_iter_nocache`), copies whose bytes have left the caches when they return
//! (`copy_from_iter_flushcache` and the like), and write-backs of bytes that were stored before.
//!
//! In a copy of the second sort, a counted byte was either stored non-temporally, or stored through the cache and its
//! line written back. Each call fences once, before it returns the count.

use super::bounce::{self, Outcome};
use super::chunk::CopyChunk;
use super::copier::Copier;
use super::nontemporal::{self, Flush, Gather, LineStore, Scatter};
use super::step::{FromIter, ToIter};
use crate::arch::{self, tuning};
use crate::error::{Error, Result};
use crate::fault::Side;
use crate::iter::IovIter;
use crate::memory::Memory;

/// `copy_from_iter` with non-temporal stores for whole cache lines (`copy_from_iter_nocache`).
pub fn copy_from_iter_nocache(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    gather(dst, i, nbytes, Flush::None, "copy_from_iter_nocache")
}

/// `copy_from_iter` after which every counted byte has left the CPU's caches, for every kind
/// (`copy_from_iter_flushcache`).
pub fn copy_from_iter_flushcache(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    require_write_back()?;
    gather(dst, i, nbytes, Flush::Lines, "copy_from_iter_flushcache")
}

/// `copy_to_iter` after which every counted byte has left the CPU's caches, with one fence for all destinations.
pub fn copy_to_iter_flushcache(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    require_write_back()?;
    bounce::to_iter(src, i, nbytes, "copy_to_iter_flushcache", |copier, i, src| {
        let mut scatter = Scatter::new(copier);
        // SAFETY: `bounce::to_iter` gives a source of as many bytes, and made the copier for both sides.
        let mut step = unsafe { ToIter::new(src.addr, &mut scatter) };
        let done = i.walk(src.len, &mut step);
        scatter.finish();
        done
    })
}

/// Copies one range to another with non-temporal stores for whole cache lines. Returns the number of bytes copied, and
/// the fault if that is not all.
pub fn memcpy_nocache(dst: Memory, src: Memory) -> Result<Outcome> {
    flat(dst, src, Flush::None)
}

/// Copies one range to another; afterwards every counted byte has left the CPU's caches. Returns the number of bytes
/// copied, and the fault if that is not all.
pub fn memcpy_flushcache(dst: Memory, src: Memory) -> Result<Outcome> {
    require_write_back()?;
    flat(dst, src, Flush::Lines)
}

#[inline(always)]
#[allow(clippy::inline_always)] // into each flavour: `flush` decides most branches when it is compiled
fn flat(dst: Memory, src: Memory, flush: Flush) -> Result<Outcome> {
    bounce::flat(dst, src, |copier, dst, src| {
        // SAFETY: `bounce::flat` gives ranges of one length, and made the copier for them.
        let left = unsafe { nontemporal::copy_alone(copier, flush, tuning::durable_from(), dst, src.addr, src.len) };
        copier.fence();
        src.len - left
    })
}

#[inline(always)]
#[allow(clippy::inline_always)] // into each flavour: `flush` decides most branches when it is compiled
fn gather(dst: Memory, i: &mut IovIter, nbytes: usize, flush: Flush, operation: &'static str) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, operation, |copier, i, dst| {
        let mut gather = Gather::new(copier, flush, dst.end());
        // SAFETY: `bounce::from_iter` gives a destination of as many bytes, and made the copier for both sides.
        let mut step = unsafe { FromIter::new(dst.addr, &mut gather) };
        let taken = i.walk(dst.len, &mut step);
        taken - gather.finish()
    })
}

/// Writes back the lines of a range and fences. Returns how many of its bytes have left the caches, and the fault if
/// those are not all.
pub fn persist(range: Memory) -> Result<Outcome> {
    let flushed = flush(range)?;
    drain();
    Ok(flushed)
}

/// As [`persist`], but without the fence: the caller calls [`drain`] once after several of these.
pub fn flush(range: Memory) -> Result<Outcome> {
    over_lines(range, require_write_back()?)
}

/// Evicts the range from the caches, so that the next read comes from memory, which a device or another host may have
/// written to. Lines that this CPU has changed are written back first.
pub fn invalidate(range: Memory) -> Result<Outcome> {
    evict(&[range], 0, |_| 0)
}

/// Evicts two ranges with one fence. Returns the bytes evicted of both together.
pub fn invalidate_both(ranges: [Memory; 2]) -> Result<Outcome> {
    evict(&ranges, 0, |_| 0)
}

/// Evicts the range and then fills `own`, which is no longer, from its start. Returns the bytes evicted plus the bytes
/// copied.
pub(crate) fn reload(own: &mut [u8], range: Memory) -> Result<Outcome> {
    // SAFETY: `evict` makes the copier for the range.
    evict(&[range], own.len(), |copier| unsafe { load(copier, own, range) })
}

/// Fills `own` from the start of a range, which is no shorter and may be in no cache. Returns the bytes copied, and the
/// fault if those are not all.
pub(crate) fn read_evicted(own: &mut [u8], range: Memory) -> Result<Outcome> {
    let wanted = own.len();
    let mut copier = Copier::new(&[range], &[])?;
    // SAFETY: the copier was made for the range.
    let done = unsafe { load(&mut copier, own, range) };
    Ok((done, copier.into_fault(done, wanted)))
}

/// Fills `own` from the start of a range, and waits until the bytes have come from memory (see `arm::finish`). Returns
/// the bytes copied.
///
/// # Safety
/// The copier was made for the range; it need not be made for `own`, which is memory of ours.
#[inline(always)]
#[allow(clippy::inline_always)] // so that the copier stays in registers
unsafe fn load(copier: &mut Copier, own: &mut [u8], range: Memory) -> usize {
    let src = range.take(own.len()).seg();
    let dst = own.as_mut_ptr().expose_provenance();
    // SAFETY: the caller of `load` promises the source; the destination is `own`, which has room for it and is borrowed
    // until the copy is done.
    let left = unsafe { copier.copy(dst, src.addr, src.len) };
    arch::load_fence();
    src.len - left
}

/// Evicts ranges with one fence. If all of them were evicted it calls `then`, which is to do `also` bytes more and
/// returns how many it did. Returns the bytes evicted plus those.
#[inline(always)]
#[allow(clippy::inline_always)] // into each of its callers
fn evict(ranges: &[Memory], also: usize, then: impl FnOnce(&mut Copier) -> usize) -> Result<Outcome> {
    let instruction = arch::evict().ok_or_else(no_write_back)?;
    let mut copier = Copier::new(ranges, &[])?;
    let (mut done, mut wanted) = (0, 0);
    for range in ranges {
        if done == wanted {
            // SAFETY: the copier was made for the range.
            done += range.len() - unsafe { copier.over_lines(instruction, range.seg().addr, range.len()) };
        }
        wanted += range.len();
    }
    arch::full_fence();
    if done == wanted {
        done += then(&mut copier);
    }
    let fault = copier.into_fault(done, wanted + also).map(|mut fault| {
        // An eviction faults as a store does, but the memory is evicted to be read.
        fault.side = Side::Source;
        fault
    });
    Ok((done, fault))
}

/// Orders every write-back and non-temporal store of this thread before the stores that follow.
pub fn drain() {
    arch::store_fence();
}

fn over_lines(range: Memory, instruction: &arch::WriteBack) -> Result<Outcome> {
    let mut copier = Copier::new(&[range], &[])?;
    // SAFETY: the copier was made for the range.
    let left = unsafe { copier.over_lines(instruction, range.seg().addr, range.len()) };
    let done = range.len() - left;
    Ok((done, copier.into_fault(done, range.len())))
}

pub(super) fn require_write_back() -> Result<&'static arch::WriteBack> {
    arch::write_back().ok_or_else(no_write_back)
}

#[cold]
fn no_write_back() -> Error {
    Error::os(libc::EOPNOTSUPP, "this CPU has no instruction that writes cache lines back: nothing can be made durable")
}
