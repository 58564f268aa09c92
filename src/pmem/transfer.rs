//! Copies into a region, durable when they return, and out of it, careful of what is known to be bad.

use super::Granularity;
use super::mapping::Mapping;
use crate::copy::durable::{copy_from_iter_flushcache, copy_from_iter_nocache, memcpy_flushcache, memcpy_nocache};
use crate::copy::mcsafe::{KnownBad, copy_to_iter_mcsafe, memcpy_mcsafe};
use crate::copy::{Outcome, copy_from_iter};
use crate::error::{Error, Result};
use crate::iter::{Direction, IovIter};
use crate::segment::Flat;

/// From here on what msync is going to write out is better not in the caches: it is read by a device, or by nobody.
const PAST_CACHES: usize = 256 << 10;

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
        self.persist(self.range(offset, done)?)?;
        Ok((done, fault))
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
        if let Err(error) = self.persist(self.range(offset, done)?) {
            i.take_back(done)?;
            return Err(error);
        }
        Ok(done)
    }

    /// Copies out of the region into flat memory, up to what the map knows to be bad or turns out to be.
    pub fn read<K: KnownBad + ?Sized>(&self, offset: usize, dst: Flat, map: &K) -> Result<Outcome> {
        memcpy_mcsafe(dst, self.range(offset, dst.seg.len)?, Some(map))
    }

    /// Copies out of the region into all that is left of an iterator, up to what the map knows to be bad or turns out to be. Returns the bytes
    /// copied, by which it advances.
    pub fn read_into<K: KnownBad + ?Sized>(&self, offset: usize, i: &mut IovIter, map: &K) -> Result<usize> {
        let nbytes = i.count();
        copy_to_iter_mcsafe(self.range(offset, nbytes)?, i, nbytes, Some(map))
    }
}
