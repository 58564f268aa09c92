//! Copies that also compute the ones'-complement sum of the Internet checksum (RFC 1071) over the bytes they copy.
//!
//! Sums are kept folded to 16 bits, so that the sum of parts has exactly the bits of the sum of the whole.

use super::bounce;
use super::chunk::CopyChunk;
use super::copier::Copier;
use crate::abi::{Direction, Kind};
use crate::error::Result;
use crate::iter::{IovIter, Step};
use crate::memory::{Memory, Segment};

/// Folds a sum to 16 bits: adds the upper bits to the lower 16 (the end-around carry) until none are left.
fn fold(mut sum: u64) -> u32 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u32
}

/// The folded sum of a block as 16-bit little-endian words. An odd byte at the end is padded with a zero. Summing 32
/// bits at a time gives the same, since 2^16 is 1 in ones'-complement arithmetic.
fn block_sum(block: &[u8]) -> u32 {
    let mut words = block.chunks_exact(4);
    let mut sum: u64 = words.by_ref().map(|w| u64::from(u32::from_le_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let mut last = [0; 4];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    sum += u64::from(u32::from_le_bytes(last));
    fold(sum)
}

/// Adds to `sum` the sum of a block that begins at byte `offset`. If the offset is odd, each byte of the block is in
/// the other half of its 16-bit word, which the byte-swapped sum accounts for.
fn combine(sum: u32, block: u32, offset: usize) -> u32 {
    let block = if offset % 2 == 1 { u32::from((block as u16).swap_bytes()) } else { block };
    fold(u64::from(sum) + u64::from(block))
}

/// The size of the buffer that the bytes are copied through. The bytes in it are both summed and written, so the sum is
/// right even if somebody changes the source meanwhile.
const BLOCK: usize = 4096;

struct Summing<'m> {
    flat: usize,
    direction: Direction,
    copier: &'m mut Copier,
    sum: u32,
    /// The offset of the first byte of the copy in the summed data; only whether it is odd matters.
    offset: usize,
}

impl Step for Summing<'_> {
    /// A chunk that fails anywhere counts as not copied at all, as in the kernel, and adds nothing to the sum.
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        let flat = self.flat + progress;
        let (from, to) = if self.direction == Direction::Dest { (flat, addr) } else { (addr, flat) };
        let mut block = [0_u8; BLOCK];
        let own = block.as_mut_ptr().expose_provenance();
        let mut chunk = 0;
        for at in (0..len).step_by(BLOCK) {
            let part = BLOCK.min(len - at);
            // SAFETY: the destination is `block`; the source is a part of the side that `summing_copy` was given for
            // it.
            if unsafe { self.copier.copy(own, from + at, part) } != 0 {
                return len;
            }
            chunk = combine(chunk, block_sum(&block[..part]), at);
            // SAFETY: the source is `block`; the destination is a part of the side that `summing_copy` was given for
            // it.
            if unsafe { self.copier.copy(to + at, own, part) } != 0 {
                return len;
            }
        }
        self.sum = combine(self.sum, chunk, self.offset + progress);
        0
    }
}

/// Copies into the iterator and adds the bytes copied to `csum`, the sum of the `offset` bytes before them
/// (`csum_and_copy_to_iter`). Returns the number of bytes copied and the sum; if that number is 0, the sum is `csum`
/// unchanged.
pub fn csum_and_copy_to_iter(
    src: Memory,
    i: &mut IovIter,
    nbytes: usize,
    csum: u32,
    offset: usize,
) -> Result<(usize, u32)> {
    let mut sum = csum;
    let done = bounce::to_iter(src, i, nbytes, "csum_and_copy_to_iter", |copier, i, src| {
        summing_copy(copier, i, src, Direction::Dest, &mut sum, offset)
    })?;
    Ok((done, sum))
}

/// Copies from the iterator and adds the bytes copied to `csum` (`csum_and_copy_from_iter`).
pub fn csum_and_copy_from_iter(dst: Memory, i: &mut IovIter, nbytes: usize, csum: u32) -> Result<(usize, u32)> {
    let mut sum = csum;
    let done = bounce::from_iter(dst, i, nbytes, "csum_and_copy_from_iter", |copier, i, dst| {
        summing_copy(copier, i, dst, Direction::Source, &mut sum, 0)
    })?;
    Ok((done, sum))
}

/// Copies between the iterator and flat memory, for both of which the copier was made. A DISCARD iterator copies 0
/// bytes here: its walk gives no memory, so nothing would be summed.
fn summing_copy(
    copier: &mut Copier,
    i: &mut IovIter,
    flat: Segment,
    direction: Direction,
    csum: &mut u32,
    offset: usize,
) -> usize {
    if i.kind() == Kind::Discard {
        return 0;
    }
    let mut step = Summing { flat: flat.addr, direction, copier, sum: fold(u64::from(*csum)), offset };
    let done = i.walk(flat.len, &mut step);
    if done != 0 {
        *csum = step.sum;
    }
    done
}

#[cfg(test)]
mod tests {
    use super::{block_sum, combine, fold};

    /// RFC 1071, section 3.
    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!((block_sum(&bytes) as u16).swap_bytes(), 0xddf2);
    }

    #[test]
    fn any_split_gives_the_sum_of_the_whole() {
        let bytes: Vec<u8> = (0..1001_u32).map(|i| (i * 37 % 251) as u8).collect();
        let whole = block_sum(&bytes);
        for split in 0..=bytes.len() {
            let (a, b) = bytes.split_at(split);
            assert_eq!(combine(block_sum(a), block_sum(b), split), whole, "split at {split}");
        }
    }

    #[test]
    fn folding_keeps_the_value_modulo_ffff() {
        for sum in [0, 1, 0xffff, 0x1_0000, 0xffff_ffff, u64::MAX] {
            assert!(fold(sum) <= 0xffff);
            assert_eq!(u64::from(fold(sum)) % 0xffff, sum % 0xffff);
        }
    }
}
