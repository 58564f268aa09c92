//! Whether memory that somebody is reading or writing comes under zeroes meanwhile.
//!
//! A guard of another thread may begin, meet a bad page, and end between two instructions of a copy, or while a system
//! call is at work. What was read then may be zeroes, and what was stored is lost, without any fault. So whoever counts
//! bytes sets a [`Mark`] first, and counts afterwards only what is clear of it.

use super::extents::{self, Extent, is_empty, is_idle};
use super::pieces::Pieces;
use super::turn::Turn;
use super::{gone, report};
use crate::fault::{Fault, Side, threads};
use crate::memory::Segment;
use crate::sys::memory;
use std::sync::atomic::Ordering;

/// A moment after which memory is read or written.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    epoch: u32,
    /// Whether nothing was under zeroes then.
    is_clean: bool,
}

impl Mark {
    /// Now.
    pub fn now() -> Self {
        let epoch = threads::epoch(Ordering::Acquire);
        if is_idle() {
            return Self { epoch, is_clean: true };
        }
        let _turn = Turn::take();
        Self { epoch: threads::epoch(Ordering::Acquire), is_clean: is_empty() }
    }

    /// When an epoch began, in which there was nothing under zeroes.
    pub(crate) fn since(epoch: u32) -> Self {
        Self { epoch, is_clean: true }
    }

    /// How many bytes of a range come before the first that is under zeroes, or has been at any moment since.
    pub fn clear(self, seg: Segment) -> usize {
        if self.is_undisturbed() {
            return seg.len;
        }
        self.first(seg).map_or(seg.len, |(_, address)| address - seg.addr)
    }

    /// Why it is not all of a range's bytes: what the first such byte met. Its offset is what [`Self::clear`] says.
    pub fn fault(self, seg: Segment, side: Side) -> Option<Fault> {
        if self.is_undisturbed() {
            return None;
        }
        let (extent, address) = self.first(seg)?;
        let mut fault = report::fault(&extent, side, extent.seg, extent.kept);
        fault.offset = address - seg.addr;
        Some(fault)
    }

    /// What one of two addresses met, the source's first.
    pub(crate) fn fault_at(self, dst: usize, src: usize) -> Option<Fault> {
        let at = |address: usize, side| self.fault(Segment::new(address, 1), side);
        at(src, Side::Source).or_else(|| at(dst, Side::Destination))
    }

    /// Whether every byte is clear. Nothing comes under zeroes before another epoch has begun.
    #[inline]
    pub fn is_undisturbed(self) -> bool {
        self.is_clean && threads::epoch(Ordering::SeqCst) == self.epoch
    }

    /// The first such byte of a range, and the extent that it was in.
    fn first(self, seg: Segment) -> Option<(Extent, usize)> {
        let mut turn = Turn::take();
        let now = first_now(seg, &mut Pieces::new(&mut turn));
        let before = gone::first_since(self.epoch, seg, &turn).map(|extent| (extent, extent.seg.addr.max(seg.addr)));
        now.into_iter().chain(before).min_by_key(|(_, address)| *address)
    }
}

/// The first byte of a range that is under zeroes as far as is known, and the extent that it is in.
fn first_now(seg: Segment, pieces: &mut Pieces<'_>) -> Option<(Extent, usize)> {
    extents::within(seg, pieces.turn()).filter(|extent| !extent.is_replaced).find_map(|extent| {
        let from = extent.seg.addr.max(seg.addr);
        match pieces.next(&extent, from) {
            Ok(piece) => piece.map(|piece| piece.seg.addr).filter(|at| *at < seg.end()).map(|at| (extent, at)),
            Err(_) => Some((extent, from)),
        }
    })
}

/// How many of the `len` bytes at both addresses come before the first on either side that is under zeroes.
pub fn clear(dst: usize, src: usize, len: usize) -> usize {
    let mark = Mark::now();
    mark.clear(Segment::new(src, len)).min(mark.clear(Segment::new(dst, len)))
}

/// Faults a range in, to read or to write: how many bytes from its start on can be had, none of them under zeroes.
pub fn fault_in(seg: Segment, write: bool) -> usize {
    let mark = Mark::now();
    mark.clear(seg.take(memory::fault_in(seg, write)))
}

/// What is under zeroes at one of two addresses, the source's first.
pub fn fault_at(dst: usize, src: usize) -> Option<Fault> {
    Mark::now().fault_at(dst, src)
}
