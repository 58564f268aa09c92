//! The list of a log's records in memory: where each begins, from the oldest to the newest.

use super::format::{End, LAST_POSITION};
use super::header::Header;
use super::ring::{HEADER, Ring};
use crate::copy::sums::Sums;
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// One record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The position of its header.
    pub position: u64,
    /// Bytes of data.
    pub length: u64,
    /// The sums of the data.
    pub sums: Sums,
}

impl Entry {
    /// The position just after the record: its data are padded to whole lines.
    pub fn end(&self) -> u64 {
        self.position + HEADER + self.length.next_multiple_of(HEADER)
    }
}

/// The records in order, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// The sequence number of the first entry, and the earliest position at which it may begin.
    pub first: End,
    /// An entry is `None` if the record's header is damaged.
    pub entries: VecDeque<Option<Entry>>,
    /// The position just after the last record, and the sequence number of the next one.
    pub end: End,
}

impl Chain {
    /// Makes a chain without records.
    pub fn new(first: End) -> Self {
        Self { first, entries: VecDeque::new(), end: first }
    }

    /// The position at which the ring is full: no record may end beyond it.
    pub fn limit(&self, ring: &Ring) -> u64 {
        (self.first.position + ring.capacity()).min(LAST_POSITION)
    }

    /// The start of the next lap, where a log without records may append instead of at its end. `None` if the log has
    /// records, or if that lap would exceed the last position.
    pub fn next_lap(&self, ring: &Ring) -> Option<End> {
        let position = ring.next_lap(self.end.position);
        let has_room = position + ring.capacity() <= LAST_POSITION;
        (self.entries.is_empty() && has_room).then_some(End { position, ..self.end })
    }

    /// Allocates room for `additional` more entries, so that adding them cannot fail.
    pub fn reserve(&mut self, additional: usize) -> Result<()> {
        self.entries
            .try_reserve(additional)
            .map_err(|_| Error::NoMemory(additional.saturating_mul(size_of::<Option<Entry>>())))
    }

    /// Adds damaged entries until the chain has as many records as a log that is known to have ended at `known`.
    pub fn extend_to(&mut self, known: End) -> Result<()> {
        if let Some(lost) = known.sequence.checked_sub(self.end.sequence).filter(|lost| *lost > 0) {
            let lost = usize::try_from(lost).unwrap_or(usize::MAX);
            self.reserve(lost)?;
            self.entries.extend((0..lost).map(|_| None));
            self.end = End { position: known.position.max(self.end.position), sequence: known.sequence };
        }
        Ok(())
    }

    /// The sequence numbers of the records whose headers are damaged.
    pub fn damaged(&self) -> impl Iterator<Item = u64> {
        (self.first.sequence..).zip(&self.entries).filter(|(_, entry)| entry.is_none()).map(|(sequence, _)| sequence)
    }

    /// Adds the record that a header describes. Records between the last one and it are added as damaged.
    pub fn push(&mut self, header: &Header) -> Result<()> {
        let entry = Entry { position: header.position, length: header.length, sums: header.sums };
        self.extend_to(End { position: self.end.position, sequence: header.sequence })?;
        self.reserve(1)?;
        self.entries.push_back(Some(entry));
        self.end = End { position: entry.end(), sequence: header.sequence + 1 };
        Ok(())
    }

    /// Removes the last record, and then any records at the end whose headers are damaged.
    pub fn pop(&mut self) {
        self.entries.pop_back();
        while let Some(None) = self.entries.back() {
            self.entries.pop_back();
        }
        let position = self.entries.back().copied().flatten().map_or(self.first.position, |entry| entry.end());
        self.end = End { position, sequence: self.first.sequence + self.entries.len() as u64 };
    }

    /// What `first` becomes once all records before `sequence` are discarded. `sequence` is the number of a record, or
    /// the next number.
    pub fn first_after(&self, sequence: u64) -> End {
        let older = usize::try_from(sequence - self.first.sequence).unwrap_or(usize::MAX).min(self.entries.len());
        let position = match self.entries.get(older) {
            Some(Some(entry)) => entry.position,
            // The record's own position is unknown. The record lies after the last older record whose position is
            // known, and after the damaged records between the two, each of which takes at least one line.
            Some(None) => {
                let between = self.entries.range(..older).rev().take_while(|entry| entry.is_none()).count();
                let known = (older - between).checked_sub(1).and_then(|index| self.entries[index]);
                known.map_or(self.first.position, |entry| entry.end()) + between as u64 * HEADER
            }
            None => self.end.position,
        };
        End { position, sequence }
    }

    /// The position of the first record after `sequence` whose header is good, or the end if there is none.
    pub fn position_behind(&self, sequence: u64) -> u64 {
        let older = usize::try_from(sequence - self.first.sequence).unwrap_or(usize::MAX).saturating_add(1);
        let next = self.entries.iter().skip(older).find_map(|entry| *entry);
        next.map_or(self.end.position, |entry| entry.position)
    }

    /// Removes all entries before `sequence`, which is the number of a record or the next number.
    pub fn discard_before(&mut self, sequence: u64) {
        if sequence > self.first.sequence {
            let first = self.first_after(sequence);
            self.entries.drain(..(sequence - self.first.sequence) as usize);
            self.first = first;
        }
    }

    /// The record with this sequence number: `None` if there is none, `Some(None)` if its header is damaged.
    pub fn entry(&self, sequence: u64) -> Option<Option<Entry>> {
        let index = usize::try_from(sequence.checked_sub(self.first.sequence)?).ok()?;
        self.entries.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Chain, End, Entry, HEADER, Sums};

    #[test]
    fn a_record_whose_header_is_damaged_lies_behind_all_older_ones_each_of_a_line_or_more() {
        let sums = Sums::of_bytes(b"");
        for damaged in 0..1_u32 << 8 {
            let mut chain = Chain::new(End { position: 640, sequence: 9 });
            let mut behind = 640;
            for index in 0..8 {
                let position = 640 + index * 4 * HEADER;
                let is_damaged = damaged >> index & 1 == 1;
                chain.entries.push_back((!is_damaged).then_some(Entry { position, length: 100, sums }));
                chain.end.sequence += 1;
                let expected = if is_damaged { behind } else { position };
                assert_eq!(chain.first_after(9 + index), End { position: expected, sequence: 9 + index });
                behind = if is_damaged { behind + HEADER } else { position + 3 * HEADER };
            }
        }
    }
}
