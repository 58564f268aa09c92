//! The sums by which a log and a slot tell data that were stored from any others: two, by different polynomials.
//!
//! One CRC cannot tell all data apart that contain the same CRC of themselves. If a unit ends in its own CRC-32C, as
//! blocks of file systems and frames of protocols do, two such units of one length differ by a multiple of the
//! polynomial. So the CRC-32C of data stays the same when one unit takes the place of the other, whatever is before and
//! behind it. The second sum tells them apart, but for one mix in 2^64. Units that defeat both differ by a multiple of
//! both polynomials: nobody stores those but on purpose.

use super::crc32c::Sum;
use crc_fast::CrcAlgorithm::Crc64Nvme;
use crc_fast::Digest;

/// The sums of some data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sums {
    /// The CRC-32C.
    pub crc32c: u32,
    /// The CRC-64/NVME, or 1 if that is 0. In a header that has no second sum, it is 0.
    pub crc64: u64,
}

impl Sums {
    /// The sums of bytes of our own.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        Self { crc32c: super::crc32c::of_bytes(bytes), crc64: crc_fast::crc64_nvme(bytes).max(1) }
    }

    /// The sums as a header with 32 bits for the second one has them: its lower half, or 1 if that is 0.
    #[must_use]
    pub(crate) fn narrow(self) -> Self {
        Self { crc64: u64::from((self.crc64 as u32).max(1)), ..self }
    }

    /// Whether data with these sums may be those of a header that has the sums `stored`. Versions before the second sum
    /// wrote zeroes in its place.
    pub(crate) fn agree_with(self, stored: Self) -> bool {
        self.crc32c == stored.crc32c && (self.crc64 == stored.crc64 || stored.crc64 == 0)
    }
}

/// Sums that grow block by block.
pub(crate) struct Summing {
    crc32c: Sum,
    crc64: u64,
}

impl Summing {
    /// The sums of no data.
    pub(crate) fn new() -> Self {
        Self { crc32c: Sum::from(0), crc64: 0 }
    }

    /// Adds a block. What becomes of the block is what [`Sum::add`] says.
    #[inline]
    pub(crate) fn add(&mut self, block: &mut [u8]) {
        self.add_crc64(block);
        self.add_crc32c(block);
    }

    /// Adds a block to the CRC-32C alone, as [`Sum::add`] does.
    #[inline]
    pub(crate) fn add_crc32c(&mut self, block: &mut [u8]) {
        self.crc32c.add(block);
    }

    /// Adds bytes to the CRC-64/NVME alone.
    #[inline]
    pub(crate) fn add_crc64(&mut self, bytes: &[u8]) {
        // Going on from a sum of 0 is the same as beginning, for which the library is 15 ns faster.
        self.crc64 = if self.crc64 == 0 { crc_fast::crc64_nvme(bytes) } else { extended(self.crc64, bytes) };
    }

    /// Carries the CRC-64/NVME over to the bytes that are added to it next, which begin with these: to begin with the
    /// changed ones is the same as to go on. Does nothing for fewer than eight.
    ///
    /// The CRC is added without carries to the first eight bytes. Their load waits until this store has left the CPU's
    /// store queue, so other stores are made and other bytes summed between this and [`Self::add_crc64`]. In the buffer
    /// of a publication this takes 0.2 ns, and to go on as the library does it, which moves its state about, 14.
    #[inline]
    pub(crate) fn carry_crc64(&mut self, bytes: &mut [u8]) {
        if let Some(first) = bytes.first_chunk_mut() {
            *first = (u64::from_le_bytes(*first) ^ std::mem::take(&mut self.crc64)).to_le_bytes();
        }
    }

    pub(crate) fn finish(&self) -> Sums {
        Sums { crc32c: self.crc32c.finish(), crc64: self.crc64.max(1) }
    }
}

/// The CRC-64/NVME of what had this one and of the block behind it.
fn extended(crc: u64, block: &[u8]) -> u64 {
    let mut digest = Digest::new_with_init_state(Crc64Nvme, !crc);
    digest.update(block);
    digest.finalize()
}

/// Units of `len` bytes that each end in their own CRC-32C. All data of as many such units have one CRC-32C.
#[cfg(test)]
pub(crate) fn self_summed(seed: u64, units: usize, len: usize) -> Vec<u8> {
    let unit = |unit| {
        let body = (0..len as u64 - 4).map(|at| (seed * 101 + unit * 13 + at * 7) as u8 | 1);
        let mut bytes: Vec<u8> = body.collect();
        bytes.extend(super::crc32c::of_bytes(&bytes).to_le_bytes());
        bytes
    };
    (0..units as u64).flat_map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::{Summing, Sums, self_summed};
    use crate::copy::chunk::BLOCK;
    use crate::copy::crc32c::crc_bit_by_bit;

    fn bit_by_bit(bytes: &[u8]) -> u64 {
        crc_bit_by_bit(bytes, 64, 0x9a6c_9329_ac4b_c9b5)
    }

    #[test]
    fn the_second_sum_is_the_crc_of_the_nvme_specification() {
        assert_eq!(Sums::of_bytes(b"123456789"), Sums { crc32c: 0xe306_9283, crc64: 0xae8b_1486_0a79_9888 });
        assert_eq!(bit_by_bit(b"123456789"), 0xae8b_1486_0a79_9888);
    }

    #[test]
    fn blocks_of_any_length_give_the_sums_of_the_whole() {
        let bytes: Vec<u8> = (0..3 * BLOCK as u32).map(|i| (i * 37 % 251) as u8).collect();
        for first in [0, 1, 7, 100, BLOCK - 1, BLOCK] {
            for second in [0, 1, 3, 100, BLOCK, BLOCK + 1] {
                let whole = &bytes[..first + second];
                let mut sums = Summing::new();
                for part in [&whole[..first], &whole[first..]] {
                    sums.add(&mut part.to_vec());
                }
                assert_eq!(sums.finish(), Sums::of_bytes(whole), "{second} bytes behind {first}");
                assert_eq!(sums.finish().crc64, bit_by_bit(whole).max(1), "{second} bytes behind {first}");
            }
        }
    }

    #[test]
    fn no_second_sum_is_taken_for_one_that_was_not_stored() {
        assert_eq!(Sums::of_bytes(b""), Sums { crc32c: 0, crc64: 1 });
        let of_lower_zeroes = Sums { crc32c: 5, crc64: 7 << 32 };
        assert_eq!(of_lower_zeroes.narrow(), Sums { crc32c: 5, crc64: 1 });
        let sums = Sums::of_bytes(b"some data");
        assert!(sums.agree_with(Sums { crc64: 0, ..sums }));
        for stored in [sums.crc64 ^ 1, 1, !0] {
            assert!(!sums.agree_with(Sums { crc64: stored, ..sums }));
        }
        assert!(!sums.agree_with(Sums { crc32c: !sums.crc32c, ..sums }));
        assert!(!sums.agree_with(Sums { crc32c: !sums.crc32c, crc64: 0 }));
    }

    /// What the second sum is for.
    #[test]
    fn units_that_end_in_their_own_crc32c_differ_in_the_second_sum_alone() {
        for len in [8, 16, 64, 512] {
            let sums = |seed| Sums::of_bytes(&self_summed(seed, 4, len));
            for seed in 1..100 {
                assert_eq!(sums(seed).crc32c, sums(0).crc32c);
                assert_ne!(sums(seed).narrow().crc64, sums(0).narrow().crc64);
            }
        }
    }
}
