//! Mappings that are there to be given up.
//!
//! A process may have so many mappings (`vm.max_map_count`), and each extent takes up to three. Once there may be no
//! more, a few of no use are unmapped, which makes room for one extent to the end of the range, and for the first one
//! to be put back. They are made at the first fault and stay for the next guard: to make them takes longer than the
//! rest of a fault.

use super::turn::Turn;
use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use crate::sys::remap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What an extent to the end of its range takes, for several threads at once.
const MAPPINGS: usize = 16;

/// 0 if it is not there.
static START: AtomicUsize = AtomicUsize::new(0);

/// Has it there, if there is room for it.
pub(super) fn make(_turn: &Turn) {
    if !is_there() {
        START.store(remap::map_ballast(MAPPINGS).map_or(0, |seg| seg.addr), Ordering::Relaxed);
    }
}

/// Whether it is there. If it is not, and anything is under zeroes, there may be hardly any more mappings.
pub(super) fn is_there() -> bool {
    START.load(Ordering::Relaxed) != 0
}

/// Gives it up. `false` if it was not there.
pub(super) fn drop(_turn: &Turn) -> bool {
    let start = START.swap(0, Ordering::Relaxed);
    if start != 0 {
        // SAFETY: made by `make`, and known to nobody any more.
        unsafe { remap::unmap(Segment::new(start, MAPPINGS * PAGE_SIZE)) };
    }
    start != 0
}
