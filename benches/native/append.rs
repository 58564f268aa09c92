//! One record after the other, lines shared.

use crate::flat::contestants;
use crate::memory::{Arena, Broom, touch};
use crate::race::{Case, Report};
use crate::rivals::Libpmem;
use std::cell::Cell;

const ARENA: usize = 256 << 20;

/// All of them.
pub(crate) fn run(pmem: &Libpmem, report: &Report) {
    let (source, target, broom) = (Arena::new(1 << 20), Arena::new(ARENA), Broom::new());
    for len in [8, 16, 24, 40, 64, 100, 200, 500] {
        let calls = 20_000.min(ARENA / len / 8);
        let slots = ARENA / len - 1;
        let cursor = Cell::new(0);
        let place = |op: usize| (target.at((cursor.get() + op) % slots * len), source.at(0));
        let mut list = contestants(pmem, place, len);
        let mut turn = 0;
        let case = Case { title: format!("append, {len} B"), bytes: len, calls, ops: 1, rounds: 31 };
        report.race(&case, &mut list, || {
            turn += 1;
            cursor.set(turn * calls % slots);
            broom.sweep();
            touch(source.at(0), len);
        });
    }
}
