//! The copies of a region, with or without a CRC-32C; and the checksum of the bytes that a truncated file still has.

use super::flushcache;
use crate::copy::flushcache as plain_flushcache;
use crate::copy::mcsafe;
use crate::copy::{self, Outcome, crc32c};
use crate::error::Result;
use crate::fault::map::shared::KnownBad;
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};

/// Sets the checksum to `sum`, that of the last repetition of a copy, if a checksum is wanted.
pub(super) fn keep(crc: &mut Option<&mut u32>, sum: Option<u32>) {
    if let (Some(crc), Some(sum)) = (crc, sum) {
        **crc = sum;
    }
}

/// The outcome of a copy that stored `stored` bytes to `dst`, of which the first `durable.0` count. The copy has summed
/// all of them. If fewer count, the checksum is computed again, from `before`, over the bytes that do.
pub(super) fn durable_part(
    dst: Memory,
    stored: usize,
    durable: Outcome,
    before: Option<u32>,
    crc: Option<&mut u32>,
) -> Result<Outcome> {
    let (Some(crc), Some(before)) = (crc, before) else { return Ok(durable) };
    let (held, fault) = durable;
    if held == stored {
        return Ok((held, fault));
    }
    *crc = before;
    let (summed, cut_again) = crc32c::of_memory(dst.take(held), crc)?;
    let lost = Segment::new(dst.seg().addr + summed, dst.len() - summed);
    Ok((summed, cut_again.map(|_| Box::new(Fault::truncated(Side::Destination, lost, summed))).or(fault)))
}

pub(super) fn memcpy(dst: Memory, src: Memory, crc: Option<&mut u32>) -> Result<Outcome> {
    match crc {
        None => copy::memcpy(dst, src),
        Some(crc) => crc32c::memcpy(dst, src, crc),
    }
}

pub(super) fn memcpy_nocache(dst: Memory, src: Memory, crc: Option<&mut u32>) -> Result<Outcome> {
    match crc {
        None => plain_flushcache::memcpy_nocache(dst, src),
        Some(crc) => crc32c::memcpy_nocache(dst, src, crc),
    }
}

pub(super) fn memcpy_flushcache(dst: Memory, src: Memory, crc: Option<&mut u32>) -> Result<Outcome> {
    match crc {
        None => plain_flushcache::memcpy_flushcache(dst, src),
        Some(crc) => crc32c::memcpy_flushcache(dst, src, crc),
    }
}

pub(super) fn memcpy_mcsafe<K: KnownBad + ?Sized>(
    dst: Memory,
    src: Memory,
    map: &K,
    crc: Option<&mut u32>,
) -> Result<Outcome> {
    match crc {
        None => mcsafe::memcpy_mcsafe(dst, src, Some(map)),
        Some(crc) => crc32c::memcpy_mcsafe(dst, src, Some(map), crc),
    }
}

pub(super) fn copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize, crc: Option<&mut u32>) -> Result<usize> {
    match crc {
        None => copy::copy_from_iter(dst, i, nbytes),
        Some(crc) => crc32c::copy_from_iter(dst, i, nbytes, crc),
    }
}

pub(super) fn copy_from_iter_nocache(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    crc: Option<&mut u32>,
) -> Result<usize> {
    match crc {
        None => plain_flushcache::copy_from_iter_nocache(dst, i, nbytes),
        Some(crc) => crc32c::copy_from_iter_nocache(dst, i, nbytes, crc),
    }
}

pub(super) fn copy_from_iter_flushcache(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    crc: Option<&mut u32>,
) -> Result<usize> {
    match crc {
        None => plain_flushcache::copy_from_iter_flushcache(dst, i, nbytes),
        Some(crc) => crc32c::copy_from_iter_flushcache(dst, i, nbytes, crc),
    }
}

pub(super) fn copy_to_iter_mcsafe<K: KnownBad + ?Sized>(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    map: &K,
    crc: Option<&mut u32>,
) -> Result<usize> {
    match crc {
        None => mcsafe::copy_to_iter_mcsafe(src, i, nbytes, Some(map)),
        Some(crc) => crc32c::copy_to_iter_mcsafe(src, i, nbytes, Some(map), crc),
    }
}

/// `copy_from_iter_flushcache` to any memory that extends a CRC-32C by the bytes that count. Errors as for
/// [`flushcache::copy_from_iter_flushcache`]; they leave the checksum as it was.
pub fn crc32c_and_copy_from_iter_flushcache(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    crc: &mut u32,
) -> Result<usize> {
    let (before, mut sum, mut stored) = (*crc, *crc, 0);
    let copied = flushcache::from_iter(dst, i, nbytes, |i| {
        stored = crc32c::copy_from_iter_flushcache(dst, i, nbytes, &mut sum)?;
        Ok(stored)
    })?;
    let (durable, fault) = durable_part(dst, stored, (copied, i.fault.take()), Some(before), Some(&mut sum))?;
    i.take_back(copied - durable)?;
    i.fault = fault;
    *crc = sum;
    Ok(durable)
}

/// `memcpy_flushcache` to any memory that extends a CRC-32C by the bytes that count. Errors as for
/// [`flushcache::copy_from_iter_flushcache`]; they leave the checksum as it was.
pub fn crc32c_and_memcpy_flushcache(dst: Memory, src: Memory, crc: &mut u32) -> Result<Outcome> {
    let (before, mut sum, mut stored) = (*crc, *crc, 0);
    let durable = flushcache::flat(dst, || {
        let outcome = crc32c::memcpy_flushcache(dst, src, &mut sum)?;
        stored = outcome.0;
        Ok(outcome)
    })?;
    let durable = durable_part(dst, stored, durable, Some(before), Some(&mut sum))?;
    *crc = sum;
    Ok(durable)
}
