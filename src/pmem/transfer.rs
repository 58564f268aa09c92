//! Copies into a region, which are durable when they return, and copies out of it, which avoid memory known to be bad.

use super::Granularity;
use super::mapping::Mapping;
use super::summed::{self, durable_part};
use crate::abi::{Direction, Kind};
use crate::arch::LINE;
use crate::copy::Outcome;
use crate::copy::framed::copy_framed_from_iter;
use crate::copy::mcsafe::learned;
use crate::copy::sums::Sums;
use crate::error::{Error, Result};
use crate::fault::map::Access;
use crate::fault::map::shared::KnownBad;
use crate::fault::{Cause, Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};

/// The length in bytes from which a copy before an msync is nontemporal: the device reads the pages from memory, so
/// leaving them in the caches would only displace other data.
const NONTEMPORAL_FROM: usize = 256 << 10;

/// The part of a fault that is lasting damage of a region, to be added to its map. That is poison, and bytes that the
/// file has but that cannot be read: before Linux 6.6, poison on DAX looks like that. Bytes behind the end of a
/// truncated file are not damage, since the file may grow again. Nor are faults outside the region. `in_file` returns
/// the part of the region that its file has now.
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

    /// Copies flat memory into the region; the two may overlap, as in `memmove`. Returns how many bytes were copied and
    /// are durable, with the fault if not all are. An error if they cannot be made durable: then no byte counts. `crc`,
    /// if given, is extended by the bytes that count.
    pub fn write(&self, offset: usize, src: Memory, mut crc: Option<&mut u32>) -> Result<Outcome> {
        self.require_writable()?;
        let dst = self.range(offset, src.len())?;
        if self.granularity() != Granularity::Page {
            return summed::memcpy_flushcache(dst, src, crc);
        }
        let is_nontemporal = src.len() >= NONTEMPORAL_FROM;
        // The store cannot be repeated if it has overwritten its source.
        let may_repeat = !src.seg().overlaps(dst.seg());
        let before = crc.as_deref().copied();
        let mut stored = 0;
        let durable = self.store_durably(offset, may_repeat, || {
            let mut sum = before;
            let copy = if is_nontemporal { summed::memcpy_nocache } else { summed::memcpy };
            let outcome = copy(dst, src, sum.as_mut())?;
            stored = outcome.0;
            summed::keep(&mut crc, sum);
            Ok(outcome)
        })?;
        durable_part(dst, stored, durable, before, crc)
    }

    /// Copies the rest of an iterator into the region. The iterator advances by the bytes copied, which are durable;
    /// `i.fault` says why not all were. An error if they cannot be made durable: then the iterator has not moved.
    /// `crc`, if given, is extended by the bytes that count.
    pub fn write_from(&self, offset: usize, i: &mut IovIter, mut crc: Option<&mut u32>) -> Result<usize> {
        self.require_writable()?;
        i.require(Direction::Source, "write")?;
        let nbytes = i.count();
        let dst = self.range(offset, nbytes)?;
        if self.granularity() != Granularity::Page {
            return summed::copy_from_iter_flushcache(dst, i, nbytes, crc);
        }
        let copy = if nbytes >= NONTEMPORAL_FROM { summed::copy_from_iter_nocache } else { summed::copy_from_iter };
        let may_repeat = !i.overlaps(dst.seg(), nbytes);
        let count = i.count();
        let before = crc.as_deref().copied();
        let mut stored = 0;
        let durable = self.store_durably(offset, may_repeat, || {
            i.take_back(count - i.count())?;
            let mut sum = before;
            stored = copy(dst, i, nbytes, sum.as_mut())?;
            summed::keep(&mut crc, sum);
            Ok((stored, i.fault.take()))
        });
        let durable = durable.and_then(|durable| durable_part(dst, stored, durable, before, crc));
        let nbytes = durable.as_ref().map_or(0, |(nbytes, _)| *nbytes);
        i.take_back(count - i.count() - nbytes)?;
        i.fault = durable?.1;
        Ok(nbytes)
    }

    /// Writes a cache line that the caller computes from the data's sums, and behind it the rest of an iterator:
    /// `len` bytes, whole cache lines, in one copy with one fence. Returns `len` if all of it is durable. Otherwise it
    /// returns less, with the fault, and the iterator has not moved. Errors as for [`Self::write`].
    pub fn write_framed(
        &self,
        offset: usize,
        len: usize,
        i: &mut IovIter,
        line: impl Fn(Sums) -> [u8; LINE],
    ) -> Result<Outcome> {
        self.require_writable()?;
        let dst = self.range(offset, len)?;
        if self.granularity() != Granularity::Page {
            return copy_framed_from_iter(dst, i, true, line);
        }
        let before = i.count();
        let may_repeat = !i.overlaps(dst.seg(), before);
        let stored = self.store_durably(offset, may_repeat, || {
            i.take_back(before - i.count())?;
            copy_framed_from_iter(dst, i, false, &line)
        });
        if !matches!(stored, Ok((done, None)) if done == len) {
            i.take_back(before - i.count())?;
        }
        stored
    }

    /// The damage of the region that a fault in a copy out of it has revealed, for the caller to add to the region's
    /// map.
    pub fn damage(&self, fault: &Fault) -> Option<(Segment, Access)> {
        damage(learned(fault)?, fault.cause(), self.seg(), || self.in_file().unwrap_or_default())
    }

    /// Reduces the outcome of a read to the bytes that the file has. In the page in which a truncated file ends, the
    /// bytes behind the end read as zeroes without a fault.
    fn of_the_file(&self, range: Memory, read: Outcome) -> Result<Outcome> {
        let (done, fault) = read;
        let held = self.in_file()?.end().saturating_sub(range.seg().addr);
        if done <= held {
            return Ok((done, fault));
        }
        let lost = self.seg().skip(range.seg().addr + held - self.seg().addr);
        Ok((held, Some(Box::new(Fault::truncated(Side::Source, lost, held)))))
    }

    /// Copies out of the region into flat memory, up to the first byte that the map lists as bad or that faults. `crc`,
    /// if given, is extended by the bytes copied.
    pub fn read<K: KnownBad + ?Sized>(
        &self,
        offset: usize,
        dst: Memory,
        map: &K,
        mut crc: Option<&mut u32>,
    ) -> Result<Outcome> {
        let range = self.range(offset, dst.len())?;
        let before = crc.as_deref().copied();
        let (mut wanted, mut stopped_by) = (range.len(), None);
        loop {
            let mut sum = before;
            let read = summed::memcpy_mcsafe(dst.take(wanted), range.take(wanted), map, sum.as_mut())?;
            let done = read.0;
            let (held, fault) = self.of_the_file(range, read)?;
            stopped_by = fault.or(stopped_by);
            if held == done || before.is_none() {
                summed::keep(&mut crc, sum);
                return Ok((held, stopped_by));
            }
            // The checksum covers bytes that the file no longer had. Read again, only the bytes that it had.
            wanted = held;
        }
    }

    /// Copies out of the region into the rest of an iterator, up to the first byte that the map lists as bad or that
    /// faults. The iterator advances by the bytes copied, whose number is returned. `crc`, if given, is extended by
    /// them.
    pub fn read_into<K: KnownBad + ?Sized>(
        &self,
        offset: usize,
        i: &mut IovIter,
        map: &K,
        mut crc: Option<&mut u32>,
    ) -> Result<usize> {
        i.require(Direction::Dest, "read_into")?;
        let range = self.range(offset, i.count())?;
        let before = crc.as_deref().copied();
        let (mut wanted, mut stopped_by) = (range.len(), None);
        loop {
            let mut sum = before;
            let done = summed::copy_to_iter_mcsafe(range, i, wanted, map, sum.as_mut())?;
            if i.kind() == Kind::Discard && before.is_none() {
                // DISCARD counts without reading, so the file's length does not matter.
                return Ok(done);
            }
            let (held, fault) = self.of_the_file(range, (done, i.fault.take()))?;
            stopped_by = fault.or(stopped_by);
            if held == done || before.is_none() {
                summed::keep(&mut crc, sum);
                i.take_back(done - held)?;
                i.fault = stopped_by;
                return Ok(held);
            }
            // As in `read`: the checksum covers too many bytes.
            i.take_back(done)?;
            wanted = held;
        }
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
