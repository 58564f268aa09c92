//! The iterator: a cursor over scattered memory (`struct iov_iter`).
//!
//! `count` bounds every operation; the segments may hold more. A position is the current segment and the offset in it,
//! and may rest at the end of a segment. Everything the kernel leaves undefined is an [`Error`] here.

mod alignment;
mod fill;
mod folioq;
mod pages;
mod pieces;
mod pipe;
mod position;
mod vector;
mod walk;
mod whole;
mod xarray;

pub use pages::PageSpan;
pub use pieces::{KeptPiece, Piece};
pub use position::IterState;
use walk::Prepared;
pub use walk::{Step, Touch};

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::memory::{Backing, Memories, Memory, Segment};
use crate::structure::{FolioQueue, PipeRing, Writer, XArray};
use folioq::FolioCursor;
use pipe::PipeCursor;
use std::sync::Arc;
use vector::Vector;
use xarray::XarrayCursor;

#[derive(Clone)]
enum Body {
    Ubuf(Memory),
    Vector(Vector),
    Pipe(PipeCursor),
    Xarray(XarrayCursor),
    Folioq(FolioCursor),
    Discard,
}

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

    /// Ranges of user memory (`iov_iter_init`).
    pub fn iovec(direction: Direction, ranges: Memories, count: Option<usize>) -> Result<Self> {
        let vector = Vector::iovec(ranges)?;
        Self::vector(direction, vector, count)
    }

    /// Ranges of trusted memory (`iov_iter_kvec`).
    pub fn kvec(direction: Direction, ranges: Memories, count: Option<usize>) -> Result<Self> {
        let vector = Vector::kvec(ranges)?;
        Self::vector(direction, vector, count)
    }

    /// Ranges within pages (`iov_iter_bvec`): range `n` begins `offsets[n]` bytes into its page.
    pub fn bvec(direction: Direction, ranges: Memories, offsets: Vec<usize>, count: Option<usize>) -> Result<Self> {
        let vector = Vector::bvec(ranges, offsets)?;
        Self::vector(direction, vector, count)
    }

    fn vector(direction: Direction, vector: Vector, count: Option<usize>) -> Result<Self> {
        let count = within(count, vector.total())?;
        Ok(Self::with_body(direction, count, Body::Vector(vector)))
    }

    /// A pipe to fill (`iov_iter_pipe`, until 6.4). `count` may be more than it can take.
    pub fn pipe(direction: Direction, ring: Arc<PipeRing>, count: usize) -> Result<Self> {
        require_possible(direction, Kind::Pipe)?;
        Ok(Self::with_body(direction, count, Body::Pipe(PipeCursor(Writer::iterator(ring)))))
    }

    /// A pipe that is written to as `write(2)` does it: what comes next may be added to the last page.
    pub(crate) fn pipe_write(ring: Arc<PipeRing>, count: usize) -> Self {
        Self::with_body(Direction::Dest, count, Body::Pipe(PipeCursor(Writer::ordinary(ring))))
    }

    /// The pages of an XArray from byte position `start` on (`iov_iter_xarray`). A hole ends a transfer.
    pub fn xarray(direction: Direction, array: Arc<XArray>, start: usize, count: usize) -> Result<Self> {
        if start.checked_add(count).is_none() {
            return Err(Error::invalid("count", count, format!("start {start} + count within 64 bits")));
        }
        Ok(Self::with_body(direction, count, Body::Xarray(XarrayCursor { array, start, prepared: Prepared::new() })))
    }

    /// A folio queue from `offset` bytes into `first_slot` on (`iov_iter_folio_queue`).
    pub fn folioq(
        direction: Direction,
        queue: Arc<FolioQueue>,
        first_slot: usize,
        offset: usize,
        count: usize,
    ) -> Result<Self> {
        let cursor = FolioCursor::new(queue, first_slot, offset)?;
        let mut iter = Self::with_body(direction, count, Body::Folioq(cursor));
        iter.offset = offset;
        Ok(iter)
    }

    /// Counts and drops (`iov_iter_discard`).
    pub fn discard(direction: Direction, count: usize) -> Result<Self> {
        require_possible(direction, Kind::Discard)?;
        Ok(Self::with_body(direction, count, Body::Discard))
    }

    /// What kind of memory it runs over.
    pub fn kind(&self) -> Kind {
        match &self.body {
            Body::Ubuf(_) => Kind::Ubuf,
            Body::Vector(vector) => vector.kind(),
            Body::Pipe(_) => Kind::Pipe,
            Body::Xarray(_) => Kind::Xarray,
            Body::Folioq(_) => Kind::Folioq,
            Body::Discard => Kind::Discard,
        }
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
        match &self.body {
            Body::Pipe(pipe) => pipe.0.end_offset(),
            Body::Ubuf(_) | Body::Vector(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => self.offset,
        }
    }

    /// Segments that remain, the current one included; 0 for the kinds that do not count them.
    pub fn nr_segs(&self) -> usize {
        match &self.body {
            Body::Ubuf(_) => 1,
            Body::Vector(vector) => vector.nr_segs(),
            Body::Pipe(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => 0,
        }
    }

    /// How its memory may fail: as the least safe range of it.
    pub fn backing(&self) -> Backing {
        match &self.body {
            Body::Ubuf(memory) => memory.backing(),
            Body::Vector(vector) => vector.backing(),
            Body::Xarray(xarray) => xarray.prepared.note(xarray.array.backing()),
            Body::Folioq(folioq) => folioq.backing(),
            // A pipe writes only into pages the ring allocated; DISCARD touches no memory.
            Body::Pipe(_) | Body::Discard => Backing::Heap,
        }
    }

    /// Whether it is the kernel's "user-backed": UBUF or IOVEC.
    pub fn is_user_backed(&self) -> bool {
        self.kind().is_user_backed()
    }

    /// The memory ahead, where that is one range.
    #[inline]
    pub(crate) fn one_range(&self) -> Option<Segment> {
        match &self.body {
            Body::Ubuf(memory) => Some(memory.seg().skip(self.offset)),
            Body::Vector(_) | Body::Pipe(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => None,
        }
    }

    /// The length that [`Self::single_seg_count`] counts of the current segment, where there are several.
    fn current_segment(&self) -> Option<usize> {
        match &self.body {
            Body::Vector(vector) => (vector.nr_segs() > 1).then(|| vector.left_of_current(self.offset)),
            Body::Folioq(folioq) => Some(folioq.current_size()),
            Body::Ubuf(_) | Body::Pipe(_) | Body::Xarray(_) | Body::Discard => None,
        }
    }

    /// The position whose low bits decide the alignment, where what remains is one line of bytes.
    fn place(&self) -> Option<usize> {
        match &self.body {
            Body::Ubuf(memory) => Some(memory.seg().addr + self.offset),
            Body::Xarray(xarray) => Some(xarray.start.wrapping_add(self.offset)),
            Body::Folioq(_) => Some(self.offset),
            Body::Pipe(pipe) => Some(pipe.0.free_slots().1),
            Body::Vector(_) | Body::Discard => None,
        }
    }

    /// Whether it goes over the pages of a structure that others may change meanwhile.
    #[inline]
    fn has_changing_pages(&self) -> bool {
        match &self.body {
            Body::Xarray(_) | Body::Folioq(_) => true,
            Body::Ubuf(_) | Body::Vector(_) | Body::Pipe(_) | Body::Discard => false,
        }
    }

    fn as_vector(&self) -> Option<&Vector> {
        match &self.body {
            Body::Vector(vector) => Some(vector),
            Body::Ubuf(_) | Body::Pipe(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => None,
        }
    }

    fn as_pipe(&self) -> Option<&PipeCursor> {
        match &self.body {
            Body::Pipe(pipe) => Some(pipe),
            Body::Ubuf(_) | Body::Vector(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => None,
        }
    }

    fn as_pipe_mut(&mut self) -> Option<&mut PipeCursor> {
        match &mut self.body {
            Body::Pipe(pipe) => Some(pipe),
            Body::Ubuf(_) | Body::Vector(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => None,
        }
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
