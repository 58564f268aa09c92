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

/// Where a record whose header is damaged lies: at `from` or behind it, and before `to`. Both are positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Between {
    /// The first position at which it may begin: behind the last record whose position is known, and behind the damaged
    /// ones since, each of which takes at least one line.
    pub from: u64,
    /// The position of the next record whose header is good, or the end of the log.
    pub to: u64,
}

/// A record, or where it lies if its header is damaged.
pub type Found = std::result::Result<Entry, Between>;

/// The records in order, the oldest first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// The sequence number of the first entry, and the earliest position at which it may begin.
    pub first: End,
    /// Those from `first` to `end`.
    pub entries: VecDeque<Found>,
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
        self.entries.try_reserve(additional).map_err(|_| Error::NoMemory(additional.saturating_mul(size_of::<Found>())))
    }

    /// Adds damaged entries until the chain has as many records as a log that is known to have ended at `known`.
    pub fn extend_to(&mut self, known: End) -> Result<()> {
        if let Some(lost) = known.sequence.checked_sub(self.end.sequence).filter(|lost| *lost > 0) {
            self.reserve(usize::try_from(lost).unwrap_or(usize::MAX))?;
            let (start, to) = (self.end.position, known.position.max(self.end.position));
            self.entries.extend((0..lost).map(|index| Err(Between { from: start + index * HEADER, to })));
            self.end = End { position: to, sequence: known.sequence };
        }
        Ok(())
    }

    /// The sequence numbers of the records whose headers are damaged.
    pub fn damaged(&self) -> impl Iterator<Item = u64> {
        (self.first.sequence..).zip(&self.entries).filter(|(_, entry)| entry.is_err()).map(|(sequence, _)| sequence)
    }

    /// Adds the record that a header describes. Records between the last one and it are added as damaged.
    pub fn push(&mut self, header: &Header) -> Result<()> {
        let entry = Entry { position: header.position, length: header.length, sums: header.sums };
        self.extend_to(End { position: header.position, sequence: header.sequence })?;
        self.reserve(1)?;
        self.entries.push_back(Ok(entry));
        self.end = End { position: entry.end(), sequence: header.sequence + 1 };
        Ok(())
    }

    /// Removes the last record, and then any records at the end whose headers are damaged.
    pub fn pop(&mut self) {
        self.entries.pop_back();
        while let Some(Err(_)) = self.entries.back() {
            self.entries.pop_back();
        }
        let last = self.entries.back().and_then(|entry| entry.ok());
        let position = last.map_or(self.first.position, |entry| entry.end());
        self.end = End { position, sequence: self.first.sequence + self.entries.len() as u64 };
    }

    /// What `first` becomes once all records before `sequence` are discarded. `sequence` is the number of a record, or
    /// the next number.
    pub fn first_after(&self, sequence: u64) -> End {
        let position = match self.entry(sequence) {
            Some(Ok(entry)) => entry.position,
            Some(Err(between)) => between.from,
            None => self.end.position,
        };
        End { position, sequence }
    }

    /// Removes all entries before `first`, with which the log now begins. Starts over there if the chain has no such
    /// record: then what it has was withdrawn, or a discard was taken back.
    pub fn begin_at(&mut self, first: End) {
        let is_in = (self.first.sequence..self.end.sequence).contains(&first.sequence);
        if is_in && self.first_after(first.sequence) == first {
            self.entries.drain(..(first.sequence - self.first.sequence) as usize);
            self.first = first;
        } else {
            *self = Self::new(first);
        }
    }

    /// The record with this sequence number: `None` if there is none, an error if its header is damaged.
    pub fn entry(&self, sequence: u64) -> Option<Found> {
        let index = usize::try_from(sequence.checked_sub(self.first.sequence)?).ok()?;
        self.entries.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::{Between, Chain, End, HEADER, Header, Sums};

    const FIRST: End = End { position: 640, sequence: 9 };

    /// A record of three lines, of every four.
    fn header(index: u64) -> Header {
        let sums = Sums::of_bytes(b"");
        let position = FIRST.position + index * 4 * HEADER;
        Header { generation: 7, sequence: FIRST.sequence + index, length: 100, position, previous: 0, sums }
    }

    #[test]
    fn a_record_whose_header_is_damaged_lies_behind_all_older_ones_each_of_a_line_or_more() {
        for damaged in 0..1_u32 << 8 {
            let is_damaged = |index: u64| damaged >> index & 1 == 1;
            let mut chain = Chain::new(FIRST);
            for index in (0..8).filter(|index| !is_damaged(*index)) {
                chain.push(&header(index)).unwrap();
            }
            let known = End { position: header(8).position, sequence: header(8).sequence };
            chain.extend_to(known).unwrap();
            let mut from = FIRST.position;
            for index in 0..8 {
                let Header { position, sequence, .. } = header(index);
                let to =
                    (index..8).find(|index| !is_damaged(*index)).map_or(known.position, |next| header(next).position);
                let (first, expected) =
                    if is_damaged(index) { (from, Err(Between { from, to })) } else { (position, Ok(position)) };
                assert_eq!(chain.entry(sequence).unwrap().map(|entry| entry.position), expected, "{damaged:b} {index}");
                assert_eq!(chain.first_after(sequence), End { position: first, sequence }, "{damaged:b} {index}");
                from = if is_damaged(index) { from + HEADER } else { position + 3 * HEADER };
            }
        }
    }

    /// If each were looked for from where the run begins, this would take minutes.
    #[test]
    fn where_each_of_a_long_run_of_damaged_records_lies_is_known() {
        let (records, to) = (200_000, 200_000 * HEADER);
        let mut chain = Chain::new(End { position: 0, sequence: 0 });
        chain.extend_to(End { position: to, sequence: records }).unwrap();
        for sequence in 0..records {
            assert_eq!(chain.entry(sequence), Some(Err(Between { from: sequence * HEADER, to })));
            assert_eq!(chain.first_after(sequence), End { position: sequence * HEADER, sequence });
        }
    }
}
