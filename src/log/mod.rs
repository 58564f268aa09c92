//! An append-only log in a persistent region: a ring of records, each durable with one fence.
//!
//! * [`format`] and [`header`]: what is stored. [`ring`]: where there is room. [`chain`]: which records there are.
//! * [`recover`]: what is found again, by [`open`], and by a reader that [`follow`]s. [`append`]: what changes a log.
//!   [`read`]: what is read from it.
//! * [`region`]: the region that it is stored in. The log itself runs over anything that is a [`Medium`], so that the
//!   tests run the same code over a recorder of lines and fences.
//!
//! A record counts if its header's sum and its data's are right, so nothing orders the two on their way to the medium.
//! What may not come back is made sure of before it can: a torn tail is erased when it is cut, a record that could not
//! be made durable when its append fails.

mod append;
pub mod chain;
mod follow;
pub mod format;
pub mod header;
mod open;
mod read;
pub mod recover;
pub mod region;
pub mod ring;

use crate::copy::Outcome;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::sys::long_lock::{Guard, LongLock};
use chain::Chain;
use format::{Line, RING, Superblock};
use recover::Source;
use ring::{HEADER, Ring};

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
    /// The record was withdrawn while it was read, and its number is another one's.
    Changed,
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

impl State {
    /// The longest record that can be appended, with its header.
    fn free(&self) -> u64 {
        let Self { ring, chain, .. } = self;
        let here = ring.largest(chain.end.position, chain.limit(ring));
        let behind = chain.next_lap(ring).map_or(0, |lap| ring.largest(lap.position, lap.position + ring.capacity()));
        here.max(behind)
    }
}

/// A log.
pub struct PmemLog<M> {
    medium: M,
    is_writable: bool,
    recovered: u64,
    state: LongLock<State>,
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

impl<M: Medium> PmemLog<M> {
    /// Nothing that runs Python is done while it is locked, and the interpreter is not waited for.
    fn lock(&self) -> Result<Guard<'_, State>> {
        self.state.lock().ok_or_else(|| {
            let context = "another thread used this log when this process was forked: open it again";
            Error::os(libc::EWOULDBLOCK, context)
        })
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

    /// What there is now.
    pub fn numbers(&self) -> Result<Numbers> {
        let state = self.follow(self.lock()?)?;
        let State { chain, .. } = &*state;
        let free = state.free().saturating_sub(HEADER);
        let used = chain.end.position - chain.first.position;
        Ok(Numbers { first: chain.first.sequence, end: chain.end.sequence, used, free })
    }
}

#[cfg(test)]
mod tests;
