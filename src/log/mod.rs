//! An append-only log in a persistent region: a ring of records, each durable with one fence.
//!
//! * [`format`] and [`header`]: what is stored. [`ring`]: where there is room. [`chain`]: which records there are.
//! * [`recover`]: what is found again, by [`open`], and by a reader that follows. [`append`]: what changes a log.
//!   [`read`]: what is read from it.
//! * [`region`]: the region that it is stored in. The log itself runs over anything that is a [`Medium`], so that the
//!   tests run the same code over a recorder of lines and fences.
//!
//! A record counts if its header's sum and its data's are right, so nothing orders the two on their way to the medium.
//! What may not come back is made sure of before it can: a torn tail is erased when it is cut, a record that could not
//! be made durable when its append fails.

mod append;
pub mod chain;
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
use recover::{Log, Source};
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

    /// For readers, and for a writer's forked child: what the writer has done since.
    fn follow<'a>(&self, mut state: Guard<'a, State>) -> Result<Guard<'a, State>> {
        if self.is_writable && self.medium.is_writer() {
            return Ok(state);
        }
        let newest = self.newest()?;
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
        let log = Log { source: &self.medium, ring, generation: superblock.generation };
        let mut is_complete = log.is_last_there(chain)?;
        if is_complete {
            log.follow(chain, superblock.known)?;
            is_complete = chain.end.sequence >= superblock.known.sequence;
        }
        if !is_complete {
            // A record is seen before it is durable, and if it does not become so its number is another one's.
            *chain = log.recover(superblock)?.chain;
            self.settle(&mut state)?;
        }
        Ok(state)
    }

    /// The newest superblock, beside a writer: while one of the two is written, the other, which was looked at before,
    /// may have been written, too.
    fn newest(&self) -> Result<Option<Superblock>> {
        let mut found = recover::superblock(&self.medium)?;
        while found.1 != [true; 2] {
            let again = recover::superblock(&self.medium)?;
            if again == found {
                break;
            }
            found = again;
        }
        Ok(found.0)
    }

    /// Looks again at damage that was found beside a writer, which may have discarded a record and used its space, or
    /// not have stored all of it, between two of our looks. Damage is what was found twice, with the same superblock
    /// before and after both.
    fn settle(&self, state: &mut State) -> Result<()> {
        const LOOKS: usize = 1000;
        for _ in 0..LOOKS {
            let State { superblock, ring, chain, .. } = &mut *state;
            if chain.damaged().next().is_none() {
                break;
            }
            let Some(newest) = self.newest()?.filter(|newest| newest.size == superblock.size) else { break };
            *ring = Ring::new(newest.capacity(), newest.bad.clone());
            let log = Log { source: &self.medium, ring, generation: newest.generation };
            let again = log.recover(&newest)?.chain;
            let is_same = newest == *superblock && self.newest()?.is_some_and(|after| after == newest);
            let is_settled = is_same && again.damaged().eq(chain.damaged());
            (*superblock, *chain) = (newest, again);
            if is_settled {
                break;
            }
        }
        Ok(())
    }

    /// What there is now.
    pub fn numbers(&self) -> Result<Numbers> {
        let state = self.follow(self.lock()?)?;
        let State { ring, chain, .. } = &*state;
        let free = ring.largest(chain.end.position, chain.limit(ring)).saturating_sub(HEADER);
        let used = chain.end.position - chain.first.position;
        Ok(Numbers { first: chain.first.sequence, end: chain.end.sequence, used, free })
    }
}

#[cfg(test)]
mod tests;
