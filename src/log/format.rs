//! The format of a log in its region: two superblocks of one page each, then a ring of records. Each record has a
//! [header](super::header). The functions here are pure: they turn bytes into values and back.
//!
//! A *position* names a byte of the ring. It counts the bytes from the start of the first lap, so it grows from lap to
//! lap and never repeats. If a header names another position than the one at which it is found, it is left from an
//! earlier lap, or it is a copy.

use super::ring::{Extent, HEADER};
use crate::abi::PAGE_SIZE;
use crate::arch::LINE;
use crate::copy::crc32c;

/// The offset in bytes at which the ring begins: just after the two superblocks.
pub const RING: usize = 2 * PAGE_SIZE;

/// The size in bytes of the smallest region that can hold a log.
pub const SMALLEST: usize = RING + PAGE_SIZE;

/// A superblock as it is stored.
pub type Page = [u8; PAGE_SIZE];

/// A header as it is stored.
pub type Line = [u8; LINE];

const MAGIC: [u8; 8] = *b"IOVECLOG";
const VERSION: u32 = 1;
/// The offset in a superblock of the number of its update.
const UPDATE: usize = 24;
/// The offset in a superblock of its list of bad extents.
const EXTENTS: usize = 96;
/// The offset in a superblock of its CRC-32C.
const SUM: usize = PAGE_SIZE - 4;
/// How many bad extents a superblock has room for.
pub const MAX_EXTENTS: usize = (SUM - EXTENTS) / 16;

/// A little-endian number of a page or line.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// A little-endian number of a page or line.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The greatest position. It is so small that adding a length to a position cannot wrap.
pub const LAST_POSITION: u64 = (1 << 62) - HEADER;

/// The greatest number that an update of a superblock can have.
pub const LAST_UPDATE: u64 = (1 << 62) - 1;

/// The place between two records at which a log begins or ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    /// The position just after the record before it.
    pub position: u64,
    /// The sequence number of the record that follows.
    pub sequence: u64,
}

impl End {
    /// Whether a log that begins at `first` can end here. The records between take at least one line each, and together
    /// at most `capacity` bytes.
    fn can_follow(self, first: Self, capacity: u64) -> bool {
        let positions = self.position.checked_sub(first.position).filter(|positions| *positions <= capacity);
        let sequences = self.sequence.checked_sub(first.sequence);
        self.position.is_multiple_of(HEADER)
            && self.position <= LAST_POSITION
            && positions.zip(sequences).is_some_and(|(positions, sequences)| sequences <= positions / HEADER)
    }
}

/// A superblock: what is stored about the log as a whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// A random number that distinguishes this log from others that were in the same memory.
    pub generation: u64,
    /// The number of this update. If both superblocks are valid, the one with the greater number counts.
    pub update: u64,
    /// The size of the region in bytes. Bytes after the last whole line are not used.
    pub size: u64,
    /// Where the oldest record that was not discarded begins, or the next record if there is none.
    pub first: End,
    /// Where the log ended when it was closed. `None` while a writer has it open, and after a crash.
    pub closed: Option<End>,
    /// Where the log ended when this superblock was written. All records before it were durable by then.
    pub known: End,
    /// The extents of the ring that cannot be written to, in order. No two overlap.
    pub bad: Vec<Extent>,
}

impl Superblock {
    /// The page that is stored. It lists at most [`MAX_EXTENTS`] bad extents; the rest are left out.
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
            self.known.sequence,
            self.known.position,
        ];
        let extents = bad.iter().flat_map(|extent| [extent.start, extent.end]);
        let places = (16..).step_by(8).take(numbers.len()).chain((EXTENTS..SUM).step_by(8));
        for (at, number) in places.zip(numbers.into_iter().chain(extents)) {
            page[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let sum = crc32c::of_bytes(&page[..SUM]);
        page[SUM..].copy_from_slice(&sum.to_le_bytes());
        page
    }

    /// Reads a stored page. `None` if it is not a page that [`Self::encode`] makes, or if it is damaged.
    pub fn decode(page: &Page) -> Option<Self> {
        let number = |index: usize| u64_at(page, 16 + 8 * index);
        if !is_marked(page) || u32_at(page, 8) != VERSION || u32_at(page, SUM) != crc32c::of_bytes(&page[..SUM]) {
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
            known: End { sequence: number(7), position: number(8) },
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
        let is_countable = new.update <= LAST_UPDATE;
        let origin = End { position: 0, sequence: 0 };
        let is_ordered = new.first.can_follow(origin, LAST_POSITION)
            && new.known.can_follow(new.first, capacity)
            && new.closed.is_none_or(|closed| closed == new.known);
        (is_sane && is_countable && is_listed && is_ordered).then_some(new)
    }

    /// The size of the ring in bytes.
    pub fn capacity(&self) -> u64 {
        capacity(self.size)
    }
}

/// The size in bytes of the ring in a region of `size` bytes: whole lines only.
pub fn capacity(size: u64) -> u64 {
    let room = size.saturating_sub(RING as u64);
    room - room % HEADER
}

/// Whether a page begins as a superblock does. The rest of it may be damaged.
pub fn is_marked(page: &Page) -> bool {
    page.starts_with(&MAGIC)
}

/// Reads the number of a superblock's update from its first line.
pub fn update(line: &[u8]) -> u64 {
    u64_at(line, UPDATE)
}

/// Whether a page may be all that was stored of the first superblock when the creation of a log was interrupted: such
/// a superblock lists no bad extents and was written once.
pub fn may_be_unfinished(page: &Page) -> bool {
    let is_first = is_marked(page) && update(page) <= 1;
    (is_first || page[..LINE].iter().all(|byte| *byte == 0)) && page[EXTENTS..SUM].iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests {
    use super::{End, Superblock};
    use crate::log::ring::Extent;

    fn superblock() -> Superblock {
        Superblock {
            generation: 7,
            update: 3,
            size: 1 << 20,
            first: End { position: 640, sequence: 5 },
            closed: Some(End { position: 1280, sequence: 9 }),
            known: End { position: 1280, sequence: 9 },
            bad: vec![Extent { start: 4096, end: 8192 }],
        }
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let open = Superblock { closed: None, bad: vec![], ..superblock() };
        for superblock in [superblock(), open] {
            assert_eq!(Superblock::decode(&superblock.encode()), Some(superblock));
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        let page = superblock().encode();
        for bit in 0..page.len() * 8 {
            let mut flipped = page;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Superblock::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn absurd_superblocks_are_none() {
        let far = End { position: u64::MAX - 63, sequence: 0 };
        let overlapping = vec![Extent { start: 0, end: 128 }, Extent { start: 64, end: 256 }];
        for absurd in [
            Superblock { size: 100, ..superblock() },
            Superblock { size: u64::MAX, ..superblock() },
            Superblock { update: u64::MAX, ..superblock() },
            Superblock { first: far, ..superblock() },
            Superblock { first: End { position: 1, sequence: 0 }, ..superblock() },
            Superblock { first: End { position: 640, sequence: 11 }, ..superblock() },
            Superblock { closed: None, known: End { position: 1280, sequence: 16 }, ..superblock() },
            Superblock { closed: None, known: End { position: 576, sequence: 5 }, ..superblock() },
            Superblock { closed: None, known: End { position: 640 + (1 << 20), sequence: 9 }, ..superblock() },
            Superblock { closed: Some(End { position: 1344, sequence: 9 }), ..superblock() },
            Superblock { bad: overlapping, ..superblock() },
            Superblock { bad: vec![Extent { start: 0, end: 2 << 20 }], ..superblock() },
        ] {
            assert_eq!(Superblock::decode(&absurd.encode()), None, "{absurd:?}");
        }
    }
}
