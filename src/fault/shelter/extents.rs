//! What reads as zeroes now: a fixed table of extents, sorted by address, changed in a turn only.

use super::turn::{InTurn, Turn};
use crate::memory::Segment;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Extents there can be at once.
pub(super) const EXTENTS: usize = 1 << 15;
/// The last ones are for what takes the rest of a range.
pub(super) const RESERVED: usize = 256;

/// An extent under zeroes, and what put it there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    pub(super) seg: Segment,
    /// Where its pages are kept aside; 0 if they could not be.
    pub(super) kept: usize,
    /// The thread that faulted.
    pub(super) thread: usize,
    /// How many came before it.
    pub(super) number: usize,
    /// The signal's code.
    pub(super) code: i32,
    /// Log2 of the extent the signal told of, or 0.
    pub(super) lsb: u32,
    /// Whether a store faulted.
    pub(super) is_store: bool,
    /// Whether its zeroes can be told from whatever may be mapped there later.
    pub(super) is_marked: bool,
    /// Whether its zeroes are known to be gone: there is something else by now.
    pub(super) is_replaced: bool,
}

/// An extent as the table keeps it.
pub(super) struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    kept: AtomicUsize,
    thread: AtomicUsize,
    number: AtomicUsize,
    /// Code, extent, store, mark and replacement, a byte each.
    signal: AtomicU64,
    /// Faults in it since it was put under zeroes.
    again: AtomicU32,
}

static SLOTS: [Slot; EXTENTS] = [const { Slot::new() }; EXTENTS];
/// The numbers of the slots in use in the order of their addresses, then those of free ones: a permutation. Each is
/// kept as its distance from its place, so that a table that nobody has touched is one of free slots.
static ORDER: [AtomicU32; EXTENTS] = [const { AtomicU32::new(0) }; EXTENTS];
static LEN: AtomicUsize = AtomicUsize::new(0);
/// Extents there ever were, from which each has its number.
static EVER: AtomicUsize = AtomicUsize::new(0);

impl Slot {
    pub(super) const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            kept: AtomicUsize::new(0),
            thread: AtomicUsize::new(0),
            number: AtomicUsize::new(0),
            signal: AtomicU64::new(0),
            again: AtomicU32::new(0),
        }
    }

    fn seg(&self) -> Segment {
        Segment::new(self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed))
    }

    pub(super) fn load(&self) -> Extent {
        let [code, lsb, store, mark, replaced, ..] = self.signal.load(Ordering::Relaxed).to_le_bytes();
        Extent {
            seg: self.seg(),
            kept: self.kept.load(Ordering::Relaxed),
            thread: self.thread.load(Ordering::Relaxed),
            number: self.number.load(Ordering::Relaxed),
            code: code.into(),
            lsb: lsb.into(),
            is_store: store != 0,
            is_marked: mark != 0,
            is_replaced: replaced != 0,
        }
    }

    pub(super) fn store(&self, extent: &Extent) {
        let [store, mark, replaced] = [extent.is_store, extent.is_marked, extent.is_replaced].map(u8::from);
        let signal = [extent.code as u8, extent.lsb as u8, store, mark, replaced, 0, 0, 0];
        self.start.store(extent.seg.addr, Ordering::Relaxed);
        self.len.store(extent.seg.len, Ordering::Relaxed);
        self.kept.store(extent.kept, Ordering::Relaxed);
        self.thread.store(extent.thread, Ordering::Relaxed);
        self.number.store(extent.number, Ordering::Relaxed);
        self.signal.store(u64::from_le_bytes(signal), Ordering::Relaxed);
        self.again.store(0, Ordering::Relaxed);
    }
}

fn slot(place: usize) -> usize {
    (place ^ ORDER[place].load(Ordering::Relaxed) as usize) % EXTENTS
}

fn set_slot(place: usize, slot: usize) {
    ORDER[place].store((place ^ slot) as u32, Ordering::Relaxed);
}

/// How many there are.
pub(super) fn len() -> usize {
    LEN.load(Ordering::SeqCst).min(EXTENTS)
}

/// Whether there is nothing under zeroes.
pub fn is_empty() -> bool {
    len() == 0
}

/// Whether there is nothing under zeroes, and nobody about to put anything there.
pub fn is_idle() -> bool {
    // In this order: what a turn that was over by then had put there is counted.
    !Turn::is_taken() && len() == 0
}

/// The first place whose extent ends behind an address; [`len`] if there is none.
fn place_behind(address: usize) -> usize {
    let (mut low, mut high) = (0, len());
    while low < high {
        let middle = low + (high - low) / 2;
        if SLOTS[slot(middle)].seg().end() <= address {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// The extent with an address in it, and how many faults it has had since it was put under zeroes, this one counted.
pub(super) fn fault_again(address: usize, _turn: &Turn) -> Option<(Extent, u32)> {
    let place = place_behind(address);
    let found = (place < len()).then(|| &SLOTS[slot(place)]).filter(|found| found.seg().addr <= address)?;
    Some((found.load(), found.again.fetch_add(1, Ordering::Relaxed) + 1))
}

/// What lies between the extents around an address that is in none of them.
pub(super) fn gap(address: usize, _turn: &Turn) -> Segment {
    let place = place_behind(address);
    let start = if place == 0 { 0 } else { SLOTS[slot(place - 1)].seg().end() };
    let end = if place < len() { SLOTS[slot(place)].seg().addr } else { usize::MAX };
    Segment::new(start, end - start)
}

/// Enters one that overlaps no other, where the table has room. Its number is that of those it replaces, or the next.
pub(super) fn insert(extent: &Extent, _turn: &Turn) {
    let len = len().min(EXTENTS - 1);
    let free = slot(len);
    SLOTS[free].store(&Extent { number: extent.number.min(EVER.fetch_add(1, Ordering::SeqCst)), ..*extent });
    let place = place_behind(extent.seg.addr);
    // First, so that a process that is forked in between misses none of the others.
    LEN.store(len + 1, Ordering::SeqCst);
    for behind in (place..len).rev() {
        set_slot(behind + 1, slot(behind));
    }
    set_slot(place, free);
}

/// Forgets where pages are kept aside: nothing is put back any more.
pub(super) fn forget_kept(_turn: &Turn) {
    for place in 0..len() {
        SLOTS[slot(place)].kept.store(0, Ordering::Relaxed);
    }
}

/// Takes out of the table what `is_over` says is over, of the extents that overlap a range, in the order of their
/// addresses. It is also told where the next extent begins, and lent what has the turn.
pub(super) fn remove<T: InTurn>(
    seg: Segment,
    in_turn: &mut T,
    mut is_over: impl FnMut(&Extent, usize, &mut T) -> bool,
) {
    let (first, len) = (place_behind(seg.addr), len());
    let mut kept = first;
    for place in first..len {
        let here = slot(place);
        let extent = SLOTS[here].load();
        let behind = if place + 1 < len { SLOTS[slot(place + 1)].seg().addr } else { usize::MAX };
        if !(extent.seg.overlaps(seg) && is_over(&extent, behind, in_turn)) {
            // What is over comes to stand behind, where the free ones are.
            set_slot(place, slot(kept));
            set_slot(kept, here);
            kept += 1;
        }
    }
    LEN.store(kept, Ordering::SeqCst);
}

/// Every extent that overlaps a range, in the order of their addresses.
pub(super) fn within(seg: Segment, _turn: &Turn) -> impl Iterator<Item = Extent> + use<> {
    places_within(seg).map(|place| SLOTS[slot(place)].load())
}

/// Their places.
fn places_within(seg: Segment) -> impl Iterator<Item = usize> {
    (place_behind(seg.addr)..len()).take_while(move |place| SLOTS[slot(*place)].seg().addr < seg.end())
}

/// Whether any extent overlaps a range. Also in the middle of [`remove`], when they are in no order.
pub(super) fn is_any_in(seg: Segment, _turn: &Turn) -> bool {
    (0..len()).any(|place| SLOTS[slot(place)].seg().overlaps(seg))
}

/// All addresses.
pub(super) const EVERYWHERE: Segment = Segment::new(0, usize::MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn extent(start: usize, len: usize) -> Extent {
        Extent {
            seg: Segment::new(start, len),
            kept: 7,
            thread: 1,
            number: 0,
            code: libc::BUS_ADRERR,
            lsb: 12,
            is_store: start.is_multiple_of(3),
            is_marked: start.is_multiple_of(7),
            is_replaced: start.is_multiple_of(11),
        }
    }

    /// The table is one per process: one test uses all of it.
    #[test]
    fn the_table_stays_sorted_whatever_comes_and_goes() {
        let Ok(mut turn) = Turn::try_take() else { panic!("nobody else takes turns here") };
        let mut model = BTreeMap::new();
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for round in 0..20_000 {
            let start = random(3000) * 10;
            if random(3) > 0 {
                let is_free = model.range(..start + 10).next_back().is_none_or(|(at, len)| at + len <= start);
                if is_free {
                    assert_eq!(fault_again(start, &turn), None);
                    insert(&extent(start, 10), &turn);
                    model.insert(start, 10_usize);
                } else {
                    assert!(fault_again(start, &turn).is_some());
                }
            } else {
                let seg = Segment::new(start, random(500));
                let over = |at: usize| at.is_multiple_of(20) && Segment::new(at, 10).overlaps(seg);
                remove(seg, &mut turn, |extent, behind, _| {
                    assert!(extent.seg.end() <= behind);
                    over(extent.seg.addr)
                });
                model.retain(|at, _| !over(*at));
            }
            if round % 100 == 0 {
                let found: Vec<_> = within(EVERYWHERE, &turn).map(|found| found.seg.addr).collect();
                assert_eq!(found, model.keys().copied().collect::<Vec<_>>());
                if fault_again(15, &turn).is_none() {
                    let before = model.range(..15).next_back().map_or(0, |(at, len)| at + len);
                    let behind = model.range(15..).next().map_or(usize::MAX, |(at, _)| *at);
                    assert_eq!(gap(15, &turn), Segment::new(before, behind - before));
                }
                let mut slots: Vec<_> = (0..EXTENTS).map(slot).collect();
                slots.sort_unstable();
                assert!(slots.into_iter().eq(0..EXTENTS));
            }
        }
        let sample = within(EVERYWHERE, &turn).next().unwrap();
        assert_eq!(Extent { number: 0, ..sample }, extent(sample.seg.addr, 10));
        remove(EVERYWHERE, &mut turn, |_, _, _| true);
        assert_eq!(len(), 0);
    }
}
