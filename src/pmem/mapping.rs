//! A mapped region, and the steps that make stores to it durable.

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

/// How often a copy is stored and synced, at most, before the failure is taken to be of its own pages.
const ATTEMPTS: usize = 4;

/// A mapped region.
pub struct Mapping {
    opened: Opened,
    part: Part,
    shared: Arc<SharedMapping>,
    granularity: Granularity,
}

impl Mapping {
    /// Maps `part`, which `opened` has reserved. `caches_persist` says that the CPU caches keep their contents through
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

    /// The address range of the region's bytes.
    pub fn seg(&self) -> Segment {
        self.shared.seg().take(self.part.len)
    }

    /// Where in the file the mapping begins, and its length in whole pages, which are a device's.
    pub(crate) fn pages(&self) -> (u64, usize) {
        (self.part.offset, self.part.mapped)
    }

    /// Whether the mapping has `MAP_SYNC`.
    pub fn is_sync(&self) -> bool {
        self.shared.is_map_sync()
    }

    /// The step that makes a store to it durable.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The mapped file.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Translates a list of the file's bad bytes to addresses of this mapping. In a file, the whole page around a bad
    /// byte is bad, because the kernel cannot read it into memory. On a device only loads of the bad bytes themselves
    /// fail.
    pub fn known_bad(&self, file: &FaultMap) -> Result<FaultMap> {
        let seg = self.seg();
        let piece = Piece { from: usize::try_from(self.part.offset).unwrap_or(usize::MAX), to: seg.addr, len: seg.len };
        match self.opened.character_device() {
            Some(_) => moved(file, [piece]),
            None => moved(&widened(file, PAGE_SIZE)?, [piece]),
        }
    }

    /// A range of the region. The caller uses it no longer than the mapping lives.
    pub(crate) fn range(&self, offset: usize, length: usize) -> Result<Memory> {
        let whole = self.seg();
        // SAFETY: `shared` keeps the mapping until it is dropped, and every caller in this crate uses the memory only
        // while it borrows `self`; the file may shrink meanwhile, which `Backing::Mapping` allows for.
        let memory = unsafe { Memory::new(whole, Backing::Mapping) };
        memory.range(offset, length).ok_or(Error::BeyondRegion { offset, length, limit: whole.len })
    }

    /// Makes the stores to a range durable, by the step that its granularity needs. Returns how many bytes from its
    /// start on are durable, with the fault if not all are: msync also succeeds for the page in which a truncated file
    /// ends, although bytes stored behind that end are lost. An error if a write-back has failed that `caller` has not
    /// reported to this thread yet.
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

    /// The number of failed write-backs so far. In a forked child the first call opens the file again.
    fn failures(&self) -> Result<u64> {
        self.shared.failures().map_err(reopening_failed)
    }

    /// Stores to the region and makes the stores durable, for [`Granularity::Page`]. `store` returns how many bytes it
    /// stored from `offset` on, with the fault if it stopped early.
    ///
    /// A failed sync does not say whose pages failed. So if `may_repeat`, the store and the sync are repeated while no
    /// other sync of this process runs ([`SharedMapping::store_alone`]), up to [`ATTEMPTS`] times in all: a failure
    /// elsewhere was consumed by then, one under these pages comes back. Storing again is necessary, because a page
    /// whose write-back failed is marked clean, and another msync would not write it.
    ///
    /// Returns how many of the bytes stored are durable, with the fault if not all are.
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

    /// The part of the region that its file has now: all of it, unless the file was truncated.
    pub(super) fn in_file(&self) -> Result<Segment> {
        if self.opened.character_device().is_some() {
            return Ok(self.seg());
        }
        let held = self.shared.held_by_file(self.seg()).map_err(|errno| failed_with("fstat", errno))?;
        Ok(self.seg().take(held))
    }

    /// How many bytes from byte `offset` of the region on are in a hole of the file, and so are zero. It is 0 where the
    /// file system does not say.
    pub(crate) fn hole_at(&self, offset: usize) -> usize {
        if self.opened.character_device().is_some() { 0 } else { self.shared.hole_at(offset) }
    }

    /// How many bytes of a range of the region the file has now, with a fault if some are lost.
    fn within_file(&self, seg: Segment) -> Result<Outcome> {
        let region = self.seg();
        let held = self.in_file()?.end().saturating_sub(seg.addr).min(seg.len);
        if held == seg.len {
            return Ok((held, None));
        }
        let address = seg.addr + held;
        let lost = Segment::new(address, region.end() - address);
        Ok((held, Some(Box::new(Fault::truncated(Side::Destination, lost, held)))))
    }

    /// `msync` of the whole region, then `fsync`: stores then have left every buffer before the medium. A device needs
    /// neither. Returns the fault of the first page that a guard has replaced by zeroes, if any.
    pub fn sync_all(&self) -> Result<Option<Fault>> {
        let (seg, mark) = (self.seg(), Mark::now());
        if self.opened.character_device().is_none() {
            self.failures()?;
            self.shared.sync_file(Caller::DeepFlush, seg).map_err(|errno| msync_failed(seg.len, errno))?;
        }
        Ok(mark.fault(seg, Side::Destination))
    }
}

/// Reduces the outcome of a sync to the bytes before the first page that a guard has replaced by zeroes since the mark.
/// Stores to such a page are lost, and stores made before are in a page that the sync did not see.
pub(super) fn beside_guards(mark: Mark, range: Segment, (done, fault): Outcome) -> Outcome {
    match mark.fault(range.take(done), Side::Destination) {
        Some(fault) => (fault.offset, Some(Box::new(fault))),
        None => (done, fault),
    }
}

pub(super) fn reopening_failed(errno: i32) -> Error {
    failed_with("the file cannot be opened again, as a forked process has to", errno)
}

pub(super) fn msync_failed(nbytes: usize, errno: i32) -> Error {
    failed_with(&format!("msync of {nbytes} bytes"), errno)
}
