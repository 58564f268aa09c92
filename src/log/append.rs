//! Everything that changes a log.

use super::chain::Chain;
use super::format::{MAX_EXTENTS, RING, Superblock};
use super::header::{self, Header};
use super::open::write_superblock;
use super::recover;
use super::ring::{Extent, HEADER};
use super::{Failure, Medium, PmemLog, STORED_AT_ONCE, State, os, written};
use crate::abi::{Direction, PAGE_SIZE};
use crate::error::{Error, reserve};
use crate::fault::Fault;
use crate::iter::IovIter;
use std::cell::Cell;

impl<M: Medium> PmemLog<M> {
    /// Appends all that is left of an iterator, which then stands at its end: the record's number. It is durable, and
    /// whole. If it fails, the record is not there, and the iterator stands where it stood.
    pub fn append(&self, i: &mut IovIter) -> std::result::Result<u64, Failure> {
        i.require(Direction::Source, "append")?;
        self.require_writer()?;
        let mut state = self.lock()?;
        if state.is_broken {
            return Err(os(libc::EIO, "an append could be neither made durable nor undone: open the log again"));
        }
        let nbytes = i.count();
        let (span, position) = self.place(&mut state, nbytes as u64)?;
        let State { ring, chain, superblock, .. } = &mut *state;
        let end = chain.end;
        chain.reserve(1)?;
        let (generation, sequence, length) = (superblock.generation, end.sequence, nbytes as u64);
        let stored = Cell::new(None);
        let line = |sums| {
            let header = Header { generation, sequence, length, position, previous: end.position, sums };
            stored.set(Some(header));
            header.encode()
        };
        let len = span as usize;
        let written = self.medium.write_framed(Self::region_offset(ring, position), len, i, &line);
        match (written, stored.get()) {
            (Ok((done, None)), Some(header)) if done == len => {
                chain.push(&header)?;
                Ok(sequence)
            }
            (Ok((_, fault)), _) => {
                self.withdraw(&mut state, position, span, fault.as_deref());
                Err(match fault {
                    Some(fault) => Failure::Fault(fault, 0),
                    None => {
                        Failure::Refused(Error::invalid("data", "an iterator with a hole in it", "all of its bytes"))
                    }
                })
            }
            (Err(error), _) => {
                let may_be_written = matches!(error, Error::Os { errno, .. } if errno != libc::EOPNOTSUPP);
                if may_be_written {
                    self.withdraw(&mut state, position, span, None);
                }
                Err(error.into())
            }
        }
    }

    /// Where a record of so many bytes goes, and how long it is with its header. An empty log whose position leaves too
    /// little of this lap goes on at the next one's start, durably.
    fn place(&self, state: &mut State, length: u64) -> std::result::Result<(u64, u64), Failure> {
        let span = header::span(length);
        let place = |state: &State| {
            let State { ring, chain, .. } = state;
            span.and_then(|span| Some((span, ring.place(chain.end.position, span, chain.limit(ring))?)))
        };
        if let Some(found) = place(state) {
            return Ok(found);
        }
        let free = state.free();
        if span.is_some_and(|span| span <= free)
            && let Some(first) = state.chain.next_lap(&state.ring)
        {
            self.change(state, |superblock| (superblock.first, superblock.known) = (first, first))?;
            state.chain = Chain::new(first);
            if let Some(found) = place(state) {
                return Ok(found);
            }
        }
        let free = free.saturating_sub(HEADER);
        Err(os(libc::ENOSPC, format!("data has {length} bytes: the log has room for {free}")))
    }

    /// Sees to it that a record which was not made durable does not come back.
    fn withdraw(&self, state: &mut State, position: u64, span: u64, fault: Option<&Fault>) {
        // The bytes that a later append would go to are remembered as bad, so that the log goes on behind them.
        if let Some((start, end)) = fault.and_then(|fault| self.medium.damage(fault)) {
            // If that cannot be noted, erasing it fails below.
            let _ = self.remember(state, start, end);
        }
        // In its first lap the ring is zero where nothing was ever written: recovery relies on it.
        let is_first_lap = state.chain.first.position == 0;
        let erased = self.erase(state, position, position + if is_first_lap { span } else { HEADER });
        state.is_broken = erased.is_err();
    }

    /// Zeroes what lies between two positions, apart from bad extents. A page of it that is bad for good is not used
    /// any more. It is done in large pieces, as each write waits for the medium; a piece that cannot be written whole
    /// is gone over by pages.
    pub(super) fn erase(&self, state: &mut State, from: u64, to: u64) -> std::result::Result<(), Failure> {
        let page = [0; PAGE_SIZE];
        let mut large = Vec::new();
        let most = usize::try_from(to - from).unwrap_or(usize::MAX).min(STORED_AT_ONCE);
        if most > PAGE_SIZE && reserve(&mut large, most).is_ok() {
            large.resize(most, 0);
        }
        let (mut at, mut by_pages_to) = (from, from);
        while at < to {
            let (is_used, stretch) = state.ring.stretch(at);
            if !is_used {
                at += stretch;
                continue;
            }
            let zeroes = if at < by_pages_to || large.is_empty() { &page[..] } else { &large[..] };
            let offset = Self::region_offset(&state.ring, at);
            // Pieces end where pages do, so that no page is in two.
            let part = ((zeroes.len() - offset % PAGE_SIZE) as u64).min(stretch).min(to - at);
            let len = part as usize;
            match self.medium.write(offset, &zeroes[..len]).map_err(Failure::from).and_then(|done| written(done, len)) {
                Ok(()) => at += part,
                Err(_) if zeroes.len() != PAGE_SIZE => by_pages_to = at + part,
                Err(Failure::Fault(fault, done)) => {
                    // Memory that may come back is erased when the log is opened again.
                    let Some((start, end)) = self.medium.damage(&fault) else {
                        return Err(Failure::Fault(fault, done));
                    };
                    self.remember(state, start.min(offset), end.max(offset + len))?;
                    at += part;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Zeroes every line from a position on at which the next record may begin. When the medium refuses a write-back,
    /// the kernel takes the pages for written: a record that was withdrawn may still be on the medium where the memory
    /// reads as zeroes, and would be there again after a loss of power.
    pub(super) fn erase_places(&self, state: &mut State, from: u64) -> std::result::Result<(), Failure> {
        let State { ring, chain, .. } = &*state;
        let places = ring.candidates(chain.end.position, chain.limit(ring));
        for position in places.into_iter().filter(|place| *place >= from) {
            self.erase(state, position, position + HEADER)?;
        }
        Ok(())
    }

    /// Durably notes as bad those bytes of the region that are free space of the ring. Records are searched for
    /// outside of noted extents alone, so those that share a bad page with free space have to stay outside.
    fn remember(&self, state: &mut State, start: usize, end: usize) -> std::result::Result<(), Failure> {
        let within = |offset: usize| (offset.saturating_sub(RING) as u64).min(state.ring.capacity());
        let (start, end) = (within(start), within(end));
        let free = state.ring.parts(state.chain.end.position, state.chain.limit(&state.ring));
        let mut ring = state.ring.clone();
        for part in free {
            let extent = Extent { start: start.max(part.start), end: end.min(part.end) };
            if extent.start < extent.end {
                ring = ring.without(extent, MAX_EXTENTS, free).ok_or_else(|| {
                    os(libc::ENOSPC, format!("there are records between more than {MAX_EXTENTS} bad extents"))
                })?;
            }
        }
        self.change(state, |superblock| superblock.bad = ring.bad().to_vec())?;
        state.ring = ring;
        Ok(())
    }

    /// Changes the superblock, both copies. If it fails, readers and the next opening find what was there before, or
    /// every later append is refused.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut Superblock)) -> std::result::Result<(), Failure> {
        let mut superblock = Superblock { known: state.chain.end, ..state.superblock.clone() };
        change(&mut superblock);
        superblock.update += 1;
        let (_, are_current) = recover::superblock(&self.medium)?;
        let result = write_superblock(&self.medium, &superblock, are_current);
        if result.is_ok() {
            state.superblock = superblock;
            return Ok(());
        }
        // It may be there all the same, and is if it can be read. What follows is written in the same order: the number
        // of its update is even if this one's is.
        let before = Superblock { update: superblock.update + 2, ..state.superblock.clone() };
        let is_there = recover::superblock(&self.medium)?.0.is_some_and(|found| found == superblock);
        if is_there && write_superblock(&self.medium, &before, are_current).is_err() {
            state.is_broken = true;
        }
        state.superblock.update = if is_there { before.update } else { superblock.update + 1 };
        result
    }

    /// Frees what is older than a record. Durable before any of its space is used again.
    pub fn discard_before(&self, sequence: u64) -> std::result::Result<(), Failure> {
        self.require_writer()?;
        let mut state = self.lock()?;
        let (first, end) = (state.chain.first.sequence, state.chain.end.sequence);
        if sequence > end {
            return Err(Error::invalid("sequence", sequence, format!("at most {end}, one past the last record")).into());
        }
        if sequence <= first {
            return Ok(());
        }
        let first = state.chain.first_after(sequence);
        self.change(&mut state, |superblock| superblock.first = first)?;
        state.chain.begin_at(first);
        Ok(())
    }

    /// Notes where the log ends, so that it is opened again without a search.
    pub fn close(&self) -> std::result::Result<(), Failure> {
        let Ok(mut state) = self.lock() else { return Ok(()) };
        if self.require_writer().is_err() || state.is_broken || state.superblock.closed == Some(state.chain.end) {
            return Ok(());
        }
        let end = state.chain.end;
        self.change(&mut state, |superblock| superblock.closed = Some(end))
    }
}
