//! What a guard tells in the end.

use super::extents::Extent;
use crate::fault::{Fault, Side};
use crate::memory::Segment;

/// What a guard met.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they were met, those that touch and are alike in one.
    pub faults: Vec<Fault>,
    /// Bytes that read as zeroes, or whose stores went nowhere.
    pub lost: usize,
    /// How many of those still do: their pages could not be put back.
    pub left: usize,
}

/// The same, while it is being collected in the order of addresses, range by range.
#[derive(Default)]
pub(super) struct Collected {
    met: Vec<(Extent, Segment)>,
    pub(super) left: usize,
}

impl Collected {
    /// Adds the part of an extent that is in a guard's range.
    pub(super) fn add(&mut self, extent: &Extent, seg: Segment) {
        if let Some((last, there)) = self.met.last_mut() {
            let alike = (last.code, last.lsb, last.is_store) == (extent.code, extent.lsb, extent.is_store);
            if seg.end() <= there.end() {
                return;
            }
            if alike && there.end() == seg.addr {
                last.number = last.number.min(extent.number);
                there.len += seg.len;
                return;
            }
        }
        self.met.push((*extent, seg));
    }

    /// Before the pages were put back, or after.
    pub(super) fn finish(mut self, is_put_back: bool) -> Report {
        self.met.sort_by_key(|(extent, _)| extent.number);
        let told = |(extent, seg): &(Extent, Segment)| {
            let side = if extent.is_store { Side::Destination } else { Side::Source };
            fault(extent, side, *seg, if is_put_back { 0 } else { extent.kept })
        };
        let lost = self.met.iter().map(|(_, seg)| seg.len).sum();
        Report { faults: self.met.iter().map(told).collect(), lost, left: self.left }
    }
}

/// The fault that put a part of an extent under zeroes; its pages are where it was, or kept aside.
pub(super) fn fault(extent: &Extent, side: Side, seg: Segment, kept: usize) -> Fault {
    let fault = Fault::sheltered(side, seg, extent.code, extent.lsb);
    if kept == 0 { fault } else { fault.asked_at(kept) }
}
