//! Copies that sum what they copy in the same pass: CRC-32C, as iSCSI, ext4 and zarr use it.
//!
//! A sum goes in as what the bytes before came to, 0 if there are none, and comes out with exactly the bytes that count
//! added: also where a fault, a map or the end of the destination has cut the copy. The blocks of [`super::blocks`] are
//! what the library that sums gets to see.

pub mod least;
mod sum;

use super::blocks::{Blocks, Flat, gather, pass_by_stage, pass_to_flat, pass_to_iter, scatter};
use super::bounce::{self, Outcome, same_length};
#[cfg(doc)]
use super::chunk::CopyChunk;
use super::copier::Copier;
use super::flushcache::require_write_back;
use super::mcsafe::{careful_to_iter, is_clear, readable_part};
use super::nontemporal::{Flush, LineStore};
use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::map::shared::KnownBad;
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};
pub use sum::combine;
#[cfg(test)]
pub(crate) use sum::crc_bit_by_bit;
pub(crate) use sum::{Sum, of_bytes};

/// Adds memory to the sum: the bytes added, and what stopped it if not all are.
pub fn of_memory(memory: Memory, crc: &mut u32) -> Result<Outcome> {
    sum(&mut IovIter::whole(Direction::Source, memory), crc)
}

/// Adds what is left of an iterator of either direction to the sum, up to a hole if there is one, and leaves the
/// iterator where it is. A PIPE and DISCARD have nothing to read.
pub fn of_iter(i: &IovIter, crc: &mut u32) -> Result<Outcome> {
    if i.kind().is_destination_only() {
        return Err(Error::Unsupported { operation: "crc32c", kind: i.kind() });
    }
    sum(&mut i.clone(), crc)
}

fn sum(i: &mut IovIter, crc: &mut u32) -> Result<Outcome> {
    let nbytes = i.count();
    let mut copier = Copier::new(&[], &[i])?;
    let mut sum = Sum::from(*crc);
    // SAFETY: the copier was made for the iterator.
    let done = unsafe { gather(&mut copier, i, nbytes, None, |block| sum.add(block)) };
    *crc = sum.finish();
    Ok((done, copier.into_fault(done, nbytes)))
}

/// `copy_to_iter` that adds what it copies to the sum.
pub fn copy_to_iter(src: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    let mut sum = Sum::from(*crc);
    let done = bounce::to_iter(src, i, nbytes, "crc32c_and_copy_to_iter", |copier, i, src| {
        copier.expect(src.len);
        let blocks = Blocks::scattered(i, src.len);
        let pass = |copier: &mut Copier, block: Segment, own: usize, _| {
            // SAFETY: `scatter` gives parts of `src` that fit the stage; `bounce::to_iter` made the copier for `src`
            // and for the iterator.
            unsafe { pass_to_iter(copier, block, own, i) }
        };
        // SAFETY: `pass_to_iter` leaves what it copied in the stage.
        unsafe { scatter(copier, src, blocks, pass, |block| sum.add(block)) }
    })?;
    *crc = sum.finish();
    Ok(done)
}

/// `copy_to_iter_mcsafe` that adds what it copies to the sum.
pub fn copy_to_iter_mcsafe<K: KnownBad + ?Sized>(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    map: Option<&K>,
    crc: &mut u32,
) -> Result<usize> {
    let Some(map) = map.filter(|map| !map.is_empty() && !is_clear(*map, src.seg(), i)) else {
        return copy_to_iter(src, i, nbytes, crc);
    };
    if i.kind() == Kind::Discard {
        // It is not walked over, so that nothing would stop the copy, which has to read what it sums.
        let source = src.seg().take(nbytes.min(i.count()));
        let (part, bad) = readable_part(source, map);
        let done = copy_to_iter(src, i, nbytes.min(part), crc)?;
        if let Some(bad) = bad.filter(|_| done == part) {
            i.fault = Some(Box::new(Fault::known(Side::Source, bad, done)));
        }
        return Ok(done);
    }
    let mut sum = Sum::from(*crc);
    let done = careful_to_iter(src, i, nbytes, map, "crc32c_and_copy_to_iter_mcsafe", |copier, src, phase, write| {
        let pass = |copier: &mut Copier, block: Segment, own: usize, at: usize| {
            // SAFETY: `careful_to_iter` gives a source that the copier was made for, and `scatter` parts of it that fit
            // the stage.
            unsafe { pass_by_stage(copier, block, own, |copier, staged| write(copier, staged, at)) }
        };
        // SAFETY: `pass_by_stage` leaves what it copied in the stage.
        unsafe { scatter(copier, src, Blocks::new(Segment::new(phase, 0)), pass, |block| sum.add(block)) }
    })?;
    *crc = sum.finish();
    Ok(done)
}

/// `copy_from_iter` that adds what it copies to the sum.
pub fn copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, "crc32c_and_copy_from_iter", |copier, i, dst| {
        copier.expect(dst.len);
        // SAFETY: `bounce::from_iter` made the copier for the iterator and for `dst`.
        unsafe { gather_summing(copier, i, dst, None, crc) }
    })
}

/// `copy_from_iter_flushcache` that adds what it copies to the sum.
pub fn copy_from_iter_flushcache(dst: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    require_write_back()?;
    nontemporal_from_iter(dst, i, nbytes, Flush::Lines, "crc32c_and_copy_from_iter_flushcache", crc)
}

/// `copy_from_iter_nocache` that adds what it copies to the sum.
pub fn copy_from_iter_nocache(dst: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    nontemporal_from_iter(dst, i, nbytes, Flush::None, "crc32c_and_copy_from_iter_nocache", crc)
}

fn nontemporal_from_iter(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    flush: Flush,
    operation: &'static str,
    crc: &mut u32,
) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, operation, |copier, i, dst| {
        // SAFETY: `bounce::from_iter` made the copier for the iterator and for `dst`.
        let done = unsafe { gather_summing(copier, i, dst, Some(flush), crc) };
        copier.fence();
        done
    })
}

/// # Safety
/// As for [`gather`].
unsafe fn gather_summing(
    copier: &mut Copier,
    i: &mut IovIter,
    dst: Segment,
    flush: Option<Flush>,
    crc: &mut u32,
) -> usize {
    let mut sum = Sum::from(*crc);
    let to = Some(Flat { addr: dst.addr, flush });
    // SAFETY: the caller of `gather_summing` promises what `gather` asks for.
    let done = unsafe { gather(copier, i, dst.len, to, |block| sum.add(block)) };
    *crc = sum.finish();
    done
}

/// `memcpy` that adds what it copies to the sum.
pub fn memcpy(dst: Memory, src: Memory, crc: &mut u32) -> Result<Outcome> {
    bounce::flat(dst, src, |copier, dst, src| {
        let mut sum = Sum::from(*crc);
        copier.expect(src.len);
        // SAFETY: `bounce::flat` gives ranges of one length, and made the copier for them.
        let done = unsafe { copy_flat(copier, None, dst, src, &mut sum) };
        *crc = sum.finish();
        done
    })
}

/// `memcpy_flushcache` that adds what it copies to the sum.
pub fn memcpy_flushcache(dst: Memory, src: Memory, crc: &mut u32) -> Result<Outcome> {
    require_write_back()?;
    memcpy_nontemporal(dst, src, Flush::Lines, crc)
}

/// `memcpy_nocache` that adds what it copies to the sum.
pub fn memcpy_nocache(dst: Memory, src: Memory, crc: &mut u32) -> Result<Outcome> {
    memcpy_nontemporal(dst, src, Flush::None, crc)
}

fn memcpy_nontemporal(dst: Memory, src: Memory, flush: Flush, crc: &mut u32) -> Result<Outcome> {
    bounce::flat(dst, src, |copier, dst, src| {
        let mut sum = Sum::from(*crc);
        // SAFETY: `bounce::flat` gives ranges of one length, and made the copier for them.
        let done = unsafe { copy_flat(copier, Some(flush), dst, src, &mut sum) };
        copier.fence();
        *crc = sum.finish();
        done
    })
}

/// One range to another, not fenced, through the caches unless `flush` says how to go past them, and added to the sum;
/// returns the bytes copied.
///
/// # Safety
/// [`CopyChunk::copy`] of this copier accepts `src` as a source, and as many bytes at `dst` as a destination.
pub(super) unsafe fn copy_flat(
    copier: &mut Copier,
    flush: Option<Flush>,
    dst: usize,
    src: Segment,
    sum: &mut Sum,
) -> usize {
    let pass = |copier: &mut Copier, block: Segment, own: usize, at: usize| {
        let to = Flat { addr: dst.wrapping_add(at), flush };
        // SAFETY: `scatter` gives parts of `src` that fit the stage; the destination is a part of what the caller of
        // `copy_flat` promises.
        unsafe { pass_to_flat(copier, block, own, to) }
    };
    let blocks = Blocks::new(Segment::new(dst, src.len)).streamed(flush.is_some());
    // SAFETY: `pass_to_flat` leaves what it copied in the stage.
    unsafe { scatter(copier, src, blocks, pass, |block| sum.add(block)) }
}

/// `memcpy_mcsafe` that adds what it copies to the sum.
pub fn memcpy_mcsafe<K: KnownBad + ?Sized>(
    dst: Memory,
    src: Memory,
    map: Option<&K>,
    crc: &mut u32,
) -> Result<Outcome> {
    let nbytes = same_length(dst, src)?;
    let mut i = IovIter::whole(Direction::Dest, dst);
    Ok((copy_to_iter_mcsafe(src, &mut i, nbytes, map, crc)?, i.fault))
}
