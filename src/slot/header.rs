//! The header line of a slot. This file only encodes and decodes.

use crate::arch::LINE;
use crate::copy::crc32c;

/// The greatest length of data that are stored in the header's line, in bytes.
pub(super) const INLINE: usize = 32;

const MAGIC: u32 = u32::from_le_bytes(*b"SLOT");

/// A header as it is stored.
pub(super) type Line = [u8; LINE];

/// The contents of a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// The publication's number.
    pub(super) sequence: u64,
    /// Bytes of data.
    pub(super) length: usize,
    /// Their CRC-32C.
    pub(super) crc: u32,
    /// The data, if they are at most [`INLINE`] bytes.
    pub(super) data: [u8; INLINE],
}

fn field<const N: usize>(line: &Line, at: usize) -> [u8; N] {
    std::array::from_fn(|index| line[at + index])
}

impl Header {
    /// The stored form. The checksum at its end covers all bytes before.
    pub(super) fn encode(&self) -> Line {
        let mut line = [0; LINE];
        line[..4].copy_from_slice(&MAGIC.to_le_bytes());
        line[4..8].copy_from_slice(&self.crc.to_le_bytes());
        line[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        line[16..24].copy_from_slice(&(self.length as u64).to_le_bytes());
        line[24..24 + INLINE].copy_from_slice(&self.data);
        let sum = crc32c::of_bytes(&line[..LINE - 4]);
        line[LINE - 4..].copy_from_slice(&sum.to_le_bytes());
        line
    }

    /// Decodes a line; `None` if its checksum or its mark is wrong.
    pub(super) fn decode(line: &Line) -> Option<Self> {
        let is_whole = u32::from_le_bytes(field(line, LINE - 4)) == crc32c::of_bytes(&line[..LINE - 4]);
        (is_whole && is_marked(line)).then(|| Self {
            crc: u32::from_le_bytes(field(line, 4)),
            sequence: sequence(line),
            length: u64::from_le_bytes(field(line, 16)) as usize,
            data: field(line, 24),
        })
    }
}

fn sequence(line: &Line) -> u64 {
    u64::from_le_bytes(field(line, 8))
}

fn is_marked(line: &Line) -> bool {
    u32::from_le_bytes(field(line, 0)) == MAGIC
}

/// The number of the last publication, for a writer that continues; 0 if there was none, `None` if it cannot be known.
/// A single flipped bit is found as the one whose correction makes the checksum right. If a writer was killed while it
/// stored the line, the number is its own or that of the publication before, either of which will do; in the very first
/// line the mark may be missing.
pub(super) fn last_sequence(line: &Line) -> Option<u64> {
    let flipped = |bit: usize| {
        let mut line = *line;
        line[bit / 8] ^= 1 << (bit % 8);
        Header::decode(&line)
    };
    let found = Header::decode(line).or_else(|| (0..8 * LINE).find_map(flipped));
    let torn = || (is_marked(line) || sequence(line) <= 1).then(|| sequence(line));
    found.map(|header| header.sequence).or_else(torn)
}

#[cfg(test)]
mod tests {
    use super::{Header, INLINE, last_sequence};

    #[test]
    fn a_header_with_any_flipped_bit_is_none() {
        let header = Header { sequence: 7, length: 100, crc: 9, data: [3; INLINE] };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        for bit in 0..64 * 8 {
            let mut line = header.encode();
            line[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&line), None, "bit {bit}");
            assert_eq!(last_sequence(&line), Some(7), "bit {bit}");
        }
    }
}
