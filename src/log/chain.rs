//! The records of a log that are known, from the oldest on.

use super::format::{End, LAST_POSITION};
use super::header::Header;
use super::ring::{HEADER, Ring};
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// A record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Where its header is.
    pub position: u64,
    /// Bytes of data.
    pub length: u64,
    /// Their sum.
    pub crc: u32,
}

impl Entry {
    /// The position behind it.
    pub fn end(&self) -> u64 {
        self.position + HEADER + self.length.next_multiple_of(HEADER)
    }
}

/// The records from the oldest on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// The number of the first entry, and where it may begin at the earliest.
    pub first: End,
    /// `None` where a header is damaged.
    pub entries: VecDeque<Option<Entry>>,
    /// Behind the last one.
    pub end: End,
}

impl Chain {
    /// No records.
    pub fn new(first: End) -> Self {
        Self { first, entries: VecDeque::new(), end: first }
    }

    /// The position that the ring is full at.
    pub fn limit(&self, ring: &Ring) -> u64 {
        (self.first.position + ring.capacity()).min(LAST_POSITION)
    }

    /// Where a log without records can go on instead of here: at the next lap's start. `None` if it has some, or
    /// positions end there.
    pub fn next_lap(&self, ring: &Ring) -> Option<End> {
        let position = ring.next_lap(self.end.position);
        let has_room = position + ring.capacity() <= LAST_POSITION;
        (self.entries.is_empty() && has_room).then_some(End { position, ..self.end })
    }

    /// Sees to it that another record can be noted.
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        self.entries
            .try_reserve(additional)
            .map_err(|_| Error::NoMemory(additional.saturating_mul(size_of::<Option<Entry>>())))
    }

    /// Adds damaged records up to an end that the log is known to have come to, if it does not reach so far.
    pub fn extend_to(&mut self, known: End) -> Result<()> {
        if let Some(lost) = known.sequence.checked_sub(self.end.sequence).filter(|lost| *lost > 0) {
            let lost = usize::try_from(lost).unwrap_or(usize::MAX);
            self.reserve(lost)?;
            self.entries.extend((0..lost).map(|_| None));
            self.end = End { position: known.position.max(self.end.position), sequence: known.sequence };
        }
        Ok(())
    }

    /// The numbers of the records whose headers are damaged.
    pub fn damaged(&self) -> impl Iterator<Item = u64> {
        (self.first.sequence..).zip(&self.entries).filter(|(_, entry)| entry.is_none()).map(|(sequence, _)| sequence)
    }

    /// Adds the record of a header.
    pub fn push(&mut self, header: &Header) -> Result<()> {
        let entry = Entry { position: header.position, length: header.length, crc: header.crc };
        self.extend_to(End { position: self.end.position, sequence: header.sequence })?;
        self.reserve(1)?;
        self.entries.push_back(Some(entry));
        self.end = End { position: entry.end(), sequence: header.sequence + 1 };
        Ok(())
    }

    /// Takes the last record off, and those before it whose header is damaged.
    pub fn pop(&mut self) {
        self.entries.pop_back();
        while let Some(None) = self.entries.back() {
            self.entries.pop_back();
        }
        let position = self.entries.back().copied().flatten().map_or(self.first.position, |entry| entry.end());
        self.end = End { position, sequence: self.first.sequence + self.entries.len() as u64 };
    }

    /// What `first` is without the records before a number that there is, or is next.
    pub fn first_after(&self, sequence: u64) -> End {
        let older = usize::try_from(sequence - self.first.sequence).unwrap_or(usize::MAX).min(self.entries.len());
        let position = match self.entries.get(older) {
            Some(Some(entry)) => entry.position,
            // Its place is not known; it lies behind the last older one whose place is, and behind those between them,
            // each of which takes a line or more.
            Some(None) => {
                let between = self.entries.range(..older).rev().take_while(|entry| entry.is_none()).count();
                let known = (older - between).checked_sub(1).and_then(|index| self.entries[index]);
                known.map_or(self.first.position, |entry| entry.end()) + between as u64 * HEADER
            }
            None => self.end.position,
        };
        End { position, sequence }
    }

    /// Where the next record behind one whose header is good begins, or the end.
    pub fn position_behind(&self, sequence: u64) -> u64 {
        let older = usize::try_from(sequence - self.first.sequence).unwrap_or(usize::MAX).saturating_add(1);
        let next = self.entries.iter().skip(older).find_map(|entry| *entry);
        next.map_or(self.end.position, |entry| entry.position)
    }

    /// Forgets what is older than a record that there is, or is next.
    pub fn discard_before(&mut self, sequence: u64) {
        if sequence > self.first.sequence {
            let first = self.first_after(sequence);
            self.entries.drain(..(sequence - self.first.sequence) as usize);
            self.first = first;
        }
    }

    /// The record of a number: `None` if there is none, `Some(None)` if its header is damaged.
    pub fn entry(&self, sequence: u64) -> Option<Option<Entry>> {
        let index = usize::try_from(sequence.checked_sub(self.first.sequence)?).ok()?;
        self.entries.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Chain, End, Entry, HEADER};

    #[test]
    fn a_record_whose_header_is_damaged_lies_behind_all_older_ones_each_of_a_line_or_more() {
        for damaged in 0..1_u32 << 8 {
            let mut chain = Chain::new(End { position: 640, sequence: 9 });
            let mut behind = 640;
            for index in 0..8 {
                let position = 640 + index * 4 * HEADER;
                let is_damaged = damaged >> index & 1 == 1;
                chain.entries.push_back((!is_damaged).then_some(Entry { position, length: 100, crc: 0 }));
                chain.end.sequence += 1;
                let expected = if is_damaged { behind } else { position };
                assert_eq!(chain.first_after(9 + index), End { position: expected, sequence: 9 + index });
                behind = if is_damaged { behind + HEADER } else { position + 3 * HEADER };
            }
        }
    }
}
