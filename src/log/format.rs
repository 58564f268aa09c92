//! What a log looks like in its region: two superblocks, a page each, and a ring of records behind them. Pure: bytes
//! in, values out.
//!
//! A place in the ring is told by its *position*: the bytes that were ever in the ring before it, laps included. It
//! never repeats, so a header that names another position than the one it is found at is of an earlier lap, or a copy
//! of a header.

use super::ring::{Extent, HEADER};
use crate::abi::PAGE_SIZE;
use crate::arch::LINE;
use crc_fast::{CrcAlgorithm, checksum};

/// Where the ring begins, in bytes: behind the superblocks.
pub const RING: usize = 2 * PAGE_SIZE;

/// The smallest region there can be a log in, in bytes.
pub const SMALLEST: usize = RING + PAGE_SIZE;

/// A superblock as it is stored.
pub type Page = [u8; PAGE_SIZE];

/// A header as it is stored.
pub type Line = [u8; LINE];

const MAGIC: [u8; 8] = *b"IOVECLOG";
const VERSION: u32 = 1;
const RECORD: u32 = u32::from_le_bytes(*b"RECD");
/// Where the bad extents are listed in a superblock, and where its sum is.
const EXTENTS: usize = 96;
const SUM: usize = PAGE_SIZE - 4;
/// How many bad extents a superblock has room for.
pub const MAX_EXTENTS: usize = (SUM - EXTENTS) / 16;

/// CRC-32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Where a log that was closed had come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The position behind the last record.
    pub position: u64,
    /// The sequence number of the next one.
    pub sequence: u64,
}

/// What is known of the whole log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Tells this log from any other that was in the same memory.
    pub generation: u64,
    /// How often it was written: of two that are valid the greater one counts.
    pub update: u64,
    /// Bytes of the region, of which what is behind the last whole line is not used.
    pub size: u64,
    /// The oldest record that was not discarded, or the next one if there is none.
    pub first: End,
    /// Where it ended when it was closed; `None` while somebody writes, and after a crash.
    pub closed: Option<End>,
    /// What of the ring cannot be written to, in order and apart from each other.
    pub bad: Vec<Extent>,
}

impl Superblock {
    /// As it is stored. No more than [`MAX_EXTENTS`] bad extents are.
    pub fn encode(&self) -> Page {
        let mut page = [0; PAGE_SIZE];
        let bad = &self.bad[..self.bad.len().min(MAX_EXTENTS)];
        page[..8].copy_from_slice(&MAGIC);
        page[8..12].copy_from_slice(&VERSION.to_le_bytes());
        page[12..16].copy_from_slice(&(bad.len() as u32).to_le_bytes());
        let closed = self.closed.unwrap_or(End { position: u64::MAX, sequence: u64::MAX });
        let numbers = [
            self.generation,
            self.update,
            self.size,
            self.first.sequence,
            self.first.position,
            closed.sequence,
            closed.position,
        ];
        let extents = bad.iter().flat_map(|extent| [extent.start, extent.end]);
        let places = (16..).step_by(8).take(numbers.len()).chain((EXTENTS..SUM).step_by(8));
        for (at, number) in places.zip(numbers.into_iter().chain(extents)) {
            page[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c(&page[..SUM]);
        page[SUM..].copy_from_slice(&sum.to_le_bytes());
        page
    }

    /// What was stored; `None` if that is not, or not whole, what [`Self::encode`] makes.
    pub fn decode(page: &Page) -> Option<Self> {
        let number = |index: usize| u64_at(page, 16 + 8 * index);
        if !is_marked(page) || u32_at(page, 8) != VERSION || u32_at(page, SUM) != crc32c(&page[..SUM]) {
            return None;
        }
        let listed = u32_at(page, 12) as usize;
        let extent =
            |index| Extent { start: u64_at(page, EXTENTS + 16 * index), end: u64_at(page, EXTENTS + 16 * index + 8) };
        let closed = End { sequence: number(5), position: number(6) };
        let new = Self {
            generation: number(0),
            update: number(1),
            size: number(2),
            first: End { sequence: number(3), position: number(4) },
            closed: (closed.position != u64::MAX).then_some(closed),
            bad: (0..listed.min(MAX_EXTENTS)).map(extent).collect(),
        };
        let capacity = new.capacity();
        let mut end = 0;
        let is_listed = new.bad.iter().all(|bad| {
            let is_behind = bad.start >= end && bad.end > bad.start && bad.end <= capacity;
            end = bad.end;
            is_behind && bad.start.is_multiple_of(HEADER) && bad.end.is_multiple_of(HEADER)
        });
        let is_sane = new.size >= SMALLEST as u64 && isize::try_from(new.size).is_ok() && listed <= MAX_EXTENTS;
        let positions = [Some(new.first), new.closed].into_iter().flatten();
        let are_positions = positions.map(|end| end.position).all(|at| at.is_multiple_of(HEADER) && at < 1 << 62);
        (is_sane && is_listed && are_positions).then_some(new)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> u64 {
        capacity(self.size)
    }
}

/// Bytes of the ring in a region of so many.
pub fn capacity(size: u64) -> u64 {
    let room = size.saturating_sub(RING as u64);
    room - room % HEADER
}

/// Whether a page says that it is a superblock, however damaged.
pub fn is_marked(page: &Page) -> bool {
    page.starts_with(&MAGIC)
}

/// Whether a page may be what was left of the first superblock when making the log was interrupted: it names no bad
/// extents.
pub fn may_be_unfinished(page: &Page) -> bool {
    (is_marked(page) || page[..LINE].iter().all(|byte| *byte == 0)) && page[EXTENTS..SUM].iter().all(|byte| *byte == 0)
}

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
        let sum = crc32c(&line[..LINE - 4]);
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
        let is_whole = u32_at(line, 0) == RECORD && u32_at(line, LINE - 4) == crc32c(&line[..LINE - 4]);
        is_whole.then(|| Self::fields(line))
    }

    /// The length that a line without a right sum tells of, if most of what it must say is right: it was one, torn or
    /// damaged.
    pub fn remains(line: &Line, generation: u64, sequence: u64, position: u64) -> Option<u64> {
        let header = Self::fields(line);
        let right = [
            u32_at(line, 0) == RECORD,
            header.generation == generation,
            header.sequence == sequence,
            header.position == position,
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
    use super::{End, Header, Superblock, crc32c};
    use crate::log::ring::Extent;

    fn superblock() -> Superblock {
        Superblock {
            generation: 7,
            update: 3,
            size: 1 << 20,
            first: End { position: 640, sequence: 5 },
            closed: Some(End { position: 1280, sequence: 9 }),
            bad: vec![Extent { start: 4096, end: 8192 }],
        }
    }

    fn header() -> Header {
        Header { generation: 7, sequence: 5, length: 100, position: 640, previous: 576, crc: 9 }
    }

    /// RFC 3720, B.4.
    #[test]
    fn the_sum_is_that_of_the_rfc() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let open = Superblock { closed: None, bad: vec![], ..superblock() };
        for superblock in [superblock(), open] {
            assert_eq!(Superblock::decode(&superblock.encode()), Some(superblock));
        }
        assert_eq!(Header::decode(&header().encode()), Some(header()));
    }

    #[test]
    fn no_flipped_bit_passes() {
        let page = superblock().encode();
        for bit in 0..page.len() * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::decode(&flipped), None, "bit {bit}");
        }
        let line = header().encode();
        for bit in 0..line.len() * 8 {
            let mut flipped = line;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), None, "bit {bit}");
            assert!(Header::remains(&flipped, 7, 5, 640).is_some(), "bit {bit}");
        }
    }

    #[test]
    fn a_line_of_something_else_is_no_remains_of_a_header() {
        assert_eq!(Header::remains(&[0; 64], 7, 5, 640), None);
        assert_eq!(Header::remains(&header().encode(), 7, 6, 1280), None);
    }

    #[test]
    fn absurd_superblocks_are_none() {
        let far = End { position: u64::MAX - 63, sequence: 0 };
        let overlapping = vec![Extent { start: 0, end: 128 }, Extent { start: 64, end: 256 }];
        for absurd in [
            Superblock { size: 100, ..superblock() },
            Superblock { size: u64::MAX, ..superblock() },
            Superblock { first: far, ..superblock() },
            Superblock { first: End { position: 1, sequence: 0 }, ..superblock() },
            Superblock { bad: overlapping, ..superblock() },
            Superblock { bad: vec![Extent { start: 0, end: 2 << 20 }], ..superblock() },
        ] {
            assert_eq!(Superblock::decode(&absurd.encode()), None, "{absurd:?}");
        }
    }
}
