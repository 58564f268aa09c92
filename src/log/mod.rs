//! An append-only log in a persistent region: a ring of records, each of which one fence makes durable.
//!
//! * [`format`] and [`header`] define what is stored. [`ring`] finds room, and [`chain`] lists the records.
//! * [`recover`] finds the records in a region, for [`open`] and for a reader that [`follow`]s a writer. [`append`]
//!   changes a log, and [`read`] reads it.
//! * [`region`] is the region in which a log is stored. The log itself runs over any [`Medium`], so that the tests run
//!   the same code over a recorder of lines and fences.
//!
//! A record is valid if the sum of its header and the sums of its data are right, so it does not matter which of the
//! two reaches the medium first. Bytes that must not be taken for a record later are erased in time: a torn tail when
//! the log is opened for writing, and a record that could not be made durable when its append fails.

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
use crate::copy::sums::Sums;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::sys::long_lock::{Guard, LongLock};
use chain::Chain;
use format::{Line, RING, Superblock};
use recover::Source;
use ring::{HEADER, Ring};
use std::borrow::Cow;

/// How many bytes are stored or erased with one wait for the medium.
const STORED_AT_ONCE: usize = 1 << 20;

/// The memory that a log is stored in.
pub trait Medium: Source {
    /// Its size in bytes.
    fn size(&self) -> usize;
    /// Writes bytes of our own durably. Returns how many were written, and the fault that stopped it, if any.
    fn write(&self, offset: usize, own: &[u8]) -> Result<Outcome>;
    /// Writes a header line and then the rest of an iterator, durably and with one fence. `line` makes the header from
    /// the sums of the data. Together they take `len` bytes, in whole lines. Returns `len`. If a fault stops it,
    /// returns less and the fault, and the iterator is back where it was.
    fn write_framed(&self, offset: usize, len: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome>;
    /// The range of bytes that a fault has shown to be permanently bad: its first byte, and one past its last. `None`
    /// if the fault has shown no such thing.
    fn damage(&self, fault: &Fault) -> Option<(usize, usize)>;
    /// Refuses a writer that has lost its lock, or never had it.
    fn require_lock(&self) -> Result<()>;
}

/// Why an operation on a log failed.
#[derive(Debug)]
pub enum Failure {
    /// The operation was refused, or a system call of it failed.
    Refused(Error),
    /// Memory was bad; the number is how many bytes were copied before it.
    Fault(Box<Fault>, usize),
    /// There is no such record.
    Missing {
        /// The number that was asked for.
        sequence: u64,
        /// The number of the first record.
        first: u64,
        /// The number after the last record's.
        end: u64,
    },
    /// The bytes are not those that were appended.
    Corrupt {
        /// The record's number.
        sequence: u64,
        /// The offset in the region of its data, or, if its header is damaged, of where that is expected.
        offset: usize,
        /// How many bytes of it are there.
        length: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The record was withdrawn while it was being read, and another record has its number now.
    Changed,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A record, and where its data are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// The offset of its data in the region, in bytes.
    pub offset: usize,
    /// Bytes of data.
    pub length: usize,
    /// The sums of the data.
    pub sums: Sums,
}

/// The extent of a log at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// The oldest record's number.
    pub first: u64,
    /// The next record's number.
    pub end: u64,
    /// How many bytes of the ring are in use.
    pub used: u64,
    /// How many bytes of data the next record can have at most.
    pub free: u64,
}

struct State {
    superblock: Superblock,
    ring: Ring,
    chain: Chain,
    /// Set when a record could be neither made durable nor erased. Records after it could then be lost with it.
    is_broken: bool,
}

impl State {
    /// The size in bytes of the largest record that can be appended, including its header.
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

/// How a log is opened, and what happens if the region has no log in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// For reading. A region without a log is refused.
    Read,
    /// For writing. A region without a log is refused.
    Write,
    /// For writing. A log is made in a region without one, if the region has no other data.
    Create,
}

fn os(errno: i32, context: impl Into<Cow<'static, str>>) -> Failure {
    Failure::Refused(Error::os(errno, context))
}

/// Turns a write of fewer than `len` bytes into an error.
fn written((done, fault): Outcome, len: usize) -> std::result::Result<(), Failure> {
    match fault {
        Some(fault) => Err(Failure::Fault(fault, done)),
        None if done < len => Err(os(libc::EIO, format!("{done} of {len} bytes were written"))),
        None => Ok(()),
    }
}

impl<M: Medium> PmemLog<M> {
    /// Locks the state. While it is locked, no Python code runs and nobody waits for the interpreter.
    fn lock(&self) -> Result<Guard<'_, State>> {
        self.state.lock().ok_or_else(|| {
            let context = "another thread used this log when this process was forked: open it again";
            Error::os(libc::EWOULDBLOCK, context)
        })
    }

    /// The memory that the log is stored in.
    pub fn medium(&self) -> &M {
        &self.medium
    }

    /// Whether the log was opened for writing.
    pub fn is_writable(&self) -> bool {
        self.is_writable
    }

    /// How many bytes of a torn tail were discarded when the log was opened.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    fn require_writer(&self) -> std::result::Result<(), Failure> {
        if !self.is_writable {
            return Err(Error::ReadOnlyRegion.into());
        }
        Ok(self.medium.require_lock()?)
    }

    fn region_offset(ring: &Ring, position: u64) -> usize {
        RING + ring.offset(position) as usize
    }

    /// The extent of the log now.
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
