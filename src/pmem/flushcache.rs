//! The copies that flush caches (`copy_from_iter_flushcache` and its kin), durable also where that takes an msync: in a
//! mapped region of page granularity.

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

/// A piece of a destination that lies in a mapping which needs an msync.
pub(super) struct Piece {
    /// Which of the destination's ranges it is in: 0, unless each has a result of its own.
    pub(super) range: usize,
    /// How many bytes the copy stores to that range before it.
    at: usize,
    seg: Segment,
    mapping: Arc<SharedMapping>,
    /// How many of the mapping's syncs had failed before the copy.
    failures: u64,
    /// When that was.
    mark: Mark,
}

/// What of a destination needs an msync: noted before the copy, synced after it.
#[derive(Default)]
pub(super) struct Destination {
    /// In the order they are stored to.
    pub(super) pieces: Vec<Piece>,
    len: usize,
}

impl Destination {
    /// Adds what is stored to next.
    fn push(&mut self, seg: Segment) -> Result<()> {
        self.push_to(0, self.len, seg)?;
        self.len += seg.len;
        Ok(())
    }

    /// Adds a part of a range, `at` bytes into it.
    pub(super) fn push_to(&mut self, range: usize, at: usize, seg: Segment) -> Result<()> {
        for mapping in shared_mapping::overlapping(seg).into_iter().filter(|mapping| mapping.needs_msync()) {
            let part = mapping.part_of(seg);
            let failures = mapping.failures().map_err(reopening_failed)?;
            self.pieces.try_reserve(1).map_err(|_| Error::NoMemory(size_of::<Piece>()))?;
            let at = at + (part.addr - seg.addr);
            self.pieces.push(Piece { range, at, seg: part, mapping, failures, mark: Mark::now() });
        }
        Ok(())
    }

    /// Writes out what was stored: of each range the first bytes, as many as `done` says.
    pub(super) fn write_out(&self, done: impl Fn(usize) -> usize) -> Result<()> {
        let stored = |piece: &Piece| piece.stored(done(piece.range));
        let mut order: Vec<&Piece> = Vec::new();
        order.try_reserve(self.pieces.len()).map_err(|_| Error::NoMemory(size_of_val(&*self.pieces)))?;
        order.extend(self.pieces.iter().filter(|piece| stored(piece).len != 0));
        order.sort_unstable_by_key(|piece| piece.seg.addr);
        // A page, or neighbours, once.
        for run in
            order.chunk_by(|a, b| Arc::ptr_eq(&a.mapping, &b.mapping) && stored(b).addr <= stored(a).end() + PAGE_SIZE)
        {
            let start = run[0].seg.addr;
            let end = run.iter().map(|piece| stored(piece).end()).max().unwrap_or(start);
            // Noted for one piece after the other: the first has seen the fewest.
            let failures = run.iter().map(|piece| piece.failures).min().unwrap_or(0);
            let synced = run[0].mapping.sync_since(failures, Segment::new(start, end - start));
            synced.map_err(|errno| msync_failed(end - start, errno))?;
        }
        Ok(())
    }

    /// Makes the first `done` bytes durable. Returns how many of them are, and why not all: a file that was cut holds
    /// no more.
    fn sync(&self, done: usize) -> Result<Outcome> {
        self.write_out(|_| done)?;
        for piece in &self.pieces {
            if let Some(cut) = piece.cut(done)? {
                return Ok((cut.offset, Some(Box::new(cut))));
            }
        }
        Ok((done, None))
    }
}

impl Piece {
    /// What the copy stored here, if it stored the first `done` bytes of the range.
    fn stored(&self, done: usize) -> Segment {
        self.seg.take(done.saturating_sub(self.at))
    }

    /// Where what was stored is lost, if its file was cut, or if a guard had some of it under zeroes.
    pub(super) fn cut(&self, done: usize) -> Result<Option<Fault>> {
        let seg = self.stored(done);
        if seg.len == 0 {
            return Ok(None);
        }
        let held = self.mapping.held_by_file(seg).map_err(|errno| msync_failed(seg.len, errno))?;
        let lost = Segment::new(seg.addr + held, self.mapping.seg().end() - seg.addr - held);
        if let Some(mut met) = self.mark.fault(seg.take(held), Side::Destination) {
            met.offset += self.at;
            return Ok(Some(met));
        }
        Ok((held < seg.len).then(|| Fault::cut(Side::Destination, lost, self.at + held)))
    }
}

/// Whether any memory of this process needs an msync. If not, the copies here are those of [`crate::copy::flushcache`].
pub fn may_need_msync() -> bool {
    shared_mapping::any_needs_msync()
}

/// Runs a copy between flat memory and an iterator, which stands where it stood if what was copied cannot be made
/// durable.
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

/// `copy_from_iter_flushcache` to any memory. An error if what needs an msync cannot be made durable: nothing counts.
pub fn copy_from_iter_flushcache(dst: Memory, i: &mut IovIter, nbytes: usize) -> Result<usize> {
    from_iter(dst, i, nbytes, |i| flushcache::copy_from_iter_flushcache(dst, i, nbytes))
}

/// The same with `copy` for the copy, which is of so many bytes.
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

/// `copy_to_iter_flushcache` to any memory; an error as from [`copy_from_iter_flushcache`]. The pages of an XArray or a
/// FolioQueue are looked up before the copy: one that another thread puts there meanwhile is not synced.
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

/// `memcpy_flushcache` to any memory; an error as from [`copy_from_iter_flushcache`].
pub fn memcpy_flushcache(dst: Memory, src: Memory) -> Result<Outcome> {
    flat(dst, || flushcache::memcpy_flushcache(dst, src))
}

/// The same with `copy` for the copy.
pub(super) fn flat(dst: Memory, copy: impl FnOnce() -> Result<Outcome>) -> Result<Outcome> {
    let mut destination = Destination::default();
    if may_need_msync() {
        destination.push(dst.seg())?;
    }
    let (done, fault) = copy()?;
    let (durable, lost) = destination.sync(done)?;
    Ok((durable, lost.or(fault)))
}
