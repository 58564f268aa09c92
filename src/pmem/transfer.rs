//! Copies into a region, durable when they return, and out of it, careful of what is known to be bad.

use super::Granularity;
use super::mapping::Mapping;
use crate::abi::Direction;
use crate::copy::durable::{copy_from_iter_flushcache, copy_from_iter_nocache, memcpy_flushcache, memcpy_nocache};
use crate::copy::mcsafe::{KnownBad, Touch, copy_to_iter_mcsafe, memcpy_mcsafe};
use crate::copy::{Outcome, copy_from_iter};
use crate::error::{Error, Result};
use crate::fault::Cause;
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};

/// From here on what msync is going to write out is better not in the caches: it is read by a device, or by nobody.
const PAST_CACHES: usize = 256 << 10;

/// A region's map, to which copies add only damage, and only the region's own: a file that was cut may grow again, and where they copied to
/// is somebody else's memory. What its file holds and cannot be had is damage, too: before Linux 6.6 poison on DAX looks like that.
struct OwnDamage<'m, K: ?Sized, F> {
    region: Segment,
    /// What of the region its file holds now.
    in_file: F,
    map: &'m K,
}

impl<K: KnownBad + ?Sized, F: Fn() -> Segment + Sync> KnownBad for OwnDamage<'_, K, F> {
    fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    fn is_clear(&self, asked: [(Segment, Touch); 2]) -> bool {
        self.map.is_clear(asked)
    }

    fn first_bad(&self, seg: Segment, touch: Touch) -> Option<Segment> {
        self.map.first_bad(seg, touch)
    }

    fn record(&self, seg: Segment, touch: Touch, cause: Cause) {
        let (start, end) = (seg.addr.max(self.region.addr), seg.end().min(self.region.end()));
        let is_damage = match cause {
            Cause::Poison => true,
            Cause::Gone => (self.in_file)().overlaps(Segment::new(start, 1)),
            _ => false,
        };
        if is_damage && start < end {
            self.map.record(Segment::new(start, end - start), touch, cause);
        }
    }
}

impl Mapping {
    fn require_writable(&self) -> Result<()> {
        if self.opened().writable() { Ok(()) } else { Err(Error::ReadOnlyRegion) }
    }

    /// Copies flat memory into the region, as if all of it had been read first. Returns the bytes copied, which are durable, and why not all.
    /// If they cannot be made durable, that is the error and nothing counts.
    pub fn write(&self, offset: usize, src: Memory) -> Result<Outcome> {
        self.require_writable()?;
        let dst = self.range(offset, src.len())?;
        if self.granularity() != Granularity::Page {
            return memcpy_flushcache(dst, src);
        }
        let past_caches = src.len() >= PAST_CACHES;
        let (done, fault) =
            if past_caches { memcpy_nocache(dst, src)? } else { memcpy_mcsafe(dst, src, None::<&dyn KnownBad>)? };
        let (durable, lost) = self.persist(self.range(offset, done)?)?;
        Ok((durable, lost.or(fault)))
    }

    /// Copies all that is left of an iterator into the region. It advances by the bytes copied, which are durable; bad memory leaves
    /// its reason in `i.fault`. If they cannot be made durable, that is the error, and it stands where it stood.
    pub fn write_from(&self, offset: usize, i: &mut IovIter) -> Result<usize> {
        self.require_writable()?;
        i.require(Direction::Source, "write")?;
        let nbytes = i.count();
        let dst = self.range(offset, nbytes)?;
        if self.granularity() != Granularity::Page {
            return copy_from_iter_flushcache(dst, i, nbytes);
        }
        let copy = if nbytes >= PAST_CACHES { copy_from_iter_nocache } else { copy_from_iter };
        let done = copy(dst, i, nbytes)?;
        match self.persist(self.range(offset, done)?) {
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

    fn own_damage<K: KnownBad + ?Sized>(&self, map: &K) -> impl KnownBad {
        OwnDamage { region: self.seg(), in_file: || self.in_file().unwrap_or_default(), map }
    }

    /// Copies out of the region into flat memory, up to what the map knows to be bad or turns out to be.
    pub fn read<K: KnownBad + ?Sized>(&self, offset: usize, dst: Memory, map: &K) -> Result<Outcome> {
        let map = self.own_damage(map);
        memcpy_mcsafe(dst, self.range(offset, dst.len())?, Some(&map))
    }

    /// Copies out of the region into all that is left of an iterator, up to what the map knows to be bad or turns out to be. Returns the bytes
    /// copied, by which it advances.
    pub fn read_into<K: KnownBad + ?Sized>(&self, offset: usize, i: &mut IovIter, map: &K) -> Result<usize> {
        i.require(Direction::Dest, "read_into")?;
        let nbytes = i.count();
        let map = self.own_damage(map);
        copy_to_iter_mcsafe(self.range(offset, nbytes)?, i, nbytes, Some(&map))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, KnownBad, OwnDamage, Segment, Touch};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<Segment>>);

    impl KnownBad for Recorded {
        fn is_empty(&self) -> bool {
            false
        }

        fn is_clear(&self, _asked: [(Segment, Touch); 2]) -> bool {
            true
        }

        fn first_bad(&self, _seg: Segment, _touch: Touch) -> Option<Segment> {
            None
        }

        fn record(&self, seg: Segment, _touch: Touch, _cause: Cause) {
            self.0.lock().unwrap().push(seg);
        }
    }

    #[test]
    fn only_damage_of_the_region_itself_is_remembered() {
        let map = Recorded::default();
        let own = OwnDamage { region: Segment::new(4096, 5000), in_file: || Segment::new(4096, 4096), map: &map };
        own.record(Segment::new(8192, 4096), Touch::Read, Cause::Gone);
        for cause in [Cause::Unmapped, Cause::Protection, Cause::BadAddress, Cause::Unknown] {
            own.record(Segment::new(4096, 4096), Touch::Read, cause);
        }
        for start in [0, 9096, 12288] {
            own.record(Segment::new(start, 4096), Touch::Any, Cause::Poison);
        }
        assert_eq!(*map.0.lock().unwrap(), []);
        own.record(Segment::new(4096, 4096), Touch::Read, Cause::Gone);
        own.record(Segment::new(8192, 4096), Touch::Any, Cause::Poison);
        assert_eq!(*map.0.lock().unwrap(), [Segment::new(4096, 4096), Segment::new(8192, 904)]);
    }
}
