//! A map that threads share, and that costs a copy nothing if it knows nothing of its memory.

use super::{FaultMap, Span};
use crate::memory::Segment;
use crate::sys::lock::{Guard, Lock};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A [`FaultMap`] behind a lock, which a forked child finds open. It is held for a look or a change, never over a copy or Python code.
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
