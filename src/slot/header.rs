//! The header line of a slot. This file only encodes and decodes.

use crate::arch::LINE;
use crate::copy::crc32c;
use crate::copy::sums::Sums;

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
    /// Their sums, the second one [narrow](Sums::narrow).
    pub(super) sums: Sums,
    /// The data, if they are at most [`INLINE`] bytes; otherwise, in the first eight, their offset.
    pub(super) data: [u8; INLINE],
}

/// How far behind the last number that a `Slot` has published a number may lie that no sum vouches for: more than any
/// other writer gets to meanwhile, and so few that damage does not use up the numbers.
const FARTHEST: u64 = 1 << 48;

fn field<const N: usize>(line: &Line, at: usize) -> [u8; N] {
    std::array::from_fn(|index| line[at + index])
}

impl Header {
    /// The header of the first `length` of these bytes, which it has in it.
    pub(super) fn of_data(sequence: u64, length: usize, data: [u8; INLINE]) -> Self {
        Self { sequence, length, sums: Sums::of_bytes(&data[..length]).narrow(), data }
    }

    /// The header of data that begin at this offset from its own start.
    pub(super) fn of_data_at(offset: usize, sequence: u64, length: usize, sums: Sums) -> Self {
        let mut data = [0; INLINE];
        data[..8].copy_from_slice(&(offset as u64).to_le_bytes());
        Self { sequence, length, sums, data }
    }

    /// The offset of data that do not fit into the header, in bytes from its start. It is stored because it depends on
    /// the writer's capacity, and a reader may have another one.
    pub(super) fn offset(&self) -> usize {
        u64::from_le_bytes(std::array::from_fn(|index| self.data[index])) as usize
    }

    /// The stored form. The checksum at its end covers all bytes before.
    pub(super) fn encode(&self) -> Line {
        let mut line = [0; LINE];
        line[..4].copy_from_slice(&MAGIC.to_le_bytes());
        line[4..8].copy_from_slice(&self.sums.crc32c.to_le_bytes());
        line[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        line[16..24].copy_from_slice(&(self.length as u64).to_le_bytes());
        line[24..24 + INLINE].copy_from_slice(&self.data);
        line[56..60].copy_from_slice(&(self.sums.crc64 as u32).to_le_bytes());
        let sum = crc32c::of_bytes(&line[..LINE - 4]);
        line[LINE - 4..].copy_from_slice(&sum.to_le_bytes());
        line
    }

    /// Decodes a line; `None` if its checksum or its mark is wrong.
    pub(super) fn decode(line: &Line) -> Option<Self> {
        let is_whole = u32::from_le_bytes(field(line, LINE - 4)) == crc32c::of_bytes(&line[..LINE - 4]);
        (is_whole && is_marked(line)).then(|| Self {
            sequence: sequence(line),
            length: u64::from_le_bytes(field(line, 16)) as usize,
            sums: Sums {
                crc32c: u32::from_le_bytes(field(line, 4)),
                crc64: u32::from_le_bytes(field(line, 56)).into(),
            },
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
/// `last` is the number of this writer's own last publication, 0 if it has none: it continues after that, whatever has
/// become of the header. A single flipped bit is found as the one whose correction makes the checksum right. If a
/// writer was killed while it stored the line, the number is its own or that of the publication before, either of which
/// will do; in the very first line the mark may be missing.
pub(super) fn last_sequence(line: &Line, last: u64) -> Option<u64> {
    let flipped = |bit: usize| {
        let mut line = *line;
        line[bit / 8] ^= 1 << (bit % 8);
        Header::decode(&line)
    };
    if let Some(header) = Header::decode(line).or_else(|| (0..8 * LINE).find_map(flipped)) {
        return Some(header.sequence.max(last));
    }
    let torn = sequence(line);
    let is_marked_as_torn = is_marked(line) || torn <= 1;
    match last {
        0 => is_marked_as_torn.then_some(torn),
        last if is_marked_as_torn && torn.saturating_sub(last) < FARTHEST => Some(torn.max(last)),
        last => Some(last),
    }
}

#[cfg(test)]
mod tests {
    use super::{Header, INLINE, LINE, Sums, crc32c, last_sequence};

    const SUMS: Sums = Sums { crc32c: 9, crc64: 11 };

    #[test]
    fn a_header_with_any_flipped_bit_is_none() {
        let header = Header { sequence: 7, length: 100, sums: SUMS, data: [3; INLINE] };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        for bit in 0..64 * 8 {
            let mut line = header.encode();
            line[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&line), None, "bit {bit}");
            assert_eq!(last_sequence(&line, 0), Some(7), "bit {bit}");
        }
    }

    #[test]
    fn a_writer_with_a_number_of_its_own_goes_on_behind_it_whatever_the_header_says() {
        let whole = Header { sequence: 7, length: 100, sums: SUMS, data: [3; INLINE] }.encode();
        for (at, byte) in [(0, 0), (8, 0), (8, 0xff), (40, 0xaa)] {
            let mut line = whole;
            line[at..at + 8].fill(byte);
            assert_eq!(last_sequence(&line, 7), Some(7), "eight bytes {byte:#x} at {at}");
        }
        assert_eq!(last_sequence(&whole, 5), Some(7), "another writer was there meanwhile");
        assert_eq!(last_sequence(&whole, 9), Some(9), "the header is one of before");
        let mut torn = Header { sequence: 8, length: 10, sums: SUMS, data: [4; INLINE] }.encode();
        torn[32..].copy_from_slice(&whole[32..]);
        assert_eq!(last_sequence(&torn, 5), Some(8), "another writer was killed in the middle of its header");
    }

    #[test]
    fn a_line_without_the_mark_is_no_header_and_tells_a_number_only_if_it_may_be_of_the_first() {
        let whole = Header { sequence: 7, length: 100, sums: SUMS, data: [3; INLINE] }.encode();
        let mut another = whole;
        another[..4].copy_from_slice(b"KIND");
        let sum = crc32c::of_bytes(&another[..60]).to_le_bytes();
        another[60..].copy_from_slice(&sum);
        assert_eq!((Header::decode(&another), last_sequence(&another, 0)), (None, None));
        assert_eq!(last_sequence(&another, 3), Some(3), "a number without the mark is none");
        let torn = |number: u64| {
            let mut line = [0; LINE];
            line[8..16].copy_from_slice(&number.to_le_bytes());
            last_sequence(&line, 0)
        };
        assert_eq!([0, 1, 2].map(torn), [Some(0), Some(1), None]);
    }
}
