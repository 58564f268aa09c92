//! Copies into a region, durable when they return, and out of it, careful of what is known to be bad.

use super::Granularity;
use super::mapping::Mapping;
use crate::copy::durable::{copy_from_iter_flushcache, copy_from_iter_nocache, memcpy_flushcache, memcpy_nocache};
use crate::copy::mcsafe::{KnownBad, Touch, copy_to_iter_mcsafe, memcpy_mcsafe};
use crate::copy::{Outcome, copy_from_iter};
use crate::error::{Error, Result};
use crate::fault::Cause;
use crate::iter::{Direction, IovIter};
use crate::segment::{Flat, Segment};

/// From here on what msync is going to write out is better not in the caches: it is read by a device, or by nobody.
const PAST_CACHES: usize = 256 << 10;

/// A region's map, to which copies add only poison, and only the region's own: a file that was cut may grow again, and where they copied to
/// is somebody else's memory.
struct OwnPoison<'m, K: ?Sized> {
    region: Segment,
    map: &'m K,
}

impl<K: KnownBad + ?Sized> KnownBad for OwnPoison<'_, K> {
    fn is_clear(&self, asked: [(Segment, Touch); 2]) -> bool {
        self.map.is_clear(asked)
    }

    fn first_bad(&self, seg: Segment, touch: Touch) -> Option<Segment> {
        self.map.first_bad(seg, touch)
    }

    fn record(&self, seg: Segment, touch: Touch, cause: Cause) {
        let (start, end) = (seg.addr.max(self.region.addr), seg.end().min(self.region.end()));
        if cause == Cause::Poison && start < end {
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
    pub fn write(&self, offset: usize, src: Flat) -> Result<Outcome> {
        self.require_writable()?;
        let dst = self.range(offset, src.seg.len)?;
        if self.granularity() != Granularity::Page {
            return memcpy_flushcache(dst, src);
        }
        let past_caches = src.seg.len >= PAST_CACHES;
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

    /// Copies out of the region into flat memory, up to what the map knows to be bad or turns out to be.
    pub fn read<K: KnownBad + ?Sized>(&self, offset: usize, dst: Flat, map: &K) -> Result<Outcome> {
        let map = OwnPoison { region: self.seg(), map };
        memcpy_mcsafe(dst, self.range(offset, dst.seg.len)?, Some(&map))
    }

    /// Copies out of the region into all that is left of an iterator, up to what the map knows to be bad or turns out to be. Returns the bytes
    /// copied, by which it advances.
    pub fn read_into<K: KnownBad + ?Sized>(&self, offset: usize, i: &mut IovIter, map: &K) -> Result<usize> {
        i.require(Direction::Dest, "read_into")?;
        let nbytes = i.count();
        let map = OwnPoison { region: self.seg(), map };
        copy_to_iter_mcsafe(self.range(offset, nbytes)?, i, nbytes, Some(&map))
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, KnownBad, OwnPoison, Segment, Touch};
    use std::sync::Mutex;

    #[derive(Default)]
    struct Recorded(Mutex<Vec<Segment>>);

    impl KnownBad for Recorded {
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
    fn only_poison_of_the_region_itself_is_remembered() {
        let map = Recorded::default();
        let own = OwnPoison { region: Segment::new(4096, 5000), map: &map };
        for cause in [Cause::Gone, Cause::Unmapped, Cause::Protection, Cause::BadAddress, Cause::Unknown] {
            own.record(Segment::new(4096, 4096), Touch::Read, cause);
        }
        for start in [0, 9096, 12288] {
            own.record(Segment::new(start, 4096), Touch::Any, Cause::Poison);
        }
        assert_eq!(*map.0.lock().unwrap(), []);
        own.record(Segment::new(4096, 4096), Touch::Any, Cause::Poison);
        own.record(Segment::new(8192, 4096), Touch::Any, Cause::Poison);
        assert_eq!(*map.0.lock().unwrap(), [Segment::new(4096, 4096), Segment::new(8192, 904)]);
    }
}
