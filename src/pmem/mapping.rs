//! A mapped region, and what makes stores to it durable.

use super::Granularity;
use super::bad::{Piece, moved, widened};
use super::file::{Opened, Part, failed_with};
use crate::abi::PAGE_SIZE;
use crate::copy::{Outcome, flushcache};
use crate::error::{Error, Result};
use crate::fault::map::FaultMap;
use crate::fault::{Fault, Side};
use crate::memory::{Backing, Memory, Segment};
use crate::sys::mapping;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A shared mapping of a file or a DAX device. It is unmapped when it is dropped.
pub struct Mapping {
    opened: Opened,
    part: Part,
    whole: Segment,
    is_sync: bool,
    granularity: Granularity,
}

impl Mapping {
    /// Maps a part that was reserved of what was opened. `caches_last` says that the caches above its memory outlive a loss of power.
    pub fn new(opened: Opened, part: Part, caches_last: bool) -> Result<Self> {
        let (whole, is_sync) = mapping::map(opened.file(), part.offset, part.mapped, opened.writable())
            .map_err(|errno| failed_with("mmap", errno))?;
        let granularity = match (is_sync || opened.character_device().is_some(), caches_last) {
            (true, true) => Granularity::Byte,
            (true, false) => Granularity::CacheLine,
            (false, _) => Granularity::Page,
        };
        if granularity == Granularity::Page {
            synced_by_page().insert(whole.addr, whole.len);
        }
        let mut new = Self { opened, part, whole, is_sync, granularity };
        new.opened.settle()?;
        Ok(new)
    }

    /// Where the region's bytes are.
    pub fn seg(&self) -> Segment {
        self.whole.take(self.part.len)
    }

    /// Whether the mapping is `MAP_SYNC`.
    pub fn is_sync(&self) -> bool {
        self.is_sync
    }

    /// What makes a store to it durable.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// What is mapped.
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The addresses of this mapping that a list of the file's bad bytes speaks of. A page with a bad byte in it cannot be mapped at all; a
    /// device is mapped whatever is in it, and only a load of the bad bytes fails.
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
        // SAFETY: the mapping is ours until it is dropped, which every caller's copy comes before; its file may shrink meanwhile.
        let memory = unsafe { Memory::new(whole, Backing::Mapping) };
        memory.range(offset, length).ok_or(Error::BeyondRegion { offset, length, limit: whole.len })
    }

    /// Makes stores to a range durable, as its granularity asks for. Returns the bytes of it that are, and why not all: msync is content
    /// with a page that a cut file ends in, and what was stored to it behind that end is lost.
    pub(crate) fn persist(&self, range: Memory) -> Result<Outcome> {
        match self.granularity {
            Granularity::Byte => flushcache::drain(),
            Granularity::CacheLine => return flushcache::persist(range),
            Granularity::Page => {
                msync(range.seg())?;
                return self.within_file(range.seg());
            }
        }
        Ok((range.len(), None))
    }

    /// What of the region its file holds now: all, unless it was cut.
    pub(super) fn in_file(&self) -> Result<Segment> {
        if self.opened.character_device().is_some() {
            return Ok(self.seg());
        }
        let length = self.opened.length()?.saturating_sub(self.part.offset);
        Ok(self.seg().take(usize::try_from(length).unwrap_or(usize::MAX)))
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

    /// `msync` over all of it, and `fsync`: stores leave every buffer on the way to the medium. Not for devices, which know neither.
    pub fn sync_all(&self) -> Result<()> {
        msync(self.seg())?;
        self.opened.sync_all()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        synced_by_page().remove(&self.whole.addr);
        // SAFETY: mapped by `new` and used by nobody any more.
        unsafe { mapping::unmap(self.whole) };
    }
}

/// Whether stores to this memory are durable only after [`msync`]: it is a region's of that granularity.
pub fn needs_msync(seg: Segment) -> bool {
    let below = synced_by_page().range(..=seg.addr).next_back().map(|(addr, len)| Segment::new(*addr, *len));
    below.is_some_and(|below| below.overlaps(seg))
}

/// `msync` over every page that a range touches.
pub fn msync(seg: Segment) -> Result<()> {
    if seg.len == 0 {
        return Ok(());
    }
    mapping::sync(seg).map_err(|errno| failed_with(&format!("msync of {} bytes", seg.len), errno))
}

/// The mappings of this process that need `msync`, by address.
fn synced_by_page() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    static MAPPINGS: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());
    MAPPINGS.lock().unwrap_or_else(PoisonError::into_inner)
}
