//! What was under zeroes not long ago: a copy that began before it went back may have read the zeroes.

use super::extents::{EXTENTS, Extent, Slot};
use super::turn::Turn;
use crate::memory::Segment;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// An extent that went back, and the epoch that began when it had.
struct Gone {
    slot: Slot,
    epoch: AtomicU32,
}

/// The last of them. One guard's end may bring as many as there can be at once.
static RING: [Gone; EXTENTS] = [const { Gone { slot: Slot::new(), epoch: AtomicU32::new(0) } }; EXTENTS];
/// How many there ever were.
static EVER: AtomicUsize = AtomicUsize::new(0);

/// Remembers an extent that has just gone back. The epoch began afterwards.
pub(super) fn remember(extent: &Extent, epoch: u32, _turn: &Turn) {
    let ever = EVER.load(Ordering::Relaxed);
    let gone = &RING[ever % EXTENTS];
    gone.slot.store(&Extent { kept: 0, ..*extent });
    gone.epoch.store(epoch, Ordering::Relaxed);
    EVER.store(ever.wrapping_add(1), Ordering::Relaxed);
}

/// The last so many that went back.
pub(super) fn last(count: usize, _turn: &Turn) -> impl Iterator<Item = Extent> + use<> {
    let ever = EVER.load(Ordering::Relaxed);
    (1..=count.min(ever).min(EXTENTS)).map(move |back| RING[(ever - back) % EXTENTS].slot.load())
}

/// Of those that went back since an epoch began, the one with the first byte of a range.
pub(super) fn first_since(epoch: u32, seg: Segment, _turn: &Turn) -> Option<Extent> {
    let ever = EVER.load(Ordering::Relaxed);
    let all = (1..=ever.min(EXTENTS)).map(|back| &RING[(ever - back) % EXTENTS]);
    let since = all.take_while(|gone| gone.epoch.load(Ordering::Relaxed).wrapping_sub(epoch).cast_signed() > 0);
    since.map(|gone| gone.slot.load()).filter(|extent| extent.seg.overlaps(seg)).min_by_key(|extent| extent.seg.addr)
}
