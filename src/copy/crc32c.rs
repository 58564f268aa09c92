//! Copies that sum what they copy in the same pass: CRC-32C, as iSCSI, ext4 and zarr use it.
//!
//! A sum goes in as what the bytes before came to, 0 if there are none, and comes out with exactly the bytes that count
//! added: also where a fault, a map or the end of the destination has cut the copy. The blocks of [`super::blocks`] are
//! what the library that sums gets to see.

use super::blocks::{gather, scatter};
use super::bounce::{self, Outcome, same_length};
use super::chunk::CopyChunk;
use super::copier::Copier;
use super::flushcache::require_write_back;
use super::mcsafe::{careful_to_iter, readable_part};
use super::nontemporal::{self, Flush, LineStore};
use super::step::ToIter;
use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::map::shared::KnownBad;
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use crc_fast::Digest;

/// A sum that grows block by block. (The library calls the polynomial by its first user, iSCSI.)
pub(crate) struct Sum(u32);

impl Sum {
    /// Goes on from a finished sum.
    pub(crate) fn from(crc: u32) -> Self {
        Self(crc)
    }

    /// Adds a block, which is of no use afterwards, unless it is the first one: that is left as it is.
    ///
    /// The library goes on from another sum than 0 by a [`Digest`] only, which it moves about: 50 ns, where 64 bytes
    /// are summed in 9. To go on is the same as to begin, with the sum added without carries to the first four bytes.
    pub(crate) fn add(&mut self, block: &mut [u8]) {
        if self.0 == 0 {
            self.0 = crc_fast::crc32_iscsi(block);
        } else if let Some(first) = block.first_chunk_mut() {
            *first = (u32::from_le_bytes(*first) ^ self.0).to_le_bytes();
            self.0 = crc_fast::crc32_iscsi(block);
        } else if !block.is_empty() {
            let mut digest = Digest::new_with_init_state(Crc32Iscsi, u64::from(!self.0));
            digest.update(block);
            self.0 = digest.finalize() as u32;
        }
    }

    pub(crate) fn finish(&self) -> u32 {
        self.0
    }
}

/// The sum of bytes of our own.
pub(crate) fn of_bytes(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The sum of two pieces, the second of which is `len2` bytes long, from the sum of each.
pub fn combine(crc1: u32, crc2: u32, len2: u64) -> u32 {
    crc_fast::checksum_combine(Crc32Iscsi, u64::from(crc1), u64::from(crc2), len2) as u32
}

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
    let done = unsafe { gather(&mut copier, i, nbytes, 0, |_, block, _| block.len, |block| sum.add(block)) };
    *crc = sum.finish();
    Ok((done, copier.into_fault(done, nbytes)))
}

/// `copy_to_iter` that adds what it copies to the sum.
pub fn copy_to_iter(src: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    bounce::to_iter(src, i, nbytes, "crc32c_and_copy_to_iter", |copier, i, src| {
        let mut sum = Sum::from(*crc);
        copier.expect(src.len);
        let write = |copier: &mut Copier, block: Segment, _| {
            // SAFETY: the source is the staged block; `bounce::to_iter` made the copier for the iterator.
            let mut step = unsafe { ToIter::new(block.addr, copier) };
            i.walk(block.len, &mut step)
        };
        // SAFETY: `bounce::to_iter` made the copier for the source.
        let done = unsafe { scatter(copier, src, src.addr, write, |block| sum.add(block)) };
        *crc = sum.finish();
        done
    })
}

/// `copy_to_iter_mcsafe` that adds what it copies to the sum.
pub fn copy_to_iter_mcsafe<K: KnownBad + ?Sized>(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    map: Option<&K>,
    crc: &mut u32,
) -> Result<usize> {
    let Some(map) = map.filter(|map| !map.is_empty()) else { return copy_to_iter(src, i, nbytes, crc) };
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
        // SAFETY: `careful_to_iter` gives a source that the copier was made for.
        unsafe { scatter(copier, src, phase, write, |block| sum.add(block)) }
    })?;
    *crc = sum.finish();
    Ok(done)
}

/// `copy_from_iter` that adds what it copies to the sum.
pub fn copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, "crc32c_and_copy_from_iter", |copier, i, dst| {
        copier.expect(dst.len);
        let write = |copier: &mut Copier, block: Segment, at| {
            // SAFETY: the source is the staged block; the destination is a part of `dst`, which the copier was made
            // for.
            block.len - unsafe { copier.copy(dst.addr + at, block.addr, block.len) }
        };
        // SAFETY: `bounce::from_iter` made the copier for the iterator.
        unsafe { summing(copier, i, dst, crc, write) }
    })
}

/// `copy_from_iter_flushcache` that adds what it copies to the sum.
pub fn copy_from_iter_flushcache(dst: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    require_write_back()?;
    past_caches(dst, i, nbytes, Flush::Lines, "crc32c_and_copy_from_iter_flushcache", crc)
}

/// `copy_from_iter_nocache` that adds what it copies to the sum.
pub fn copy_from_iter_nocache(dst: Memory, i: &mut IovIter, nbytes: usize, crc: &mut u32) -> Result<usize> {
    past_caches(dst, i, nbytes, Flush::None, "crc32c_and_copy_from_iter_nocache", crc)
}

fn past_caches(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    flush: Flush,
    operation: &'static str,
    crc: &mut u32,
) -> Result<usize> {
    bounce::from_iter(dst, i, nbytes, operation, |copier, i, dst| {
        let write = |copier: &mut Copier, block: Segment, at| {
            // SAFETY: the source is the staged block; the destination is a part of `dst`, which the copier was made
            // for.
            let left = unsafe { nontemporal::copy(copier, flush, dst.addr + at, block.addr, block.len) };
            block.len - left
        };
        // SAFETY: `bounce::from_iter` made the copier for the iterator.
        let done = unsafe { summing(copier, i, dst, crc, write) };
        copier.fence();
        done
    })
}

/// # Safety
/// As for [`gather`].
unsafe fn summing(
    copier: &mut Copier,
    i: &mut IovIter,
    dst: Segment,
    crc: &mut u32,
    write: impl FnMut(&mut Copier, Segment, usize) -> usize,
) -> usize {
    let mut sum = Sum::from(*crc);
    // SAFETY: the caller's promise.
    let done = unsafe { gather(copier, i, dst.len, dst.addr, write, |block| sum.add(block)) };
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
    flat_past_caches(dst, src, Flush::Lines, crc)
}

/// `memcpy_nocache` that adds what it copies to the sum.
pub fn memcpy_nocache(dst: Memory, src: Memory, crc: &mut u32) -> Result<Outcome> {
    flat_past_caches(dst, src, Flush::None, crc)
}

fn flat_past_caches(dst: Memory, src: Memory, flush: Flush, crc: &mut u32) -> Result<Outcome> {
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
    let write = |copier: &mut Copier, block: Segment, at: usize| {
        let dst = dst.wrapping_add(at);
        let left = match flush {
            // SAFETY: the source is the staged block; the destination is a part of the caller's.
            None => unsafe { copier.copy(dst, block.addr, block.len) },
            // SAFETY: the same.
            Some(flush) => unsafe { nontemporal::copy(copier, flush, dst, block.addr, block.len) },
        };
        block.len - left
    };
    // SAFETY: the caller's promise.
    unsafe { scatter(copier, src, dst, write, |block| sum.add(block)) }
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

#[cfg(test)]
mod tests {
    use super::{Sum, combine};

    /// One bit at a time.
    fn bit_by_bit(bytes: &[u8]) -> u32 {
        let mut register = !0_u32;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = (register >> 1) ^ if register & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
        }
        !register
    }

    fn sum(crc: u32, bytes: &[u8]) -> u32 {
        let mut sum = Sum::from(crc);
        sum.add(&mut bytes.to_vec());
        sum.finish()
    }

    /// RFC 3720, B.4, whose table gives the bytes in the order they are sent.
    #[test]
    fn the_examples_of_the_rfc() {
        let ascending: Vec<u8> = (0..32).collect();
        let descending: Vec<u8> = (0..32).rev().collect();
        for (bytes, crc) in [
            (&[0; 32][..], 0x8a91_36aa),
            (&[0xff; 32], 0x62a8_ab43),
            (&ascending, 0x46dd_794e),
            (&descending, 0x113f_db5c),
            (b"123456789", 0xe306_9283),
            (b"", 0),
        ] {
            assert_eq!(sum(0, bytes), crc);
            assert_eq!(bit_by_bit(bytes), crc);
        }
    }

    #[test]
    fn any_split_gives_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..700_u32).map(|i| (i * 37 % 251) as u8).collect();
        let whole = bit_by_bit(&bytes);
        for split in 0..=bytes.len() {
            let (a, b) = bytes.split_at(split);
            assert_eq!(sum(sum(0, a), b), whole, "split at {split}");
            assert_eq!(combine(sum(0, a), sum(0, b), b.len() as u64), whole, "combined at {split}");
        }
    }
}
