//! A map that threads share, and that costs a copy nothing if it knows nothing of its memory.

use super::{FaultMap, Span};
use crate::memory::Segment;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A [`FaultMap`] behind a lock.
pub struct SharedMap {
    /// All of its ranges lie in `first..=last`, so that a copy elsewhere takes no lock.
    first: AtomicUsize,
    last: AtomicUsize,
    map: Mutex<FaultMap>,
}

impl SharedMap {
    /// Shares the map.
    pub fn new(map: FaultMap) -> Self {
        let shared = Self { first: AtomicUsize::new(0), last: AtomicUsize::new(0), map: Mutex::new(map) };
        drop(shared.lock());
        shared
    }

    /// The map, while nobody else has it.
    pub fn lock(&self) -> Locked<'_> {
        Locked { map: self.map.lock().unwrap_or_else(PoisonError::into_inner), shared: self }
    }

    /// Whether the same bytes are bad in the same way. Both maps are looked at in one moment.
    pub fn equals(&self, other: &Self) -> bool {
        if std::ptr::eq(self, other) {
            return true;
        }
        // Always the map with the lower address first: two threads that compare the same maps do not wait for each other.
        let (low, high) = if std::ptr::from_ref(self) < other { (self, other) } else { (other, self) };
        let (low, high) = (low.lock(), high.lock());
        *low == *high
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
    map: MutexGuard<'a, FaultMap>,
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
