//! An append-only log in a persistent region: a ring of records, each durable with one fence.
//!
//! * [`format`]: what is stored. [`ring`]: where there is room. [`recover`]: what is found again.
//! * [`region`]: the region that it is stored in. The log itself runs over anything that is a [`Medium`], so that the
//!   tests run the same code
//!   over a recorder of lines and fences.
//!
//! A record counts if its header's sum and its data's are right, so nothing orders the two on their way to the medium.
//! What may not come back is made sure of before it can: a torn tail is erased when it is cut, a record that could not
//! be made durable when its append fails.

pub mod format;
pub mod recover;
pub mod region;
pub mod ring;

use crate::abi::{Direction, PAGE_SIZE};
use crate::copy::{Outcome, copy_to_iter};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use crc_fast::{CrcAlgorithm, Digest};
use format::{End, Header, Line, MAX_EXTENTS, RING, Superblock};
use recover::{Chain, Entry, Log, Source};
use ring::{Extent, HEADER, Ring};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a log is stored in.
pub trait Medium: Source {
    /// Bytes of it.
    fn size(&self) -> usize;
    /// Writes bytes of our own durably: how many, and why not all.
    fn write(&self, offset: usize, own: &[u8]) -> Result<Outcome>;
    /// Writes the line that `line` makes of the sum of what is left of an iterator, and that behind it, `len` bytes in
    /// whole lines, durably and with one fence: `len`, or less and why, with the iterator where it stood.
    fn write_framed(&self, offset: usize, len: usize, i: &mut IovIter, line: &dyn Fn(u32) -> Line) -> Result<Outcome>;
    /// What of it a fault has shown to be bad for good, from which byte to which.
    fn damage(&self, fault: &Fault) -> Option<(usize, usize)>;
    /// Whether this process may write, now.
    fn is_writer(&self) -> bool;
}

/// Why something could not be done.
#[derive(Debug)]
pub enum Failure {
    /// It was refused.
    Refused(Error),
    /// Bad memory, and the bytes that were copied before.
    Fault(Box<Fault>, usize),
    /// There is no such record.
    Missing {
        /// Its number.
        sequence: u64,
        /// The first there is.
        first: u64,
        /// Behind the last there is.
        end: u64,
    },
    /// The bytes are not those that were appended.
    Corrupt {
        /// The record's number.
        sequence: u64,
        /// Where its data are in the region, or where its header is looked for if that is damaged.
        offset: usize,
        /// Bytes of it there.
        length: usize,
        /// What is wrong.
        what: &'static str,
    },
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Where a record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// Where its data are in the region.
    pub offset: usize,
    /// Bytes of data.
    pub length: usize,
    /// Their sum.
    pub crc: u32,
}

/// The numbers of a log, of one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// The oldest record's number.
    pub first: u64,
    /// The next record's number.
    pub end: u64,
    /// Bytes of the ring that are in use.
    pub used: u64,
    /// The most data that the next record can have.
    pub free: u64,
}

struct State {
    superblock: Superblock,
    ring: Ring,
    chain: Chain,
    /// Set when a record could be neither made durable nor erased: what follows it could be lost with it.
    is_broken: bool,
}

/// A log.
pub struct PmemLog<M> {
    medium: M,
    is_writable: bool,
    recovered: u64,
    state: Mutex<State>,
}

/// What is done about a region without a log in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// It is refused, and no record is written.
    Read,
    /// It is refused.
    Write,
    /// A log is made, if there is nothing else.
    Create,
}

fn os(errno: i32, context: impl Into<String>) -> Failure {
    Failure::Refused(Error::os(errno, context))
}

/// All of what was written, or the reason as an error.
fn written((done, fault): Outcome, len: usize) -> std::result::Result<(), Failure> {
    match fault {
        Some(fault) => Err(Failure::Fault(fault, done)),
        None if done < len => Err(os(libc::EIO, format!("{done} of {len} bytes were written"))),
        None => Ok(()),
    }
}

/// Writes a superblock over both copies, the one that does not count first: the other is whole until this one is.
fn write_superblock<M: Medium>(
    medium: &M,
    superblock: &Superblock,
    are_current: [bool; 2],
) -> std::result::Result<(), Failure> {
    let page = superblock.encode();
    let order = if are_current[0] && !are_current[1] { [1, 0] } else { [0, 1] };
    let write = |slot: usize| written(medium.write(slot * PAGE_SIZE, &page)?, page.len());
    write(order[0])?;
    // With one of them the log is as good as with both, until the next change.
    let _ = write(order[1]);
    Ok(())
}

/// Whether nothing but zeroes is in the first bytes of something, apart from what may be left of the first superblock.
fn is_blank(source: &impl Source, size: usize) -> Result<bool> {
    let mut page = [0; PAGE_SIZE];
    for offset in (0..size).step_by(PAGE_SIZE) {
        let part = &mut page[..PAGE_SIZE.min(size - offset)];
        let (read, _) = source.read(offset, part)?;
        if read < part.len()
            || (part.iter().any(|byte| *byte != 0) && !(offset == 0 && format::may_be_unfinished(&page)))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses to make a log, in something of `length` bytes without one, if it may not be, or cannot be `size` bytes long.
fn require_makeable(source: &impl Source, length: usize, size: Option<usize>, create: bool) -> Result<()> {
    let mut page = [0; PAGE_SIZE];
    source.read(0, &mut page[..PAGE_SIZE.min(length)])?;
    let is_marked = format::is_marked(&page);
    if !create {
        return Err(if is_marked {
            Error::os(libc::EBADMSG, "both superblocks of the log are damaged")
        } else {
            Error::invalid("path", "a file without a log", "one with a log, or create=True")
        });
    }
    let size = size.unwrap_or(length);
    if size < format::SMALLEST {
        return Err(Error::invalid("size", size, format!("{} or more for a log", format::SMALLEST)));
    }
    if is_blank(source, length)? {
        Ok(())
    } else if is_marked {
        Err(Error::os(libc::EBADMSG, "both superblocks of the log are damaged"))
    } else {
        Err(Error::invalid("path", "a file with something else in it", "a new file, one of zeroes, or one with a log"))
    }
}

/// A number that no other log in the same memory is likely to have.
fn new_generation() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl<M: Medium> PmemLog<M> {
    /// Finds the log in a region, and cuts its torn tail, or makes one.
    pub fn open(medium: M, how: Open) -> std::result::Result<Self, Failure> {
        let (found, are_current) = recover::superblock(&medium)?;
        let Some(mut superblock) = found else { return Self::make(medium, how) };
        if superblock.size > medium.size() as u64 {
            let context = format!("the log has {} bytes, of which {} are there", superblock.size, medium.size());
            return Err(os(libc::EBADMSG, context));
        }
        let ring = Ring::new(superblock.capacity(), superblock.bad.clone());
        let log = Log { source: &medium, ring: &ring, generation: superblock.generation };
        let recovered = log.recover(superblock.first, superblock.closed)?;
        let (end, torn) = (recovered.chain.end.position, recovered.torn);
        let is_writable = how != Open::Read;
        if is_writable {
            superblock.closed = None;
            superblock.update += 1;
        }
        let state = State { superblock, ring, chain: recovered.chain, is_broken: false };
        let new =
            Self { medium, is_writable, recovered: if is_writable { torn - end } else { 0 }, state: Mutex::new(state) };
        if is_writable {
            let mut state = new.lock();
            write_superblock(&new.medium, &state.superblock, are_current)?;
            new.erase(&mut state, end, torn)?;
            drop(state);
        }
        Ok(new)
    }

    fn make(medium: M, how: Open) -> std::result::Result<Self, Failure> {
        let size = medium.size();
        require_makeable(&medium, size, None, how == Open::Create)?;
        let first = End { position: 0, sequence: 0 };
        let generation = new_generation();
        let superblock = Superblock { generation, update: 1, size: size as u64, first, closed: None, bad: Vec::new() };
        write_superblock(&medium, &superblock, [false; 2])?;
        let ring = Ring::new(superblock.capacity(), Vec::new());
        let state = State { superblock, ring, chain: Chain::new(first), is_broken: false };
        Ok(Self { medium, is_writable: true, recovered: 0, state: Mutex::new(state) })
    }

    /// Nothing that runs Python is done while it is locked, and the interpreter is not waited for.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it is stored in.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Whether it was opened to be written.
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// Bytes of a torn tail that were cut when it was opened.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    fn require_writer(&self) -> std::result::Result<(), Failure> {
        if !self.is_writable {
            return Err(Error::ReadOnlyRegion.into());
        }
        if !self.medium.is_writer() {
            return Err(os(libc::EWOULDBLOCK, "another process writes this log: the one that this was forked from"));
        }
        Ok(())
    }

    fn region_offset(ring: &Ring, position: u64) -> usize {
        RING + ring.offset(position) as usize
    }

    /// For readers: what the writer has done since.
    fn follow<'a>(&self, mut state: MutexGuard<'a, State>) -> Result<MutexGuard<'a, State>> {
        if self.is_writable {
            return Ok(state);
        }
        let (newest, _) = recover::superblock(&self.medium)?;
        let State { superblock, ring, chain, .. } = &mut *state;
        if let Some(newest) = newest
            && newest != *superblock
            && newest.size == superblock.size
        {
            *ring = Ring::new(newest.capacity(), newest.bad.clone());
            let is_beyond = newest.first.sequence > chain.end.sequence || newest.first.position > chain.end.position;
            if is_beyond || newest.generation != superblock.generation {
                *chain = Chain::new(newest.first);
            } else {
                chain.discard_before(newest.first.sequence);
                chain.first = newest.first;
            }
            *superblock = newest;
        }
        Log { source: &self.medium, ring, generation: superblock.generation }.follow(chain)?;
        Ok(state)
    }

    /// What there is now.
    pub fn numbers(&self) -> Result<Numbers> {
        let state = self.follow(self.lock())?;
        let State { ring, chain, .. } = &*state;
        let free = ring.largest(chain.end.position, chain.limit(ring)).saturating_sub(HEADER);
        let used = chain.end.position - chain.first.position;
        Ok(Numbers { first: chain.first.sequence, end: chain.end.sequence, used, free })
    }

    /// Appends all that is left of an iterator, which then stands at its end: the record's number. It is durable, and
    /// whole. If it fails, the record is not there, and the iterator stands where it stood.
    pub fn append(&self, i: &mut IovIter) -> std::result::Result<u64, Failure> {
        i.require(Direction::Source, "append")?;
        self.require_writer()?;
        let mut state = self.lock();
        if state.is_broken {
            return Err(os(libc::EIO, "an append could be neither made durable nor undone: open the log again"));
        }
        let State { ring, chain, superblock, .. } = &mut *state;
        let (nbytes, end) = (i.count(), chain.end);
        let span = format::span(nbytes as u64);
        let Some((span, position)) =
            span.and_then(|span| Some((span, ring.place(end.position, span, chain.limit(ring))?)))
        else {
            let free = ring.largest(end.position, chain.limit(ring)).saturating_sub(HEADER);
            return Err(os(libc::ENOSPC, format!("data has {nbytes} bytes: the log has room for {free}")));
        };
        chain.reserve(1)?;
        let header = Header {
            generation: superblock.generation,
            sequence: end.sequence,
            length: nbytes as u64,
            position,
            previous: end.position,
            crc: 0,
        };
        let crc = std::cell::Cell::new(0);
        let line = |sum| {
            crc.set(sum);
            Header { crc: sum, ..header }.encode()
        };
        let len = span as usize;
        match self.medium.write_framed(Self::region_offset(ring, position), len, i, &line) {
            Ok((done, None)) if done == len => {
                chain.push(&Header { crc: crc.get(), ..header })?;
                Ok(end.sequence)
            }
            Ok((_, fault)) => {
                self.withdraw(&mut state, position, span, fault.as_deref());
                Err(match fault {
                    Some(fault) => Failure::Fault(fault, 0),
                    None => {
                        Failure::Refused(Error::invalid("data", "an iterator with a hole in it", "all of its bytes"))
                    }
                })
            }
            Err(error) => {
                let may_be_written = matches!(error, Error::Os { errno, .. } if errno != libc::EOPNOTSUPP);
                if may_be_written {
                    self.withdraw(&mut state, position, span, None);
                }
                Err(error.into())
            }
        }
    }

    /// Sees to it that a record which was not made durable does not come back.
    fn withdraw(&self, state: &mut State, position: u64, span: u64, fault: Option<&Fault>) {
        // The bytes that a later append would go to are remembered as bad, so that the log goes on behind them.
        let known = match fault.and_then(|fault| self.medium.damage(fault)) {
            Some((start, end)) => self.remember(state, start, end).is_ok(),
            None => false,
        };
        // In its first lap the ring is zero where nothing was ever written: recovery relies on it.
        let is_first_lap = state.chain.first.position == 0;
        let erased = self.erase(state, position, position + if is_first_lap { span } else { HEADER });
        state.is_broken = erased.is_err() && !known;
    }

    /// Zeroes what lies between two positions. What cannot be written is not used any more.
    fn erase(&self, state: &mut State, from: u64, to: u64) -> std::result::Result<(), Failure> {
        let zeroes = [0; PAGE_SIZE];
        let mut at = from;
        while at < to {
            let offset = Self::region_offset(&state.ring, at);
            let room = (PAGE_SIZE - offset % PAGE_SIZE) as u64;
            let part = room.min(to - at).min(state.ring.capacity() - state.ring.offset(at));
            let lines = (at..at + part).step_by(HEADER as usize);
            if lines.into_iter().all(|line| state.ring.is_used(line)) {
                let len = part as usize;
                let erased = self.medium.write(offset, &zeroes[..len]).map_err(Failure::from);
                if erased.and_then(|outcome| written(outcome, len)).is_err() {
                    self.remember(state, offset, offset + len)?;
                }
            }
            at += part;
        }
        Ok(())
    }

    /// Notes bytes of the region as bad, durably. Where they are not the ring's nothing is noted.
    fn remember(&self, state: &mut State, start: usize, end: usize) -> std::result::Result<(), Failure> {
        let within = |offset: usize| (offset.saturating_sub(RING) as u64).min(state.ring.capacity());
        let extent = Extent { start: within(start), end: within(end) };
        let ring = state.ring.without(extent, MAX_EXTENTS);
        self.change(state, |superblock| superblock.bad = ring.bad().to_vec())?;
        state.ring = ring;
        Ok(())
    }

    /// Changes the superblock, both copies.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut Superblock)) -> std::result::Result<(), Failure> {
        let mut superblock = state.superblock.clone();
        change(&mut superblock);
        superblock.update += 1;
        let (_, are_current) = recover::superblock(&self.medium)?;
        write_superblock(&self.medium, &superblock, are_current)?;
        state.superblock = superblock;
        Ok(())
    }

    /// Frees what is older than a record. Durable before any of its space is used again.
    pub fn discard_before(&self, sequence: u64) -> std::result::Result<(), Failure> {
        self.require_writer()?;
        let mut state = self.lock();
        let (first, end) = (state.chain.first.sequence, state.chain.end.sequence);
        if sequence > end {
            return Err(Error::invalid("sequence", sequence, format!("at most {end}, one past the last record")).into());
        }
        if sequence <= first {
            return Ok(());
        }
        let first = state.chain.first_after(sequence);
        self.change(&mut state, |superblock| superblock.first = first)?;
        state.chain.discard_before(sequence);
        Ok(())
    }

    /// Notes where the log ends, so that it is opened again without a search.
    pub fn close(&self) -> std::result::Result<(), Failure> {
        let mut state = self.lock();
        if self.require_writer().is_err() || state.is_broken || state.superblock.closed == Some(state.chain.end) {
            return Ok(());
        }
        let end = state.chain.end;
        self.change(&mut state, |superblock| superblock.closed = Some(end))
    }

    /// Where a record is. Its data are not looked at.
    pub fn record(&self, sequence: u64) -> std::result::Result<Record, Failure> {
        let state = self.follow(self.lock())?;
        let State { chain, ring, .. } = &*state;
        let (first, end) = (chain.first.sequence, chain.end.sequence);
        match chain.entry(sequence) {
            None => Err(Failure::Missing { sequence, first, end }),
            Some(None) => {
                let offset = Self::region_offset(ring, chain.first_after(sequence).position);
                Err(Failure::Corrupt { sequence, offset, length: HEADER as usize, what: "its header is damaged" })
            }
            Some(Some(Entry { position, length, crc })) => {
                let offset = Self::region_offset(ring, position + HEADER);
                Ok(Record { sequence, offset, length: length as usize, crc })
            }
        }
    }

    /// The oldest record from a number on whose header is good; `None` behind the last.
    pub fn record_from(&self, sequence: u64) -> Result<Option<Record>> {
        let state = self.follow(self.lock())?;
        let State { chain, ring, .. } = &*state;
        let first = sequence.max(chain.first.sequence);
        Ok((first..chain.end.sequence).find_map(|sequence| {
            let Entry { position, length, crc } = chain.entry(sequence)??;
            let offset = Self::region_offset(ring, position + HEADER);
            Some(Record { sequence, offset, length: length as usize, crc })
        }))
    }

    /// Copies a record's data into an iterator, which advances by the bytes copied. If they are not those that were
    /// appended, that is the error, and it stands where it stood. Bad memory leaves a count that is short.
    pub fn read_into(&self, sequence: u64, i: &mut IovIter) -> std::result::Result<Outcome, Failure> {
        i.require(Direction::Dest, "read_into")?;
        let record = self.record(sequence)?;
        if i.count() < record.length {
            let expected = format!("{} or more, as many as record {sequence} has", record.length);
            return Err(Error::invalid("dst", format!("{} bytes", i.count()), expected).into());
        }
        let store = |part: &mut [u8]| {
            let seg = Segment::new(part.as_mut_ptr().expose_provenance(), part.len());
            // SAFETY: a buffer of our own, which is not looked at until the copy is done.
            copy_to_iter(unsafe { Memory::new(seg, Backing::Heap) }, i, part.len())
        };
        let (done, sum, fault) = self.sum_while(&record, store)?;
        if done < record.length {
            if fault.is_some() {
                i.fault.clone_from(&fault);
            }
            return Ok((done, i.fault.clone()));
        }
        if sum == record.crc {
            return Ok((done, None));
        }
        i.take_back(done)?;
        Err(self.corrupt(&record))
    }

    /// Reads a record's data, gives each part to `store`, which may come short, and sums them: the bytes stored, the
    /// sum, and what of the log could not be read.
    fn sum_while(
        &self,
        record: &Record,
        mut store: impl FnMut(&mut [u8]) -> Result<usize>,
    ) -> Result<(usize, u32, Option<Box<Fault>>)> {
        let mut block = [0; 8 << 10];
        let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
        let mut done = 0;
        while done < record.length {
            let part = &mut block[..(record.length - done).min(8 << 10)];
            let (read, mut fault) = self.medium.read(record.offset + done, part)?;
            let part = &mut part[..read];
            sum.update(part);
            let stored = store(part)?;
            done += stored;
            if stored < read || fault.is_some() {
                if let Some(fault) = &mut fault {
                    fault.offset = done;
                }
                return Ok((done, 0, fault.filter(|_| stored == read)));
            }
        }
        Ok((done, sum.finalize() as u32, None))
    }

    /// What it says of a record that its sum is wrong: damage, or that a reader was overtaken.
    fn corrupt(&self, record: &Record) -> Failure {
        let Record { sequence, offset, length, .. } = *record;
        match self.record(sequence) {
            Err(gone) => gone,
            Ok(_) => Failure::Corrupt { sequence, offset, length, what: "the sum of its data is wrong" },
        }
    }

    /// Reads a record: bad memory and where its data are, or that they are not what was appended.
    fn check(&self, sequence: u64) -> std::result::Result<Option<(Box<Fault>, usize)>, Failure> {
        let record = self.record(sequence)?;
        let (done, sum, fault) = self.sum_while(&record, |part| Ok(part.len()))?;
        match fault {
            Some(fault) => Ok(Some((fault, record.offset + done))),
            None if sum == record.crc => Ok(None),
            None => Err(self.corrupt(&record)),
        }
    }
}

#[cfg(test)]
mod tests;
