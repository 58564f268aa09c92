//! Finding the records of a log: from its superblock on, over anything that bytes can be read from.
//!
//! A record's header says where the one before ends, so the next is at one of few places ([`Ring::candidates`]). Where
//! it is at none of them, either the log ends there or a header is damaged: then every line up to the oldest record is
//! looked at for a header with a later number. What was written last and has a wrong sum, with nothing good behind it,
//! is a torn tail.

use super::chain::{Chain, Entry};
use super::format::{End, Line, RING, Superblock};
use super::header::{self, Header};
use super::ring::{HEADER, Ring};
use crate::abi::PAGE_SIZE;
use crate::copy::Outcome;
use crate::copy::crc32c::Sum;
use crate::error::{Result, reserve};

/// Bytes that can be read.
pub trait Source {
    /// Reads from `offset` on into a buffer of our own: the bytes read, and why not all.
    fn read(&self, offset: usize, own: &mut [u8]) -> Result<Outcome>;
}

/// The newer of the superblocks that are whole, and which are.
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

/// A log that is looked through.
pub struct Log<'a, S> {
    /// Its bytes.
    pub source: &'a S,
    /// Its ring.
    pub ring: &'a Ring,
    /// Its generation.
    pub generation: u64,
}

/// What was found behind the last good record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recovered {
    /// The good records.
    pub chain: Chain,
    /// The position that a torn tail ends at, `chain.end.position` if there is none.
    pub torn: u64,
}

impl<S: Source> Log<'_, S> {
    /// Where a position is in the region.
    fn offset(&self, position: u64) -> usize {
        RING + self.ring.offset(position) as usize
    }

    fn line(&self, position: u64) -> Result<Option<Line>> {
        let mut line = Line::from([0; HEADER as usize]);
        let (read, _) = self.source.read(self.offset(position), &mut line)?;
        Ok((read == line.len()).then_some(line))
    }

    /// The header that a line is, if it is one of this log that belongs there.
    fn header(&self, line: &Line, position: u64, limit: u64) -> Option<Header> {
        let header = Header::decode(line)?;
        let span = header.span()?;
        let fits = self.ring.offset(position).checked_add(span)? <= self.ring.capacity();
        let is_within = position.checked_add(span)? <= limit;
        (header.generation == self.generation && header.position == position && fits && is_within).then_some(header)
    }

    /// The header of the record that follows at once.
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

    /// Looks at every line behind the last record: for the first header of a later one, and for the end of what is not
    /// zero.
    fn search(&self, chain: &Chain) -> Result<(Option<Header>, u64)> {
        const BLOCK: usize = 64 << 10;
        let mut block = Vec::new();
        reserve(&mut block, BLOCK)?;
        block.resize(BLOCK, 0_u8);
        let limit = chain.limit(self.ring);
        let (mut at, mut written) = (chain.end.position, chain.end.position);
        while at < limit {
            let room = (self.ring.capacity() - self.ring.offset(at)).min(limit - at);
            let part = BLOCK.min(usize::try_from(room).unwrap_or(BLOCK));
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
                // Behind the page that cannot be read.
                let bad = (self.offset(at) + read) / PAGE_SIZE * PAGE_SIZE + PAGE_SIZE;
                ((bad - self.offset(at)) as u64).min(room)
            };
        }
        Ok((None, written))
    }

    /// The sum of a record's data; `None` if not all of them can be read.
    pub fn sum(&self, entry: &Entry) -> Result<Option<u32>> {
        let mut block = [0; 8 << 10];
        let mut sum = Sum::from(0);
        let (start, length) = (self.offset(entry.position) + HEADER as usize, entry.length as usize);
        for at in (0..length).step_by(block.len()) {
            let part = &mut block[..(length - at).min(8 << 10)];
            let (read, _) = self.source.read(start + at, part)?;
            if read < part.len() {
                return Ok(None);
            }
            sum.add(part);
        }
        Ok(Some(sum.finish()))
    }

    /// Whether a record's data are known to be other than those that were appended.
    fn is_wrong(&self, entry: &Entry) -> Result<bool> {
        Ok(self.sum(entry)?.is_some_and(|sum| sum != entry.crc))
    }

    /// Adds the records that follow, as far as each says where the one before it ends. Returns what the chain was
    /// before the last of them: how many entries it had, and its end.
    fn follow_headers(&self, chain: &mut Chain) -> Result<Option<(usize, End)>> {
        let mut before = None;
        while let Some(header) = self.next(chain)? {
            before = Some((chain.entries.len(), chain.end));
            chain.push(&header)?;
        }
        Ok(before)
    }

    /// Whether the last record of a chain is still there, as far as its header can be read.
    pub fn is_last_there(&self, chain: &Chain) -> Result<bool> {
        let Some(Some(last)) = chain.entries.back() else { return Ok(true) };
        let Some(line) = self.line(last.position)? else { return Ok(true) };
        let header = self.header(&line, last.position, chain.limit(self.ring));
        Ok(header.is_some_and(|header| {
            (header.sequence + 1, header.length, header.crc) == (chain.end.sequence, last.length, last.crc)
        }))
    }

    /// Adds the records that a writer has appended since. One behind `known` that is not whole is on its way.
    pub fn follow(&self, chain: &mut Chain, known: End) -> Result<()> {
        if let Some((entries, end)) = self.follow_headers(chain)?
            && chain.end.sequence > known.sequence
            && let Some(Some(last)) = chain.entries.back().copied()
            && self.is_wrong(&last)?
        {
            chain.entries.truncate(entries);
            chain.end = end;
        }
        Ok(())
    }

    /// What there is. That the log had come to where a superblock says proves that what is missing before was damaged.
    pub fn recover(&self, superblock: &Superblock) -> Result<Recovered> {
        let (known, closed) = (superblock.known, superblock.closed);
        let mut chain = Chain::new(superblock.first);
        let mut torn = loop {
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
            && let Some(Some(last)) = chain.entries.back().copied()
            && self.is_wrong(&last)?
        {
            torn = torn.max(last.end());
            chain.pop();
        }
        chain.extend_to(known)?;
        Ok(Recovered { torn: torn.max(chain.end.position), chain })
    }

    /// Where what was being written behind the last record ends, as far as that can be told. In its first lap the ring
    /// is zero where nothing was ever written; later, older data are there.
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
