//! What a reader pays who comes right behind a copy: stores past the caches leave nothing in them.

use crate::memory::{Arena, flat, touch};
use crate::race::{Case, Contestant, Report};
use crate::rivals::Libpmem;
use crate::vectored::shuffled;
use _core::abi::Direction;
use _core::arch::tuning::{self, Tuning};
use _core::copy;
use _core::iter::IovIter;

const TOTALS: [usize; 5] = [8 << 20, 16 << 20, 24 << 20, 32 << 20, 64 << 20];
/// Segments of a gather; a copy of one range comes first.
const SEGMENTS: [usize; 3] = [256, 4 << 10, 1 << 20];

/// Calls of a sample.
const CALLS: usize = 5;
/// Calls ahead of it: they pay for the lines that another kind of copy left dirty in the caches.
const WARM: usize = 2;

/// One total. Source and destination are the same in every call, so that the caches have both if they hold as much.
fn case(report: &Report, source: &Arena, target: &Arena, total: usize, seg: usize) {
    let ranges = shuffled(total / seg).into_iter().map(|slot| flat(source.at(slot * seg), seg)).collect();
    let iterator = IovIter::kvec(Direction::Source, ranges, None).unwrap();
    let tuned = tuning::current();
    let never = Tuning { nontemporal_from: usize::MAX, ..tuned };
    let with = |lengths: Tuning, is_read: bool| {
        let iterator = &iterator;
        move |_| {
            tuning::set(lengths);
            copy::copy_from_iter(flat(target.at(0), total), &mut iterator.clone(), total).unwrap();
            if is_read {
                touch(target.at(0), total);
            }
        }
    };
    let mut list = [
        Contestant::new("as tuned, read behind", with(tuned, true)),
        Contestant::new("through the caches, read behind", with(never, true)),
        Contestant::new("as tuned", with(tuned, false)),
        Contestant::new("through the caches", with(never, false)),
    ]
    .map(|contestant| contestant.warmed(WARM));
    let name = if seg == total { "one range".to_owned() } else { format!("segments of {seg} B") };
    let title = format!("read behind, {} KiB in {name}", total >> 10);
    report.race(&Case { title, bytes: total, calls: CALLS, ops: 1, rounds: 11 }, &mut list, || {});
    drop(list);
    tuning::set(tuned);
}

/// All of them.
pub(crate) fn run(_: &Libpmem, report: &Report) {
    let most = TOTALS[TOTALS.len() - 1];
    let (source, target) = (Arena::new(most), Arena::new(most));
    for total in if report.is_quick { &TOTALS[..1] } else { &TOTALS[..] } {
        for seg in [*total].into_iter().chain(SEGMENTS) {
            case(report, &source, &target, *total, seg);
        }
    }
}
