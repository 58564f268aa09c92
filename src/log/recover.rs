//! Finding the records of a log from its superblock, over any source of bytes.
//!
//! The next record is at one of a few places behind the last one ([`Ring::candidates`]), and its header names the end
//! of the record before it. If there is none, the log ends here or a header is damaged. To tell, every line up to the
//! oldest record is searched for a header with a later number. The last record, if its checksum is wrong and no good
//! record follows, is an interrupted append.

use super::chain::{Chain, Entry};
use super::format::{End, Line, RING, Superblock};
use super::header::{self, Header};
use super::ring::{HEADER, Ring};
use crate::abi::PAGE_SIZE;
use crate::copy::Outcome;
use crate::copy::sums::{Summing, Sums};
use crate::error::{Result, reserve};
use crate::fault::Fault;

/// A source of bytes.
pub trait Source {
    /// Reads bytes from `offset` on. Returns how many were read, with the fault if not all were.
    fn read(&self, offset: usize, own: &mut [u8]) -> Result<Outcome>;
    /// How many bytes from `offset` on are known to be zero without being read.
    fn hole_at(&self, _offset: usize) -> usize {
        0
    }
}

/// The newest intact superblock, and for each copy whether it is as new.
pub fn superblock(source: &impl Source) -> Result<(Option<Superblock>, [bool; 2])> {
    let mut found: [Option<Superblock>; 2] = [None, None];
    for (slot, found) in found.iter_mut().enumerate() {
        let mut page = [0; PAGE_SIZE];
        let (read, _) = source.read(slot * PAGE_SIZE, &mut page)?;
        if read == PAGE_SIZE {
            *found = Superblock::decode(&page);
        }
    }
    let updates = [0, 1].map(|slot: usize| found[slot].as_ref().map(|superblock| superblock.update));
    let newest = updates.iter().max().copied().flatten();
    let are_current = updates.map(|update| update.is_some() && update == newest);
    let newest = found.into_iter().flatten().max_by_key(|superblock| superblock.update);
    Ok((newest, are_current))
}

/// What reading some data came to.
pub enum Summed {
    /// All of them were stored; these are their sums.
    Whole(Sums),
    /// Only so many bytes were stored. The fault is the source's, if that ended it, and counts from the last part.
    Short(usize, Option<Box<Fault>>),
}

/// Reads `length` bytes from `offset` on, passes each part to `store`, which may store less of it, and sums them.
pub fn sum_while(
    source: &impl Source,
    offset: usize,
    length: usize,
    mut store: impl FnMut(&mut [u8]) -> Result<usize>,
) -> Result<Summed> {
    let mut block = [0; 8 << 10];
    let mut summing = Summing::new();
    let mut done = 0;
    while done < length {
        let part = &mut block[..(length - done).min(8 << 10)];
        let wanted = part.len();
        let (read, fault) = source.read(offset + done, part)?;
        let part = &mut part[..read];
        let stored = store(part)?;
        done += stored;
        if stored < wanted {
            return Ok(Summed::Short(done, fault.filter(|_| stored == read)));
        }
        summing.add(part);
    }
    Ok(Summed::Whole(summing.finish()))
}

/// A log that is being searched.
pub struct Log<'a, S> {
    /// Its bytes.
    pub source: &'a S,
    /// Its ring.
    pub ring: &'a Ring,
    /// Its generation.
    pub generation: u64,
}

/// The result of recovery.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The records found.
    pub chain: Chain,
    /// The position at which an interrupted append ends; `chain.end.position` if there is none.
    pub torn: u64,
}

impl<S: Source> Log<'_, S> {
    /// The offset of a position in the region.
    fn offset(&self, position: u64) -> usize {
        RING + self.ring.offset(position) as usize
    }

    fn line(&self, position: u64) -> Result<Option<Line>> {
        let mut line = Line::from([0; HEADER as usize]);
        let (read, _) = self.source.read(self.offset(position), &mut line)?;
        Ok((read == line.len()).then_some(line))
    }

    /// Decodes a line as a header of this log at this position.
    fn header(&self, line: &Line, position: u64, limit: u64) -> Option<Header> {
        let header = Header::decode(line)?;
        let span = header.span()?;
        let fits = self.ring.offset(position).checked_add(span)? <= self.ring.capacity();
        let is_within = position.checked_add(span)? <= limit;
        (header.generation == self.generation && header.position == position && fits && is_within).then_some(header)
    }

    /// The header of the record that directly follows the chain.
    fn next(&self, chain: &Chain) -> Result<Option<Header>> {
        let limit = chain.limit(self.ring);
        for position in self.ring.candidates(chain.end.position, limit) {
            let header = self.line(position)?.and_then(|line| self.header(&line, position, limit));
            if let Some(header) = header
                && (header.sequence, header.previous) == (chain.end.sequence, chain.end.position)
            {
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    /// Searches every line behind the last record, except those in holes of the file, for the first header of a later
    /// record. Returns it, and the end of the last line that is not zero. Each read is twice as long as the one before,
    /// so that all searches of one recovery together read at most four times the bytes of the ring.
    fn search(&self, chain: &Chain) -> Result<(Option<Header>, u64)> {
        const FIRST_READ: usize = 256;
        const LONGEST_READ: usize = 64 << 10;
        let mut block = Vec::new();
        reserve(&mut block, LONGEST_READ)?;
        block.resize(FIRST_READ, 0_u8);
        let limit = chain.limit(self.ring);
        let (mut at, mut written) = (chain.end.position, chain.end.position);
        while at < limit {
            let room = (self.ring.capacity() - self.ring.offset(at)).min(limit - at);
            let hole = (self.source.hole_at(self.offset(at)) as u64).min(room) / HEADER * HEADER;
            if hole != 0 {
                at += hole;
                continue;
            }
            let part = block.len().min(usize::try_from(room).unwrap_or(usize::MAX));
            let (read, _) = self.source.read(self.offset(at), &mut block[..part])?;
            for (position, line) in
                (at..).step_by(HEADER as usize).zip(block[..read].as_chunks::<{ HEADER as usize }>().0)
            {
                if *line == [0; HEADER as usize] || !self.ring.is_used(position) {
                    continue;
                }
                written = position + HEADER;
                let Some(header) = self.header(line, position, limit) else { continue };
                let lines = (position - chain.end.position) / HEADER;
                if header.sequence >= chain.end.sequence && header.sequence - chain.end.sequence <= lines {
                    return Ok((Some(header), written));
                }
            }
            at += if read == part {
                part as u64
            } else {
                // Continue behind the page that cannot be read.
                let bad = (self.offset(at) + read) / PAGE_SIZE * PAGE_SIZE + PAGE_SIZE;
                ((bad - self.offset(at)) as u64).min(room)
            };
            block.resize((2 * block.len()).min(LONGEST_READ), 0);
        }
        Ok((None, written))
    }

    /// Whether a record's data can be read and have a wrong checksum.
    fn is_wrong(&self, entry: &Entry) -> Result<bool> {
        let (offset, length) = (self.offset(entry.position + HEADER), entry.length as usize);
        Ok(match sum_while(self.source, offset, length, |part| Ok(part.len()))? {
            Summed::Whole(sums) => !sums.agree_with(entry.sums),
            Summed::Short(..) => false,
        })
    }

    /// Adds the records that follow directly, one after another. Returns the chain's number of entries and its end
    /// before the last of them.
    fn follow_headers(&self, chain: &mut Chain) -> Result<Option<(usize, End)>> {
        let mut before = None;
        while let Some(header) = self.next(chain)? {
            before = Some((chain.entries.len(), chain.end));
            chain.push(&header)?;
        }
        Ok(before)
    }

    /// Whether the last record of a chain is still in the log. If its header cannot be read, it is taken to be.
    pub fn is_last_there(&self, chain: &Chain) -> Result<bool> {
        let Some(Ok(last)) = chain.entries.back() else { return Ok(true) };
        let Some(line) = self.line(last.position)? else { return Ok(true) };
        let header = self.header(&line, last.position, chain.limit(self.ring));
        Ok(header.is_some_and(|header| {
            (header.sequence + 1, header.length, header.sums) == (chain.end.sequence, last.length, last.sums)
        }))
    }

    /// Adds the records that a writer has appended since. A last record behind `known` with a wrong checksum is still
    /// being written, and is left out.
    pub fn follow(&self, chain: &mut Chain, known: End) -> Result<()> {
        if let Some((entries, end)) = self.follow_headers(chain)?
            && chain.end.sequence > known.sequence
            && let Some(Ok(last)) = chain.entries.back().copied()
            && self.is_wrong(&last)?
        {
            chain.entries.truncate(entries);
            chain.end = end;
        }
        Ok(())
    }

    /// Finds all records. The log had reached `superblock.known` when the superblock was written, so a record missing
    /// before that is damaged, and not one that was never appended.
    pub fn recover(&self, superblock: &Superblock) -> Result<Recovered> {
        let (known, closed) = (superblock.known, superblock.closed);
        let mut chain = Chain::new(superblock.first);
        let torn = loop {
            self.follow_headers(&mut chain)?;
            if closed == Some(chain.end) {
                break chain.end.position;
            }
            match self.search(&chain)? {
                (Some(header), _) => chain.push(&header)?,
                (None, written) => {
                    chain.extend_to(known)?;
                    break if closed.is_some() { chain.end.position } else { self.remains(&chain, written)? };
                }
            }
        };
        while chain.end.sequence > known.sequence
            && let Some(Ok(last)) = chain.entries.back().copied()
            && self.is_wrong(&last)?
        {
            // It does not end behind `torn`.
            chain.pop();
        }
        chain.extend_to(known)?;
        Ok(Recovered { torn: torn.max(chain.end.position), chain })
    }

    /// The end of an interrupted append behind the last record, as far as it can be known. In the first lap it is the
    /// end of the bytes that are not zero; later laps have older data there, so it is taken from the remains of the
    /// header.
    fn remains(&self, chain: &Chain, written: u64) -> Result<u64> {
        let (end, limit) = (chain.end, chain.limit(self.ring));
        if chain.first.position == 0 {
            return Ok(written);
        }
        for position in self.ring.candidates(end.position, limit) {
            let Some(line) = self.line(position)? else { continue };
            if let Some(length) = Header::remains(&line, self.generation, end, position) {
                let room = (self.ring.capacity() - self.ring.offset(position)).min(limit - position);
                let span = header::span(length).filter(|span| *span <= room).unwrap_or(HEADER);
                return Ok(position + span);
            }
        }
        Ok(end.position)
    }
}
