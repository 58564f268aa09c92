//! A map that threads share, and that costs a copy nothing if it knows nothing of its memory.

use super::{Access, FaultMap, Span};
use crate::memory::Segment;
use crate::sys::lock::{Guard, Lock};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Knowledge of bad memory, to be read.
pub trait KnownBad: Sync {
    /// Whether nothing at all is known.
    fn is_empty(&self) -> bool;
    /// Whether no byte of either range is known to stand against what is to be done to it.
    fn is_clear(&self, asked: [(Segment, Access); 2]) -> bool;
    /// The first known range that shares a byte with `seg` and stands against `access`.
    fn first_bad(&self, seg: Segment, access: Access) -> Option<Segment>;
}

/// A [`FaultMap`] behind a lock, which a forked child finds open. It is held for a look or a change, never over a copy
/// or Python code.
pub struct SharedMap {
    /// All of its ranges lie in `first..=last`, so that a copy elsewhere takes no lock.
    first: AtomicUsize,
    last: AtomicUsize,
    map: Lock<FaultMap>,
}

impl SharedMap {
    /// Shares the map.
    pub fn new(map: FaultMap) -> Self {
        let shared = Self { first: AtomicUsize::new(0), last: AtomicUsize::new(0), map: Lock::new(map) };
        drop(shared.lock());
        shared
    }

    /// The map, while nobody else has it.
    pub fn lock(&self) -> Locked<'_> {
        Locked { map: self.map.lock(), shared: self }
    }

    /// Adds what a copy has run into. Where there is no memory for it the map does not learn it, and the copy came
    /// short all the same.
    pub fn record(&self, (seg, access): (Segment, Access)) {
        let room = (usize::MAX - seg.addr) as u128 + 1;
        // Cut to the end of the address space, so that it cannot be refused.
        let _ = self.lock().add(seg.addr, room.min(seg.len as u128), access);
    }

    /// Whether the same bytes are bad in the same way. Both maps are looked at in one moment.
    pub fn equals(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.map.both(&other.map, |map, other| map == other)
    }

    /// Whether there is nothing in it, or nothing but what another thread adds at this moment.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.load(Ordering::Relaxed) > self.last.load(Ordering::Relaxed)
    }

    /// Whether the range lies beside everything in the map. What another thread adds at this moment may be in it.
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
            !asked.iter().any(|(seg, access)| map.meets(seg.addr, seg.len as u128, *access))
        }
    }

    fn first_bad(&self, seg: Segment, access: Access) -> Option<Segment> {
        let found = self.lock().first_in(seg.addr, seg.len as u128, access)?;
        Some(Segment::new(found.start, usize::try_from(found.length()).unwrap_or(usize::MAX)))
    }
}

/// A [`SharedMap`] that is looked at or changed.
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
