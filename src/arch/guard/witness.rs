//! What the routines are called for, as a test sees it: which bytes are stored and how, and where the fences are.

use super::super::{SETS, TeeFn};
use crate::memory::Segment;
use std::cell::RefCell;

/// A call, by what it does to the destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// Stores through the caches.
    Stored(Segment),
    /// Non-temporal stores.
    Streamed(Segment),
    /// Whole lines are written back.
    WrittenBack(Segment),
    /// A store fence.
    Fence,
}

thread_local! {
    static SEEN: RefCell<Option<Vec<Seen>>> = const { RefCell::new(None) };
}

/// The calls that this thread makes in `run`, in order. Lists of lines and zeroing are not among them.
pub(crate) fn watch(run: impl FnOnce()) -> Vec<Seen> {
    SEEN.set(Some(Vec::new()));
    run();
    SEEN.take().unwrap_or_default()
}

pub(crate) fn note(seen: Seen) {
    SEEN.with_borrow_mut(|noted| noted.iter_mut().for_each(|noted| noted.push(seen)));
}

/// What one of the routines that copy to two places does to its destination.
pub(super) fn of_tee(routine: TeeFn, dst: Segment) -> Seen {
    let is_streaming = |tee: &super::super::Tee| std::ptr::fn_addr_eq(tee.nontemporal, routine);
    let streams = SETS.iter().filter_map(|set| set.tee.as_ref()).any(is_streaming);
    if streams { Seen::Streamed(dst) } else { Seen::Stored(dst) }
}

/// Where the newest value of a byte is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Untouched,
    Cached,
    /// It leaves the caches, before what a later fence orders behind it.
    Leaving,
    Out,
}

/// Where each byte of a range is after what was seen.
pub(crate) fn places(seen: &[Seen], range: Segment) -> Vec<Place> {
    let mut places = vec![Place::Untouched; range.len];
    for seen in seen {
        let (part, change): (_, fn(Place) -> Place) = match *seen {
            Seen::Stored(part) => (part, |_| Place::Cached),
            Seen::Streamed(part) => (part, |_| Place::Leaving),
            Seen::WrittenBack(part) => (part, |place| if place == Place::Cached { Place::Leaving } else { place }),
            Seen::Fence => (range, |place| if place == Place::Leaving { Place::Out } else { place }),
        };
        for (addr, place) in (range.addr..).zip(&mut places) {
            if (part.addr..part.end()).contains(&addr) {
                *place = change(*place);
            }
        }
    }
    places
}
