//! IOVEC, KVEC and BVEC: a position in an array of segments. They differ in whether a fault is expected (IOVEC) and in
//! what a chunk is (BVEC splits at page boundaries), not in how the position moves.

mod walk;

use crate::abi::{Direction, Kind};
use crate::error::{Error, Result};
use crate::iter::{IovIter, within};
use crate::memory::{Backing, Memories, Segment};
use std::sync::Arc;

#[derive(Clone)]
enum Flavour {
    Iovec,
    Kvec,
    /// Each segment's offset in its page.
    Bvec(Arc<Vec<usize>>),
}

#[derive(Clone)]
pub(in crate::iter) struct Vector {
    ranges: Memories,
    flavour: Flavour,
    cur: usize,
    /// The first segment that a revert can reach: 0, or where a duplicate began.
    first: usize,
    total: usize,
    /// The smallest range that covers every segment. A buffer outside it overlaps none of them, which answers most
    /// overlap checks.
    hull: Segment,
}

impl IovIter {
    /// Ranges of user memory (`iov_iter_init`).
    pub fn iovec(direction: Direction, ranges: Memories, count: Option<usize>) -> Result<Self> {
        Self::vector(direction, Vector::iovec(ranges)?, count)
    }

    /// Ranges of trusted memory (`iov_iter_kvec`).
    pub fn kvec(direction: Direction, ranges: Memories, count: Option<usize>) -> Result<Self> {
        Self::vector(direction, Vector::kvec(ranges)?, count)
    }

    /// Ranges within pages (`iov_iter_bvec`): range `n` begins `offsets[n]` bytes into its page.
    pub fn bvec(direction: Direction, ranges: Memories, offsets: Vec<usize>, count: Option<usize>) -> Result<Self> {
        Self::vector(direction, Vector::bvec(ranges, offsets)?, count)
    }

    fn vector(direction: Direction, vector: Vector, count: Option<usize>) -> Result<Self> {
        let count = within(count, vector.total())?;
        Ok(Self::with_body(direction, count, vector.into()))
    }
}

impl Vector {
    fn iovec(ranges: Memories) -> Result<Self> {
        Self::new(ranges, Flavour::Iovec)
    }

    fn kvec(ranges: Memories) -> Result<Self> {
        Self::new(ranges, Flavour::Kvec)
    }

    fn bvec(ranges: Memories, offsets: Vec<usize>) -> Result<Self> {
        debug_assert_eq!(ranges.segs().len(), offsets.len());
        Self::new(ranges, Flavour::Bvec(Arc::new(offsets)))
    }

    fn new(ranges: Memories, flavour: Flavour) -> Result<Self> {
        let (mut total, mut low, mut high) = (0_usize, usize::MAX, 0);
        for (index, seg) in ranges.segs().iter().enumerate() {
            total = total.checked_add(seg.len).filter(|t| isize::try_from(*t).is_ok()).ok_or_else(|| {
                Error::invalid(
                    "segments",
                    format!("{} bytes at segment {index}", seg.len),
                    "less than 2**63 bytes in all",
                )
            })?;
            if seg.len != 0 {
                low = low.min(seg.addr);
                high = high.max(seg.end());
            }
        }
        let hull = Segment::new(low.min(high), high - low.min(high));
        Ok(Self { ranges, flavour, cur: 0, first: 0, total, hull })
    }

    pub(in crate::iter) fn kind(&self) -> Kind {
        match self.flavour {
            Flavour::Iovec => Kind::Iovec,
            Flavour::Kvec => Kind::Kvec,
            Flavour::Bvec(_) => Kind::Bvec,
        }
    }

    pub(in crate::iter) fn backing(&self) -> Backing {
        self.ranges.backing()
    }

    pub(in crate::iter) fn total(&self) -> usize {
        self.total
    }

    pub(in crate::iter) fn hull(&self) -> Segment {
        self.hull
    }

    pub(in crate::iter) fn nr_segs(&self) -> usize {
        self.ranges.segs().len() - self.cur
    }

    /// The segments from the current one on, each with its offset in its page (BVEC) or its address.
    pub(in crate::iter) fn rest(&self) -> impl Iterator<Item = (Segment, usize)> {
        let offsets = match &self.flavour {
            Flavour::Bvec(offsets) => Some(offsets),
            Flavour::Iovec | Flavour::Kvec => None,
        };
        let segs = self.ranges.segs().iter().enumerate().skip(self.cur);
        segs.map(move |(index, seg)| (*seg, offsets.map_or(seg.addr, |o| o[index])))
    }

    /// The segments that hold the next `count` bytes after `offset`, clipped at both ends, with the empty ones among
    /// them; each with its offset in its page (BVEC) or its address. A `count` of 0 yields one empty segment.
    pub(in crate::iter) fn clipped(&self, offset: usize, count: usize) -> impl Iterator<Item = (Segment, usize)> {
        let (mut skip, mut left, mut is_last) = (offset, count, false);
        self.rest().map_while(move |(seg, at)| {
            if is_last {
                return None;
            }
            let part = seg.skip(skip).take(left);
            let at = at.wrapping_add(skip);
            (skip, left) = (0, left - part.len);
            is_last = left == 0;
            Some((part, at))
        })
    }

    /// Bytes between `offset` and the end of the current segment.
    pub(in crate::iter) fn left_of_current(&self, offset: usize) -> usize {
        self.rest().next().map_or(0, |(seg, _)| seg.len - offset)
    }

    /// Bytes from the position to the end of the array.
    pub(in crate::iter) fn available(&self, offset: usize) -> usize {
        self.rest().map(|(seg, _)| seg.len).sum::<usize>().saturating_sub(offset)
    }

    /// Makes the current segment the first that a revert can reach, for a duplicate.
    pub(in crate::iter) fn begin_here(&mut self) {
        self.first = self.cur;
    }

    /// Moves forwards by `nbytes`, and then past every segment that is consumed or empty.
    pub(in crate::iter) fn advance(&mut self, offset: &mut usize, nbytes: usize) {
        let segs = self.ranges.segs();
        let mut left = *offset + nbytes;
        while let Some(seg) = segs.get(self.cur)
            && left >= seg.len
        {
            left -= seg.len;
            self.cur += 1;
        }
        *offset = left;
    }

    /// The index of the current segment.
    pub(in crate::iter) fn cur(&self) -> usize {
        self.cur
    }

    /// All segments.
    pub(in crate::iter) fn segs(&self) -> &[Segment] {
        self.ranges.segs()
    }

    /// Moves past the next `segments` segments and the empty ones that follow them.
    pub(in crate::iter) fn skip_segments(&mut self, segments: usize) {
        self.cur += segments;
        let empty = self.ranges.segs()[self.cur..].iter().take_while(|seg| seg.len == 0).count();
        self.cur += empty;
    }

    /// Moves backwards by `nbytes` (not 0), to the segment in which those bytes begin; the error is the number of bytes
    /// consumed, if they are fewer.
    pub(in crate::iter) fn revert(&mut self, offset: &mut usize, nbytes: usize) -> std::result::Result<(), usize> {
        if nbytes <= *offset {
            *offset -= nbytes;
            return Ok(());
        }
        let mut left = nbytes - *offset;
        let mut cur = self.cur;
        while cur > self.first {
            cur -= 1;
            let len = self.ranges.segs()[cur].len;
            if left <= len {
                self.cur = cur;
                *offset = len - left;
                return Ok(());
            }
            left -= len;
        }
        Err(nbytes - left)
    }

    /// A vector whose position is `offset` bytes into the segment at which `nr_segs` segments remain, if there is such
    /// a place.
    pub(in crate::iter) fn seek(&self, nr_segs: usize, offset: usize) -> Option<Self> {
        let cur = self.ranges.segs().len().checked_sub(nr_segs)?;
        let fits = match self.ranges.segs().get(cur) {
            Some(seg) => offset <= seg.len,
            None => offset == 0,
        };
        (cur >= self.first && fits).then(|| Self { cur, ..self.clone() })
    }
}
