//! The line before each record's data. Pure: bytes in, values out.

use super::format::{End, Line, u32_at, u64_at};
use super::ring::HEADER;
use crate::arch::LINE;
use crate::copy::crc32c;

const RECORD: u32 = u32::from_le_bytes(*b"RECD");

/// What is known of one record, in the line before its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The log's.
    pub generation: u64,
    /// The record's number.
    pub sequence: u64,
    /// Bytes of data.
    pub length: u64,
    /// Where the header is.
    pub position: u64,
    /// Where the record before it ends: bytes that are bad, or too few at the ring's end, may lie between.
    pub previous: u64,
    /// The sum of the data.
    pub crc: u32,
}

impl Header {
    /// As it is stored: the sum at its end covers everything before.
    pub fn encode(&self) -> Line {
        let mut line = [0; LINE];
        line[..4].copy_from_slice(&RECORD.to_le_bytes());
        line[4..8].copy_from_slice(&self.crc.to_le_bytes());
        let numbers = [self.generation, self.sequence, self.length, self.position, self.previous];
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
            crc: u32_at(line, 4),
        }
    }

    /// What was stored; `None` if its sum is wrong.
    pub fn decode(line: &Line) -> Option<Self> {
        let is_whole = u32_at(line, 0) == RECORD && u32_at(line, LINE - 4) == crc32c::of_bytes(&line[..LINE - 4]);
        is_whole.then(|| Self::fields(line))
    }

    /// The length that a line without a right sum tells of, if most of what it must say is right: it was one, torn or
    /// damaged. A burst of 32 bits reaches two of the five fields; a header of an earlier lap has two of them right.
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

    /// Bytes from the header's start to the next place for one, if that can be.
    pub fn span(&self) -> Option<u64> {
        span(self.length)
    }
}

/// Bytes that a record of so many takes: its header, and its data in whole lines.
pub fn span(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(HEADER)?.checked_add(HEADER)
}

#[cfg(test)]
mod tests {
    use super::{End, Header};

    fn header() -> Header {
        Header { generation: 7, sequence: 5, length: 100, position: 640, previous: 576, crc: 9 }
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
