//! Copies ready for bad memory, hot, against the C library's, which is not.

use crate::memory::{Arena, flat};
use crate::race::{Case, Contestant, Report};
use crate::rivals::{self, Libpmem};
use _core::abi::Direction;
use _core::copy::{self, mcsafe};
use _core::fault::map::shared::KnownBad;
use _core::iter::IovIter;

const NO_MAP: Option<&dyn KnownBad> = None;

/// All of them.
pub(crate) fn run(_: &Libpmem, report: &Report) {
    let arena = Arena::new(8 << 20);
    let (from, to) = (arena.at(0), arena.at(4 << 20));
    for len in [64, 4 << 10, 64 << 10, 1 << 20] {
        let iterator = || IovIter::ubuf(Direction::Dest, flat(to, len), None).unwrap();
        let (mut first, mut second) = (iterator(), iterator());
        let mut list = [
            Contestant::new("copy_to_iter_mcsafe", |_| {
                mcsafe::copy_to_iter_mcsafe(flat(from, len), &mut first, len, NO_MAP).unwrap();
                first.revert(len).unwrap();
            }),
            Contestant::new("copy_to_iter", |_| {
                copy::copy_to_iter(flat(from, len), &mut second, len).unwrap();
                second.revert(len).unwrap();
            }),
            Contestant::new("memcpy_mcsafe", |_| {
                mcsafe::memcpy_mcsafe(flat(to, len), flat(from, len), NO_MAP).unwrap();
            }),
            Contestant::new("memcpy", |_| rivals::memcpy(to, from, len)),
        ];
        let calls = if report.is_quick { 10 } else { ((64 << 20) / len).min(100_000) };
        let title = format!("careful, {len} B, hot");
        report.race(&Case { title, bytes: len, calls, ops: 1, rounds: 51 }, &mut list, || {});
    }
}
