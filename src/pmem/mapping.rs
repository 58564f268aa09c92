//! A mapped region, and what makes stores to it durable.

use super::Granularity;
use super::bad::{Piece, moved, widened};
use super::file::{Opened, failed_with};
use super::part::Part;
use crate::abi::PAGE_SIZE;
use crate::copy::{Outcome, flushcache};
use crate::error::{Error, Result};
use crate::fault::map::FaultMap;
use crate::fault::shelter::Mark;
use crate::fault::{Fault, Side};
use crate::memory::{Backing, Memory, Segment};
use crate::sys::shared_mapping::{Caller, SharedMapping};
use std::sync::Arc;

/// How often `write` stores before it takes its own pages for those that cannot be written.
const ATTEMPTS: usize = 4;

/// A mapped region.
pub struct Mapping {
    opened: Opened,
    part: Part,
    shared: Arc<SharedMapping>,
    granularity: Granularity,
}

impl Mapping {
    /// Maps a part that was reserved of what was opened. `caches_persist` says that the caches above its memory outlive
    /// a loss of power.
    pub fn new(opened: Opened, part: Part, caches_persist: bool) -> Result<Self> {
        let shared = SharedMapping::new(Arc::clone(opened.file()), part.offset, part.mapped, opened.writable())
            .map_err(|errno| failed_with("mmap", errno))?;
        let granularity = match (shared.is_map_sync() || opened.character_device().is_some(), caches_persist) {
            (true, true) => Granularity::Byte,
            (true, false) => Granularity::CacheLine,
            (false, _) => Granularity::Page,
        };
        let mut new = Self { opened, part, shared, granularity };
        new.opened.commit()?;
        Ok(new)
    }

    /// Where the region's bytes are.
    pub fn seg(&self) -> Segment {
        self.shared.seg().take(self.part.len)
    }

    /// Whether the mapping is `MAP_SYNC`.
    pub fn is_sync(&self) -> bool {
        self.shared.is_map_sync()
    }

    /// What makes a store to it durable.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// What is mapped.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The addresses of this mapping that a list of the file's bad bytes speaks of. A page with a bad byte in it cannot
    /// be mapped at all; a device is mapped whatever is in it, and only a load of the bad bytes fails.
    pub fn known_bad(&self, file: &FaultMap) -> Result<FaultMap> {
        let seg = self.seg();
        let piece = Piece { from: usize::try_from(self.part.offset).unwrap_or(usize::MAX), to: seg.addr, len: seg.len };
        match self.opened.character_device() {
            Some(_) => moved(file, [piece]),
            None => moved(&widened(file, PAGE_SIZE)?, [piece]),
        }
    }

    /// A range of the region, to be used no longer than the mapping lives.
    pub(crate) fn range(&self, offset: usize, length: usize) -> Result<Memory> {
        let whole = self.seg();
        // SAFETY: the mapping is ours until it is dropped, which every caller's copy comes before; its file may shrink
        // meanwhile.
        let memory = unsafe { Memory::new(whole, Backing::Mapping) };
        memory.range(offset, length).ok_or(Error::BeyondRegion { offset, length, limit: whole.len })
    }

    /// Makes what was stored to a range durable, as its granularity asks for. Returns the bytes of it that are, and why
    /// not all: msync is content with a page that a cut file ends in, and what was stored to it behind that end is
    /// lost. An error for every failed write-back that this thread was not told of by `caller`.
    pub fn persist(&self, caller: Caller, offset: usize, length: usize) -> Result<Outcome> {
        let range = self.range(offset, length)?;
        let mark = Mark::now();
        match self.granularity {
            Granularity::Byte => flushcache::drain(),
            Granularity::CacheLine => return flushcache::persist(range),
            Granularity::Page => {
                self.failures()?;
                self.shared.sync(caller, range.seg()).map_err(|errno| msync_failed(range.len(), errno))?;
                return Ok(beside_guards(mark, range.seg(), self.within_file(range.seg())?));
            }
        }
        Ok(beside_guards(mark, range.seg(), (range.len(), None)))
    }

    /// How many write-backs are known to have failed. In a forked child this opens the file again, if nothing did
    /// before.
    fn failures(&self) -> Result<u64> {
        self.shared.failures().map_err(reopening_failed)
    }

    /// Stores to the region and makes durable what was stored, for `Granularity::Page`. `store` returns what it stored
    /// from `offset` on, and why it came short; it is called again, if it may be, to tell a medium that fails under
    /// these pages from one that fails elsewhere. Returns the bytes stored that are durable, and why not all.
    pub(super) fn store_durably(
        &self,
        offset: usize,
        may_repeat: bool,
        mut store: impl FnMut() -> Result<Outcome>,
    ) -> Result<Outcome> {
        let stored = |stored: &Result<Outcome>| match stored {
            Ok((done, _)) => self.seg().skip(offset).take(*done),
            Err(_) => Segment::default(),
        };
        let failures = self.failures()?;
        let mark = Mark::now();
        let (done, fault) = store()?;
        let mut synced = self.shared.sync_since(failures, self.seg().skip(offset).take(done));
        let mut outcome = Ok((done, fault));
        let mut turn = None;
        for _ in 1..ATTEMPTS {
            if synced.is_ok() || !may_repeat {
                break;
            }
            turn.get_or_insert_with(SharedMapping::take_turn);
            (outcome, synced) = self.shared.store_alone(&mut store, stored).map_err(reopening_failed)?;
        }
        let (done, fault) = outcome?;
        synced.map_err(|errno| msync_failed(done, errno))?;
        let stored = self.seg().skip(offset).take(done);
        let (durable, lost) = beside_guards(mark, stored, self.within_file(stored)?);
        Ok((durable, lost.or(fault)))
    }

    /// What of the region its file holds now: all, unless it was cut.
    pub(super) fn in_file(&self) -> Result<Segment> {
        if self.opened.character_device().is_some() {
            return Ok(self.seg());
        }
        let held = self.shared.held_by_file(self.seg()).map_err(|errno| failed_with("fstat", errno))?;
        Ok(self.seg().take(held))
    }

    /// How many bytes of a range of the region the file holds, and what the rest is.
    fn within_file(&self, seg: Segment) -> Result<Outcome> {
        let region = self.seg();
        let held = self.in_file()?.end().saturating_sub(seg.addr).min(seg.len);
        if held == seg.len {
            return Ok((held, None));
        }
        let address = seg.addr + held;
        let lost = Segment::new(address, region.end() - address);
        Ok((held, Some(Box::new(Fault::cut(Side::Destination, lost, held)))))
    }

    /// `msync` over all of it, and `fsync`: stores leave every buffer on the way to the medium. Devices know neither.
    /// What a guard has under zeroes, if it has anything.
    pub fn sync_all(&self) -> Result<Option<Fault>> {
        let (seg, mark) = (self.seg(), Mark::now());
        if self.opened.character_device().is_none() {
            self.failures()?;
            self.shared.sync_file(Caller::DeepFlush, seg).map_err(|errno| msync_failed(seg.len, errno))?;
        }
        Ok(mark.fault(seg, Side::Destination))
    }
}

/// What of a range's first bytes was written out, if a guard may have had some under zeroes since the mark: what is
/// stored to zeroes is lost, and what was stored before is not written out by way of them.
pub(super) fn beside_guards(mark: Mark, range: Segment, (done, fault): Outcome) -> Outcome {
    match mark.fault(range.take(done), Side::Destination) {
        Some(met) => (met.offset, Some(Box::new(met))),
        None => (done, fault),
    }
}

pub(super) fn reopening_failed(errno: i32) -> Error {
    failed_with("the file cannot be opened again, as a forked process has to", errno)
}

pub(super) fn msync_failed(nbytes: usize, errno: i32) -> Error {
    failed_with(&format!("msync of {nbytes} bytes"), errno)
}
