//! What a guard tells in the end.

use super::extents::Extent;
use crate::error::{Error, Result, try_push};
use crate::fault::{Cause, Fault, Side};
use crate::memory::Segment;

/// What a guard met.
#[derive(Debug, Default)]
pub struct Report {
    /// In the order in which they were met, those that touch and are alike in one. Empty where there was no memory for
    /// the list.
    ranges: Vec<BadRange>,
    first: Option<BadRange>,
    /// How many there are.
    pub places: usize,
    /// Bytes that read as zeroes, or whose stores went nowhere.
    pub lost: usize,
    /// How many bytes still read as zeroes: their pages could not be put back.
    pub left: usize,
}

/// Extents that touch and are alike.
#[derive(Clone, Copy, Debug)]
struct BadRange {
    /// How many came before the first of them.
    number: usize,
    seg: Segment,
    code: i32,
    lsb: u32,
    is_store: bool,
    /// What is wrong, if that was found out while it was kept aside.
    cause: Option<Cause>,
}

impl BadRange {
    fn fault(&self) -> Fault {
        let side = if self.is_store { Side::Destination } else { Side::Source };
        let fault = Fault::sheltered(side, self.seg, self.code, self.lsb);
        self.cause.into_iter().fold(fault, Fault::known_as)
    }
}

impl Report {
    /// What was met first.
    pub fn first(&self) -> Option<Fault> {
        self.first.as_ref().map(BadRange::fault)
    }

    /// All that was met, in that order. Refused where there was no memory for the list.
    pub fn faults(&self) -> Result<impl Iterator<Item = Fault>> {
        if self.ranges.len() < self.places {
            return Err(Error::NoMemory(self.places.saturating_mul(size_of::<BadRange>())));
        }
        Ok(self.ranges.iter().map(BadRange::fault))
    }
}

/// The same, while it is being collected in the order of addresses.
#[derive(Default)]
pub(super) struct ReportBuilder {
    report: Report,
    /// What the next extent may touch.
    last: Option<BadRange>,
}

impl ReportBuilder {
    /// Adds the part of an extent that is in a guard's range. `asks`: what is wrong with it is found out where it is
    /// kept aside.
    pub(super) fn add(&mut self, extent: &Extent, seg: Segment, asks: bool) {
        let Extent { number, code, lsb, is_store, kept, .. } = *extent;
        self.report.lost += seg.len;
        if let Some(last) = &mut self.last
            && last.seg.end() == seg.addr
            && (last.code, last.lsb, last.is_store) == (code, lsb, is_store)
        {
            last.number = last.number.min(number);
            last.seg.len += seg.len;
            return;
        }
        self.push_last();
        let range = BadRange { number, seg, code, lsb, is_store, cause: None };
        let cause = (asks && kept != 0).then(|| range.fault().asked_at(kept).cause());
        self.last = Some(BadRange { cause, ..range });
    }

    fn push_last(&mut self) {
        let Some(last) = self.last.take() else { return };
        let report = &mut self.report;
        // Without memory for all of them there is the first, and how many there are.
        if report.ranges.len() == report.places && try_push(&mut report.ranges, last).is_err() {
            report.ranges = Vec::new();
        }
        report.places += 1;
        if report.first.is_none_or(|first| last.number < first.number) {
            report.first = Some(last);
        }
    }

    pub(super) fn finish(mut self) -> Report {
        self.push_last();
        self.report.ranges.sort_unstable_by_key(|range| range.number);
        self.report
    }
}

/// The fault that put a part of an extent under zeroes; its pages are where it was, or kept aside.
pub(super) fn fault(extent: &Extent, side: Side, seg: Segment, kept: usize) -> Fault {
    let fault = Fault::sheltered(side, seg, extent.code, extent.lsb);
    if kept == 0 { fault } else { fault.asked_at(kept) }
}
