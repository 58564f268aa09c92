//! The sum itself: a library's, over memory of our own.

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
