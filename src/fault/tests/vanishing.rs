//! A page vanishes during a copy, as another thread might make it, once before each access that the copy makes. In half
//! of the runs it is back at the next access.

use super::{Edge, armed};
use crate::abi::{Direction, PAGE_SIZE};
use crate::arch::{self, LINE, LINES_AHEAD, guard};
use crate::copy;
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Segment};
use std::sync::atomic::AtomicU32;

/// No copy here writes beyond this many bytes of its target.
const REACH: usize = 1 << 10;

/// A page, and when it vanishes.
struct Page {
    addr: usize,
    /// The number of accesses before it vanishes.
    goes: usize,
    /// The number of accesses for which it is gone.
    gone: usize,
    accesses: usize,
}

impl Page {
    fn before_access(&mut self) {
        match self.accesses {
            now if now == self.goes => self.protect(libc::PROT_NONE),
            now if now == self.goes + self.gone => self.protect(libc::PROT_READ | libc::PROT_WRITE),
            _ => {}
        }
        self.accesses += 1;
    }

    fn protect(&self, protection: i32) {
        // SAFETY: the range is a page of an `Edge`'s mapping, which only guarded copies access while it is protected.
        unsafe { libc::mprotect(std::ptr::with_exposed_provenance_mut(self.addr), PAGE_SIZE, protection) };
    }
}

/// Runs a copy to `target` many times: the page vanishes before its first access, its second, and so on, until the copy
/// has no more accesses. Passes what each copy returns to `check`.
pub(super) fn taken_before_each_access<R>(
    page: usize,
    target: &Edge,
    mut run: impl FnMut() -> R,
    mut check: impl FnMut(R),
) {
    for goes in 0.. {
        target.fill(0, REACH, 0);
        let gone = if goes % 2 == 0 { 1 } else { usize::MAX / 2 };
        let mut page = Page { addr: page, goes, gone, accesses: 0 };
        let result = arch::stepped(|| page.before_access(), &mut run);
        page.protect(libc::PROT_READ | libc::PROT_WRITE);
        check(result);
        if page.accesses <= goes {
            break;
        }
    }
}

/// The number of bytes of the target that were written from `start` on. Checks that no others were.
pub(super) fn written(target: &Edge, start: usize) -> usize {
    let count = (start..REACH).take_while(|at| target.byte(*at) == 7).count();
    assert!((0..start).chain(start + count..REACH).all(|at| target.byte(at) == 0), "written elsewhere");
    count
}

/// Lengths with and without a head, lines and a tail; and the offsets in a line at which the two sides begin.
fn cases() -> impl Iterator<Item = (usize, usize, usize)> {
    [(17, 5, 63), (64, 0, 1), (100, 33, 17), (300, 5, 63)].into_iter()
}

type Routine = unsafe fn(&arch::Primitives, usize, usize, usize) -> Option<guard::Interrupted>;

#[test]
fn a_source_that_goes_at_any_moment_is_counted_to_the_byte() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    for (set, (len, from, to)) in arch::available().flat_map(|set| cases().map(move |case| (set, case))) {
        let page = source.end() - PAGE_SIZE;
        for (name, routine) in [("copy", guard::copy as Routine), ("stream", guard::copy_nontemporal)] {
            let run = || {
                // SAFETY: the target is ours; the handler is installed.
                let stop = unsafe { routine(set, target.0 + to, page + from, len) };
                arch::store_fence();
                stop
            };
            taken_before_each_access(page, &target, run, |stop| {
                let done = stop.map_or(len, |stop| len - stop.left);
                assert_eq!(written(&target, to), done, "{name} {} {len} {from} {to}", set.name);
                assert!(stop.is_none_or(|stop| stop.left > 0 && !stop.is_store), "{stop:?}");
            });
        }
    }
}

#[test]
fn a_destination_that_goes_at_any_moment_has_what_was_counted_and_less_than_a_line_more() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    for (set, (len, from, to)) in arch::available().flat_map(|set| cases().map(move |case| (set, case))) {
        for (name, routine) in [("copy", guard::copy as Routine), ("stream", guard::copy_nontemporal)] {
            let run = || {
                // SAFETY: the target is ours; the handler is installed.
                let stop = unsafe { routine(set, target.0 + to, source.0 + from, len) };
                arch::store_fence();
                stop
            };
            taken_before_each_access(target.0, &target, run, |stop| {
                let done = stop.map_or(len, |stop| len - stop.left);
                let more = written(&target, to).checked_sub(done);
                assert!(more.is_some_and(|more| more < LINE), "{name} {} {len} {from} {to}: {more:?}", set.name);
                assert!(stop.is_none_or(|stop| stop.left > 0 && stop.is_store), "{stop:?}");
            });
        }
    }
}

/// A list whose first segments are the lines from `start` on, as many as [`guard::copy_lines`] takes of it.
fn lines_from(start: usize) -> Vec<Segment> {
    (0..LINES + LINES_AHEAD).map(|number| Segment::new(start + number % LINES * LINE, LINE)).collect()
}
const LINES: usize = 3;

/// Copies these lines, with each instruction set and in both directions, while `page` vanishes. Passes to `check` how
/// many bytes each copy counted, how many it wrote, and whether a store stopped it.
fn while_lines_are_copied(
    page: usize,
    source: usize,
    target: &Edge,
    to: usize,
    check: impl Fn(usize, usize, Option<bool>),
) {
    let watched = AtomicU32::new(0);
    let sets = arch::available().filter(|set| set.lines.is_some());
    for (set, direction) in sets.flat_map(|set| [Direction::Source, Direction::Dest].map(|direction| (set, direction)))
    {
        let (listed, flat) = match direction {
            Direction::Source => (source, target.0 + to),
            Direction::Dest => (target.0 + to, source),
        };
        let list = lines_from(listed);
        // SAFETY: the target is ours; the handler is installed.
        let run = || unsafe { guard::copy_lines(set, direction, &list, flat, (&watched, 0)) };
        taken_before_each_access(page, target, run, |(taken, stop)| {
            let counted = taken * LINE - stop.map_or(0, |stop| stop.left);
            check(counted, written(target, to), stop.map(|stop| stop.is_store));
        });
    }
}

#[test]
fn a_source_that_goes_at_any_moment_of_a_list_of_lines_is_counted_to_the_byte() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    let page = source.end() - PAGE_SIZE;
    for (from, to) in [(0, 0), (5, 63), (33, 17)] {
        while_lines_are_copied(page, page + from, &target, to, |counted, written, is_store| {
            assert_eq!(written, counted, "{from} {to}");
            assert!(is_store != Some(true) && (is_store.is_some() || counted == LINES * LINE), "{from} {to}");
        });
    }
}

#[test]
fn a_destination_that_goes_at_any_moment_of_a_list_of_lines_has_what_was_counted_and_less_than_a_line_more() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    for (from, to) in [(0, 0), (5, 63), (33, 17)] {
        while_lines_are_copied(target.0, source.0 + from, &target, to, |counted, written, is_store| {
            assert!(written >= counted && written - counted < LINE, "{from} {to}: {counted} {written}");
            assert!(is_store != Some(false) && (is_store.is_some() || counted == LINES * LINE), "{from} {to}");
        });
    }
}

/// Whole copies, which may read ahead, buffer bytes or copy some twice: the count is exact all the same.
#[test]
fn a_source_that_goes_at_any_moment_of_a_whole_copy_is_counted_to_the_byte() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    let page = source.end() - PAGE_SIZE;
    let (len, to) = (270, 17);
    // SAFETY: both ranges lie in mappings of this test, which stay until the copies are done; only the target is
    // written to.
    let [src, dst] = [page + 5, target.0 + to].map(|addr| unsafe { Memory::new(Segment::new(addr, len), UNCHECKED) });
    let pieces = [(0, 100), (100, 7), (107, 163)].map(|(at, len)| src.skip(at).take(len).seg());
    let gathered = || {
        // SAFETY: the segments are parts of the source's mapping, which stays until the copies are done.
        let segs = unsafe { Memories::new(pieces.as_slice(), UNCHECKED) };
        IovIter::iovec(Direction::Source, segs, None).unwrap()
    };
    let copies: [(&str, &dyn Fn() -> usize); 4] = [
        ("memcpy", &|| copy::memcpy(dst, src).unwrap().0),
        ("copy_to_iter", &|| {
            let mut i = IovIter::ubuf(Direction::Dest, dst, None).unwrap();
            copy::copy_to_iter(src, &mut i, len).unwrap()
        }),
        ("copy_from_iter", &|| copy::copy_from_iter(dst, &mut gathered(), len).unwrap()),
        ("copy_from_iter_nocache", &|| copy::flushcache::copy_from_iter_nocache(dst, &mut gathered(), len).unwrap()),
    ];
    for (name, run) in copies {
        taken_before_each_access(page, &target, run, |done| {
            assert_eq!(written(&target, to), done, "{name}");
        });
    }
}

pub(super) const UNCHECKED: Backing = Backing::Unchecked;
