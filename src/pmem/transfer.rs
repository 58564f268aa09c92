//! Copies into a region, durable when they return, and out of it, careful of what is known to be bad.

use super::Granularity;
use super::mapping::Mapping;
use crate::abi::{Direction, Kind};
use crate::arch::LINE;
use crate::copy::flushcache::{copy_from_iter_flushcache, copy_from_iter_nocache, memcpy_flushcache, memcpy_nocache};
use crate::copy::framed::copy_framed_from_iter;
use crate::copy::mcsafe::{copy_to_iter_mcsafe, learned, memcpy_mcsafe};
use crate::copy::{Outcome, copy_from_iter, memcpy};
use crate::error::{Error, Result};
use crate::fault::map::Access;
use crate::fault::map::shared::KnownBad;
use crate::fault::{Cause, Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};

/// From here on what msync is going to write out is better not left in the caches: it is read by a device, or by
/// nobody.
const NONTEMPORAL_FROM: usize = 256 << 10;

/// What of a fault is damage of a region that is worth remembering: poison, and what its file holds and cannot be had,
/// which before Linux 6.6 is how poison on DAX looks. What a cut file no longer holds is not: the file may grow again.
/// Where a copy went to is somebody else's memory. `in_file` says what of the region its file holds now.
fn damage(
    (seg, access): (Segment, Access),
    cause: Cause,
    region: Segment,
    in_file: impl FnOnce() -> Segment,
) -> Option<(Segment, Access)> {
    let (start, end) = (seg.addr.max(region.addr), seg.end().min(region.end()));
    let is_damage = match cause {
        Cause::Poison => true,
        Cause::Gone => in_file().overlaps(Segment::new(start, 1)),
        Cause::Protection | Cause::Unmapped | Cause::BadAddress | Cause::Unknown => false,
    };
    (is_damage && start < end).then(|| (Segment::new(start, end - start), access))
}

impl Mapping {
    fn require_writable(&self) -> Result<()> {
        if self.opened().writable() { Ok(()) } else { Err(Error::ReadOnlyRegion) }
    }

    /// Copies flat memory into the region, as if all of it had been read first. Returns the bytes copied, which are
    /// durable, and why not all. If they cannot be made durable, that is the error and nothing counts.
    pub fn write(&self, offset: usize, src: Memory) -> Result<Outcome> {
        self.require_writable()?;
        let dst = self.range(offset, src.len())?;
        if self.granularity() != Granularity::Page {
            return memcpy_flushcache(dst, src);
        }
        let is_nontemporal = src.len() >= NONTEMPORAL_FROM;
        // What was overwritten cannot be read again.
        let may_repeat = !src.seg().overlaps(dst.seg());
        self.store_durably(
            offset,
            may_repeat,
            || {
                if is_nontemporal { memcpy_nocache(dst, src) } else { memcpy(dst, src) }
            },
        )
    }

    /// Copies all that is left of an iterator into the region. It advances by the bytes copied, which are durable; bad
    /// memory leaves its reason in `i.fault`. If they cannot be made durable, that is the error, and it stands where it
    /// stood.
    pub fn write_from(&self, offset: usize, i: &mut IovIter) -> Result<usize> {
        self.require_writable()?;
        i.require(Direction::Source, "write")?;
        let nbytes = i.count();
        let dst = self.range(offset, nbytes)?;
        if self.granularity() != Granularity::Page {
            return copy_from_iter_flushcache(dst, i, nbytes);
        }
        let copy = if nbytes >= NONTEMPORAL_FROM { copy_from_iter_nocache } else { copy_from_iter };
        let may_repeat = !i.overlaps(dst.seg(), nbytes);
        let before = i.count();
        let stored = self.store_durably(offset, may_repeat, || {
            i.take_back(before - i.count())?;
            let done = copy(dst, i, nbytes)?;
            Ok((done, i.fault.take()))
        });
        let durable = stored.as_ref().map_or(0, |(durable, _)| *durable);
        i.take_back(before - i.count() - durable)?;
        i.fault = stored?.1;
        Ok(durable)
    }

    /// Writes a line of the caller's and all that is left of an iterator behind it, `len` bytes in whole lines, in one
    /// copy with one fence. Returns `len` if all of it is durable; otherwise 0 or less than that, and why, with the
    /// iterator where it stood. An error as from [`Self::write`].
    pub fn write_framed(
        &self,
        offset: usize,
        len: usize,
        i: &mut IovIter,
        line: impl Fn(u32) -> [u8; LINE],
    ) -> Result<Outcome> {
        self.require_writable()?;
        let dst = self.range(offset, len)?;
        if self.granularity() != Granularity::Page {
            return copy_framed_from_iter(dst, i, true, line);
        }
        let before = i.count();
        let stored = self.store_durably(offset, true, || {
            i.take_back(before - i.count())?;
            copy_framed_from_iter(dst, i, false, &line)
        });
        if !matches!(stored, Ok((done, None)) if done == len) {
            i.take_back(before - i.count())?;
        }
        stored
    }

    /// What a fault in a copy out of the region tells of damage to it that no map knew: for the caller to add to the
    /// region's map.
    pub fn damage(&self, fault: &Fault) -> Option<(Segment, Access)> {
        damage(learned(fault)?, fault.cause(), self.seg(), || self.in_file().unwrap_or_default())
    }

    /// How much of what was read from a range is the file's, and what the rest is: the page that a cut file ends in
    /// reads as zeroes behind it.
    fn of_the_file(&self, range: Memory, read: Outcome) -> Result<Outcome> {
        let (done, fault) = read;
        let held = self.in_file()?.end().saturating_sub(range.seg().addr);
        if done <= held {
            return Ok((done, fault));
        }
        let lost = self.seg().skip(range.seg().addr + held - self.seg().addr);
        Ok((held, Some(Box::new(Fault::cut(Side::Source, lost, held)))))
    }

    /// Copies out of the region into flat memory, up to what the map knows to be bad or turns out to be.
    pub fn read<K: KnownBad + ?Sized>(&self, offset: usize, dst: Memory, map: &K) -> Result<Outcome> {
        let range = self.range(offset, dst.len())?;
        self.of_the_file(range, memcpy_mcsafe(dst, range, Some(map))?)
    }

    /// Copies out of the region into all that is left of an iterator, up to what the map knows to be bad or turns out
    /// to be. Returns the bytes copied, by which it advances.
    pub fn read_into<K: KnownBad + ?Sized>(&self, offset: usize, i: &mut IovIter, map: &K) -> Result<usize> {
        i.require(Direction::Dest, "read_into")?;
        let nbytes = i.count();
        let range = self.range(offset, nbytes)?;
        let done = copy_to_iter_mcsafe(range, i, nbytes, Some(map))?;
        if i.kind() == Kind::Discard {
            // Nothing was read for it.
            return Ok(done);
        }
        let (held, fault) = self.of_the_file(range, (done, i.fault.take()))?;
        i.take_back(done - held)?;
        i.fault = fault;
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Cause, Segment, damage};

    #[test]
    fn only_damage_of_the_region_itself_is_remembered() {
        let region = Segment::new(4096, 5000);
        let found = |start, cause| {
            let fault = (Segment::new(start, 4096), Access::Read);
            damage(fault, cause, region, || Segment::new(4096, 4096)).map(|(seg, access)| {
                assert_eq!(access, Access::Read);
                seg
            })
        };
        assert_eq!(found(8192, Cause::Gone), None);
        for cause in [Cause::Unmapped, Cause::Protection, Cause::BadAddress, Cause::Unknown] {
            assert_eq!(found(4096, cause), None);
        }
        for start in [0, 9096, 12288] {
            assert_eq!(found(start, Cause::Poison), None);
        }
        assert_eq!(found(4096, Cause::Gone), Some(Segment::new(4096, 4096)));
        assert_eq!(found(8192, Cause::Poison), Some(Segment::new(8192, 904)));
    }
}
