//! The iterator: a cursor over scattered memory (`struct iov_iter`).
//!
//! `count` bounds every operation; the segments may hold more. A position is the current segment and an offset in it,
//! and that offset may equal the segment's length. Whatever the kernel leaves undefined is an [`Error`] here.

mod alignment;
mod fill;
mod kinds;
mod pages;
mod pieces;
mod position;
mod run;
mod walk;
mod whole;

pub use pages::PageSpan;
pub use pieces::{KeptPiece, Piece};
pub use position::IterState;
pub(crate) use run::Run;
pub(crate) use walk::{Step, Touch, one_by_one};

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::memory::{Backing, Memory, Segment};
use kinds::Body;

/// The cursor. A clone is what assigning the kernel's `struct iov_iter` gives: it moves independently over the same
/// memory.
#[derive(Clone)]
#[repr(C)] // the fields that every copy uses come first, in one or two cache lines
pub struct IovIter {
    direction: Direction,
    count: usize,
    /// Bytes consumed of the current segment; for UBUF and XARRAY, since the start. PIPE keeps its own position.
    offset: usize,
    /// Why the last copy through this iterator was short.
    pub fault: Option<Box<Fault>>,
    body: Body,
}

impl IovIter {
    #[inline(always)]
    #[allow(clippy::inline_always)] // out of line, the value would be written to the stack and then copied
    fn with_body(direction: Direction, count: usize, body: Body) -> Self {
        Self { direction, count, offset: 0, body, fault: None }
    }

    /// One range of user memory (`iov_iter_ubuf`).
    pub fn ubuf(direction: Direction, memory: Memory, count: Option<usize>) -> Result<Self> {
        let count = within(count, memory.len())?;
        Ok(Self::with_body(direction, count, Body::Ubuf(memory)))
    }

    /// An iterator over the whole of one range.
    #[inline(always)]
    #[allow(clippy::inline_always)] // out of line, the value would be written to the stack and then copied
    pub(crate) fn whole(direction: Direction, memory: Memory) -> Self {
        Self::with_body(direction, memory.len(), Body::Ubuf(memory))
    }

    /// An iterator without memory, which counts the bytes given to it and drops them (`iov_iter_discard`).
    pub fn discard(direction: Direction, count: usize) -> Result<Self> {
        require_possible(direction, Kind::Discard)?;
        Ok(Self::with_body(direction, count, Body::Discard))
    }

    /// The kind of memory it runs over.
    pub fn kind(&self) -> Kind {
        self.body.kind()
    }

    /// Whether it is the destination or the source of a transfer.
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Bytes that remain to be transferred.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes consumed of the current segment; for UBUF and XARRAY, since the start; for PIPE, the offset in its page at
    /// which the newest slot ends.
    pub fn iov_offset(&self) -> usize {
        self.body.as_pipe().map_or(self.offset, |pipe| pipe.0.end_offset())
    }

    /// Segments that remain, including the current one; 0 for the kinds that do not count them.
    pub fn nr_segs(&self) -> usize {
        self.body.nr_segs()
    }

    /// How its memory may fail: the backing of its least safe range.
    pub fn backing(&self) -> Backing {
        self.body.backing()
    }

    /// Whether it is user-backed in the kernel's sense: UBUF or IOVEC.
    pub fn is_user_backed(&self) -> bool {
        self.kind().is_user_backed()
    }

    /// The memory ahead, for the kinds where it is one range.
    #[inline]
    pub(crate) fn one_range(&self) -> Option<Segment> {
        self.body.one_range(self.offset)
    }

    /// Refuses `operation` unless the iterator's direction is `direction`.
    pub fn require(&self, direction: Direction, operation: &'static str) -> Result<()> {
        if self.direction == direction {
            Ok(())
        } else {
            Err(Error::Direction { operation, direction: self.direction })
        }
    }
}

/// `count` if the segments hold that many bytes, an error if they do not; without a `count`, all bytes they hold.
fn within(count: Option<usize>, available: usize) -> Result<usize> {
    match count {
        None => Ok(available),
        Some(count) if count <= available => Ok(count),
        Some(count) => Err(Error::BeyondSegments { count, available }),
    }
}

/// Refuses the direction "source" for the kinds that can only be destinations.
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
