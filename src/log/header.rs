//! The header, a cache line before each record's data. This file only encodes and decodes.

use super::format::{End, Line, u32_at, u64_at};
use super::ring::HEADER;
use crate::arch::LINE;
use crate::copy::crc32c;
use crate::copy::sums::Sums;

const RECORD: u32 = u32::from_le_bytes(*b"RECD");

/// The description of a record, stored in the line before its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The generation of the log.
    pub generation: u64,
    /// The record's number.
    pub sequence: u64,
    /// Bytes of data.
    pub length: u64,
    /// The header's position.
    pub position: u64,
    /// The position at which the record before it ends. Bad bytes, or too few bytes at the ring's end, may lie between
    /// the two.
    pub previous: u64,
    /// The sums of the data.
    pub sums: Sums,
}

impl Header {
    /// The stored form. The checksum at its end covers all bytes before.
    pub fn encode(&self) -> Line {
        let mut line = [0; LINE];
        line[..4].copy_from_slice(&RECORD.to_le_bytes());
        line[4..8].copy_from_slice(&self.sums.crc32c.to_le_bytes());
        let Sums { crc64, .. } = self.sums;
        let numbers = [self.generation, self.sequence, self.length, self.position, self.previous, crc64];
        for (at, number) in (8..).step_by(8).zip(numbers) {
            line[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::of_bytes(&line[..LINE - 4]);
        line[LINE - 4..].copy_from_slice(&sum.to_le_bytes());
        line
    }

    fn fields(line: &Line) -> Self {
        let number = |index: usize| u64_at(line, 8 + 8 * index);
        Self {
            generation: number(0),
            sequence: number(1),
            length: number(2),
            position: number(3),
            previous: number(4),
            sums: Sums { crc32c: u32_at(line, 4), crc64: number(5) },
        }
    }

    /// Decodes a line; `None` if its checksum or its mark is wrong.
    pub fn decode(line: &Line) -> Option<Self> {
        let is_whole = u32_at(line, 0) == RECORD && u32_at(line, LINE - 4) == crc32c::of_bytes(&line[..LINE - 4]);
        is_whole.then(|| Self::fields(line))
    }

    /// The length in a line with a wrong checksum, if at least three of five fields have the values that a header here
    /// must have: then it is a torn or damaged header. Three, because a burst of 32 wrong bits reaches two fields at
    /// most, and a header of an earlier lap has two of them right.
    pub fn remains(line: &Line, generation: u64, end: End, position: u64) -> Option<u64> {
        let header = Self::fields(line);
        let right = [
            u32_at(line, 0) == RECORD,
            header.generation == generation,
            header.sequence == end.sequence,
            header.position == position,
            header.previous == end.position,
        ];
        (right.into_iter().filter(|right| *right).count() >= 3).then_some(header.length)
    }

    /// The record's size in bytes, with its header and in whole lines; `None` if that overflows.
    pub fn span(&self) -> Option<u64> {
        span(self.length)
    }
}

/// The size in bytes of a record with `length` bytes of data: its header, and its data in whole lines.
pub fn span(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(HEADER)?.checked_add(HEADER)
}

#[cfg(test)]
mod tests {
    use super::{End, Header, Sums};

    fn header() -> Header {
        Header {
            generation: 7,
            sequence: 5,
            length: 100,
            position: 640,
            previous: 576,
            sums: Sums { crc32c: 9, crc64: 11 },
        }
    }

    #[test]
    fn what_is_stored_is_read_again() {
        assert_eq!(Header::decode(&header().encode()), Some(header()));
    }

    const END: End = End { position: 576, sequence: 5 };

    #[test]
    fn no_burst_of_up_to_32_bits_passes_and_each_leaves_remains() {
        let line = header().encode();
        for (bit, width) in (0..line.len() * 8).flat_map(|bit| [1, 2, 8, 16, 31, 32].map(|width| (bit, width))) {
            let mut damaged = line;
            for bit in (bit..bit + width).filter(|bit| *bit < line.len() * 8) {
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
            assert_eq!(Header::decode(&damaged), None, "{width} bits from {bit} on");
            assert!(Header::remains(&damaged, 7, END, 640).is_some(), "{width} bits from {bit} on");
        }
    }

    #[test]
    fn a_line_of_something_else_is_no_remains_of_a_header() {
        assert_eq!(Header::remains(&[0; 64], 7, END, 640), None);
        assert_eq!(Header::remains(&header().encode(), 7, End { position: 1216, sequence: 6 }, 1280), None);
    }
}
