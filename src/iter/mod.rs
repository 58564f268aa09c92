//! The iterator: a cursor over scattered memory (`struct iov_iter`).
//!
//! `count` bounds every operation; the segments may hold more. A position is the current segment and the offset in it,
//! and may rest at the end of a segment. Everything the kernel leaves undefined is an [`Error`] here.

mod alignment;
mod fill;
mod kinds;
mod pages;
mod pieces;
mod position;
mod walk;
mod whole;

pub use pages::PageSpan;
pub use pieces::{KeptPiece, Piece};
pub use position::IterState;
pub(crate) use walk::{Step, Touch};

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::memory::{Backing, Memory, Segment};
use kinds::Body;

/// The cursor. Cloning it is the kernel's `struct` copy: the clone moves on its own over the same memory.
#[derive(Clone)]
#[repr(C)] // what every copy touches comes first, on a line or two
pub struct IovIter {
    direction: Direction,
    count: usize,
    /// Bytes consumed of the current segment; of all for UBUF and XARRAY. PIPE keeps its own.
    offset: usize,
    /// Why the last copy through this iterator came out short.
    pub fault: Option<Box<Fault>>,
    body: Body,
}

impl IovIter {
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be copied right after it was written
    fn with_body(direction: Direction, count: usize, body: Body) -> Self {
        Self { direction, count, offset: 0, body, fault: None }
    }

    /// One range of user memory (`iov_iter_ubuf`).
    pub fn ubuf(direction: Direction, memory: Memory, count: Option<usize>) -> Result<Self> {
        let count = within(count, memory.len())?;
        Ok(Self::with_body(direction, count, Body::Ubuf(memory)))
    }

    /// One range, all of it.
    #[inline(always)]
    #[allow(clippy::inline_always)] // returned by value it would be copied right after it was written
    pub(crate) fn whole(direction: Direction, memory: Memory) -> Self {
        Self::with_body(direction, memory.len(), Body::Ubuf(memory))
    }

    /// Counts and drops (`iov_iter_discard`).
    pub fn discard(direction: Direction, count: usize) -> Result<Self> {
        require_possible(direction, Kind::Discard)?;
        Ok(Self::with_body(direction, count, Body::Discard))
    }

    /// What kind of memory it runs over.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// What it is in a transfer.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Bytes that remain to be transferred.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes consumed of the current segment; of all for UBUF and XARRAY; PIPE: where the newest slot ends in its page.
    pub fn iov_offset(&self) -> usize {
        self.body.as_pipe().map_or(self.offset, |pipe| pipe.0.end_offset())
    }

    /// Segments that remain, the current one included; 0 for the kinds that do not count them.
    pub fn nr_segs(&self) -> usize {
        self.body.nr_segs()
    }

    /// How its memory may fail: as the least safe range of it.
    pub fn backing(&self) -> Backing {
        self.body.backing()
    }

    /// Whether it is the kernel's "user-backed": UBUF or IOVEC.
    pub fn is_user_backed(&self) -> bool {
        self.kind().is_user_backed()
    }

    /// The memory ahead, where that is one range.
    #[inline]
    pub(crate) fn one_range(&self) -> Option<Segment> {
        self.body.one_range(self.offset)
    }

    /// Refuses an operation that goes against the direction.
    pub fn require(&self, direction: Direction, operation: &'static str) -> Result<()> {
        if self.direction == direction {
            Ok(())
        } else {
            Err(Error::Direction { operation, direction: self.direction })
        }
    }
}

/// `count` if it was given and the segments hold that much; everything they hold by default.
fn within(count: Option<usize>, available: usize) -> Result<usize> {
    match count {
        None => Ok(available),
        Some(count) if count <= available => Ok(count),
        Some(count) => Err(Error::BeyondSegments { count, available }),
    }
}

/// Refuses a source of a kind that is a destination only.
fn require_possible(direction: Direction, kind: Kind) -> Result<()> {
    match direction {
        Direction::Source if kind.is_destination_only() => {
            Err(Error::invalid("direction", "WRITE", format!("READ: {kind} is a destination only")))
        }
        Direction::Source | Direction::Dest => Ok(()),
    }
}

#[cfg(test)]
mod tests;
