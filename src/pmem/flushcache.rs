//! `copy_from_iter_flushcache` and its relatives for any destination, including regions of page granularity, where a
//! store is durable only after an msync.
//!
//! Each runs in three steps: note, for every part of the destination that needs an msync, how many syncs of its mapping
//! have failed; copy; sync those parts and compare the counts. Only bytes that are durable count.

use super::mapping::{msync_failed, reopening_failed};
use crate::abi::{Direction, PAGE_SIZE};
use crate::copy::{Outcome, flushcache};
use crate::error::{Error, Result};
use crate::fault::shelter::Mark;
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};
use crate::sys::shared_mapping::{self, SharedMapping};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A part of a destination that lies in a mapping which needs an msync.
pub(super) struct Piece {
    /// The index of the destination's range that it is in; 0 for copies with one result for all ranges.
    pub(super) range: usize,
    /// How many bytes the copy stores to that range before this part.
    at: usize,
    seg: Segment,
    mapping: Arc<SharedMapping>,
    /// The number of the mapping's failed syncs before the copy.
    failures: u64,
    /// The moment before the copy, for [`Mark::fault`].
    mark: Mark,
}

/// The parts of a destination that need an msync. They are noted before the copy and synced after it.
#[derive(Default)]
pub(super) struct Destination {
    /// In the order in which the copy stores to them.
    pub(super) pieces: Vec<Piece>,
    len: usize,
}

impl Destination {
    /// Adds the range that the copy stores to next.
    fn push(&mut self, seg: Segment) -> Result<()> {
        self.push_to(0, self.len, seg)?;
        self.len += seg.len;
        Ok(())
    }

    /// Adds `seg`, which begins `at` bytes into range number `range`.
    pub(super) fn push_to(&mut self, range: usize, at: usize, seg: Segment) -> Result<()> {
        for mapping in shared_mapping::overlapping(seg)?.into_iter().filter(|mapping| mapping.needs_msync()) {
            let part = mapping.part_of(seg);
            let failures = mapping.failures().map_err(reopening_failed)?;
            self.pieces.try_reserve(1).map_err(|_| Error::NoMemory(size_of::<Piece>()))?;
            let at = at + (part.addr - seg.addr);
            self.pieces.push(Piece { range, at, seg: part, mapping, failures, mark: Mark::now() });
        }
        Ok(())
    }

    /// Syncs the bytes stored: of range `n`, the first `done(n)` bytes.
    pub(super) fn write_out(&self, done: impl Fn(usize) -> usize) -> Result<()> {
        let stored = |piece: &Piece| piece.stored(done(piece.range));
        let mut order: Vec<&Piece> = Vec::new();
        order.try_reserve(self.pieces.len()).map_err(|_| Error::NoMemory(size_of_val(&*self.pieces)))?;
        order.extend(self.pieces.iter().filter(|piece| stored(piece).len != 0));
        order.sort_unstable_by_key(|piece| piece.seg.addr);
        // Parts of one mapping that share a page, or whose pages are adjacent, are synced in one call.
        for run in
            order.chunk_by(|a, b| Arc::ptr_eq(&a.mapping, &b.mapping) && stored(b).addr <= stored(a).end() + PAGE_SIZE)
        {
            let start = run[0].seg.addr;
            let end = run.iter().map(|piece| stored(piece).end()).max().unwrap_or(start);
            // The parts were noted one after the other, so the smallest count is the one from before all of them.
            let failures = run.iter().map(|piece| piece.failures).min().unwrap_or(0);
            let synced = run[0].mapping.sync_since(failures, Segment::new(start, end - start));
            synced.map_err(|errno| msync_failed(end - start, errno))?;
        }
        Ok(())
    }

    /// Makes the first `done` bytes durable. Returns how many of them are, with the fault if not all are, because the
    /// file was truncated.
    fn sync(&self, done: usize) -> Result<Outcome> {
        self.write_out(|_| done)?;
        for piece in &self.pieces {
            if let Some(lost) = piece.lost(done)? {
                return Ok((lost.offset, Some(Box::new(lost))));
            }
        }
        Ok((done, None))
    }
}

impl Piece {
    /// The bytes of this part that the copy stored, if it stored the first `done` bytes of the range.
    fn stored(&self, done: usize) -> Segment {
        self.seg.take(done.saturating_sub(self.at))
    }

    /// The fault at which stored bytes are lost: where a truncated file ends now, or where a guard has replaced a page
    /// by zeroes. `None` if no byte is lost.
    pub(super) fn lost(&self, done: usize) -> Result<Option<Fault>> {
        let seg = self.stored(done);
        if seg.len == 0 {
            return Ok(None);
        }
        let held = self.mapping.held_by_file(seg).map_err(|errno| msync_failed(seg.len, errno))?;
        let lost = Segment::new(seg.addr + held, self.mapping.seg().end() - seg.addr - held);
        if let Some(mut fault) = self.mark.fault(seg.take(held), Side::Destination) {
            fault.offset += self.at;
            return Ok(Some(fault));
        }
        Ok((held < seg.len).then(|| Fault::truncated(Side::Destination, lost, self.at + held)))
    }
}

/// Whether any mapping of this process needs an msync. If none does, the copies here are those of
/// [`crate::copy::flushcache`].
pub fn may_need_msync() -> bool {
    shared_mapping::any_needs_msync()
}

/// Runs a copy between flat memory and an iterator, then syncs. If that fails, the iterator is moved back to where it
/// was.
fn through(
    destination: &Destination,
    i: &mut IovIter,
    copy: impl FnOnce(&mut IovIter) -> Result<usize>,
) -> Result<usize> {
    let done = copy(i)?;
    match destination.sync(done) {
        Ok((durable, lost)) => {
            i.take_back(done - durable)?;
            i.fault = lost.or_else(|| i.fault.take());
            Ok(durable)
        }
        Err(error) => {
            i.take_back(done)?;
            Err(error)
        }
    }
}

/// `copy_from_iter_flushcache` to any memory. An error if an msync fails: then no byte counts, and the iterator has not
/// moved.
pub fn copy_from_iter_flushcache(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    from_iter(dst, i, nbytes, |i| flushcache::copy_from_iter_flushcache(dst, i, nbytes))
}

/// Runs `copy`, which copies at most `nbytes` bytes from the iterator to `dst`, with those three steps.
pub(super) fn from_iter(
    dst: Memory,
    i: &mut IovIter,
    nbytes: usize,
    copy: impl FnOnce(&mut IovIter) -> Result<usize>,
) -> Result<usize> {
    let mut destination = Destination::default();
    if may_need_msync() && i.direction() == Direction::Source {
        destination.push(dst.seg().take(nbytes.min(i.count())))?;
    }
    through(&destination, i, copy)
}

/// `copy_to_iter_flushcache` to any memory; errors as for [`copy_from_iter_flushcache`]. The pages of an XArray or a
/// FolioQueue are looked up before the copy, so a page that another thread stores there during the copy is not synced.
pub fn copy_to_iter_flushcache(src: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    let mut destination = Destination::default();
    if may_need_msync() && i.direction() == Direction::Dest {
        let mut pushed = Ok(());
        i.pieces(nbytes.min(i.count()), |piece| {
            pushed = destination.push(piece.seg);
            if pushed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        pushed?;
    }
    through(&destination, i, |i| flushcache::copy_to_iter_flushcache(src, i, nbytes))
}

/// `memcpy_flushcache` to any memory; errors as for [`copy_from_iter_flushcache`].
pub fn memcpy_flushcache(dst: Memory, src: Memory) -> Result<Outcome> {
    flat(dst, || flushcache::memcpy_flushcache(dst, src))
}

/// Runs `copy`, which copies flat memory to `dst`, with those three steps.
pub(super) fn flat(dst: Memory, copy: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let mut destination = Destination::default();
    if may_need_msync() {
        destination.push(dst.seg())?;
    }
    let (done, fault) = copy()?;
    let (durable, lost) = destination.sync(done)?;
    Ok((durable, lost.or(fault)))
}
