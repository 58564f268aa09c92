//! A fault map that threads share. A copy of memory that lies outside all its ranges takes no lock.

use super::{Access, FaultMap, Span};
use crate::memory::Segment;
use crate::sys::lock::{Guard, Lock};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a copy needs of a map of bad memory.
pub trait KnownBad: Sync {
    /// Whether no memory is known to be bad.
    fn is_empty(&self) -> bool;
    /// Whether no byte of either range is known to be bad for the access that goes with the range.
    fn is_clear(&self, asked: [(Segment, Access); 2]) -> bool;
    /// The first known range that overlaps `seg` and is bad for `access`.
    fn first_bad(&self, seg: Segment, access: Access) -> Option<Segment>;
}

/// A [`FaultMap`] behind a lock. The lock is held for a lookup or a change only, never during a copy or Python code. A
/// forked child finds it unlocked.
pub struct SharedMap {
    /// Every range lies in `first..=last`. These are read without the lock.
    first: AtomicUsize,
    last: AtomicUsize,
    map: Lock<FaultMap>,
}

impl SharedMap {
    /// Takes a map, to be shared.
    pub fn new(map: FaultMap) -> Self {
        let shared = Self { first: AtomicUsize::new(0), last: AtomicUsize::new(0), map: Lock::new(map) };
        drop(shared.lock());
        shared
    }

    /// Locks the map.
    pub fn lock(&self) -> Locked<'_> {
        Locked { map: self.map.lock(), shared: self }
    }

    /// Adds memory that stopped a copy. If there is no memory to do so the map stays as it is; the copy has returned
    /// its short count in any case.
    pub fn record(&self, (seg, access): (Segment, Access)) {
        let room = (usize::MAX - seg.addr) as u128 + 1;
        // Clipped to the end of the address space, beyond which `add` would refuse it.
        let _ = self.lock().add(seg.addr, room.min(seg.len as u128), access);
    }

    /// Whether the same bytes are bad for the same access. Both maps are locked for the comparison.
    pub fn equals(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.map.both(&other.map, |map, other| map == other)
    }

    /// Whether the map is empty. Takes no lock, so it may miss what another thread is adding at this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.load(Ordering::Relaxed) > self.last.load(Ordering::Relaxed)
    }

    /// Whether `seg` lies outside `first..=last`, and so overlaps no range. Takes no lock, so it may miss what another
    /// thread is adding at this moment.
    #[inline]
    pub fn is_beside(&self, seg: Segment) -> bool {
        let (first, last) = (self.first.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed));
        seg.len == 0 || last < seg.addr || seg.addr.saturating_add(seg.len - 1) < first
    }
}

impl KnownBad for SharedMap {
    #[inline]
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    #[inline]
    fn is_clear(&self, asked: [(Segment, Access); 2]) -> bool {
        asked.iter().all(|(seg, _)| self.is_beside(*seg)) || {
            let map = self.lock();
            !asked.iter().any(|(seg, access)| map.intersects(seg.addr, seg.len as u128, *access))
        }
    }

    fn first_bad(&self, seg: Segment, access: Access) -> Option<Segment> {
        let found = self.lock().first_in(seg.addr, seg.len as u128, access)?;
        Some(Segment::new(found.start, usize::try_from(found.length()).unwrap_or(usize::MAX)))
    }
}

/// A locked [`SharedMap`]. Dropping it updates `first` and `last`.
pub struct Locked<'a> {
    map: Guard<'a, FaultMap>,
    shared: &'a SharedMap,
}

impl Deref for Locked<'_> {
    type Target = FaultMap;

    fn deref(&self) -> &FaultMap {
        &self.map
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut FaultMap {
        &mut self.map
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let reach = self.map.reach().unwrap_or(Span { first: usize::MAX, last: 0 });
        self.shared.first.store(reach.first, Ordering::Relaxed);
        self.shared.last.store(reach.last, Ordering::Relaxed);
    }
}
