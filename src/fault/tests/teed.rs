//! Faults in copies to a destination and a stage at once, and in the copies that sum, which make use of them.

use super::vanishing::{UNCHECKED, taken_before_each_access, written};
use super::{BEYOND, Edge, PAGES, SKEWS, armed};
use crate::abi::{Direction, PAGE_SIZE};
use crate::arch::setting::Setting;
use crate::arch::{self, LINE, TeeFn, guard};
use crate::copy::crc32c;
use crate::iter::IovIter;
use crate::memory::{Memory, Segment};

/// Every routine, with its name.
fn routines() -> impl Iterator<Item = (String, TeeFn)> {
    arch::available().filter_map(|set| set.tee.map(|tee| (set.name, tee))).flat_map(|(set, tee)| {
        [("copy", tee.copy), ("nontemporal", tee.nontemporal)].map(|(name, routine)| (format!("{set} {name}"), routine))
    })
}

/// A copy of whole lines: to `dst`, from `src`, and to the start of `stage`.
fn tee(routine: TeeFn, dst: usize, src: usize, len: usize, stage: &Edge) -> Option<guard::Interrupted> {
    // SAFETY: every caller passes mappings of its own, which no reference covers, and has the handler in place for bad
    // memory on either side. The stage is accessible, and it begins at a page.
    let stop = unsafe { guard::tee(routine, dst, src, len, stage.0) };
    arch::store_fence();
    stop
}

#[test]
fn a_source_that_ends_is_in_both_places_to_the_bytes_that_can_still_be_read() {
    let Some(_path) = armed() else { return };
    let (source, target, stage) = (Edge::new(7), Edge::new(0), Edge::new(0));
    for (name, routine) in routines() {
        for (before, beyond) in (0..=600).flat_map(|before| BEYOND.map(|beyond| (before, beyond))) {
            let (len, case) = ((before + beyond).next_multiple_of(LINE), (&name, before, beyond));
            target.fill(0, len, 0);
            stage.fill(0, len, 0);
            let stop = tee(routine, target.0, source.end() - before, len, &stage);
            let stop = stop.expect("the page behind is protected");
            let done = len - stop.left;
            assert!(!stop.is_store && done + stop.readable == before, "{case:?} {stop:?}");
            assert_eq!((stop.dst, stop.src), (target.0 + done, source.end() - stop.readable), "{case:?}");
            assert!((0..len).all(|at| target.byte(at) == if at < done { 7 } else { 0 }), "{case:?}");
            assert!((0..done).all(|at| stage.byte(at) == 7), "{case:?}");
        }
    }
}

#[test]
fn a_destination_that_ends_is_written_to_its_last_line() {
    let Some(_path) = armed() else { return };
    let (source, target, stage) = (Edge::new(7), Edge::new(0), Edge::new(0));
    for (name, routine) in routines() {
        for (lines, beyond, skew) in
            (0..12).flat_map(|lines| [1, 12].into_iter().flat_map(move |more| SKEWS.map(|skew| (lines, more, skew))))
        {
            let (before, len) = (lines * LINE, (lines + beyond) * LINE);
            let case = (&name, before, len, skew);
            let start = PAGES * PAGE_SIZE - before;
            target.fill(start, before, 0);
            stage.fill(0, len, 0);
            let stop = tee(routine, target.end() - before, source.0 + skew, len, &stage);
            let stop = stop.expect("the page behind is protected");
            let expected = (target.end(), source.0 + skew + before, len - before, 0, true);
            assert_eq!((stop.dst, stop.src, stop.left, stop.readable, stop.is_store), expected, "{case:?}");
            assert!((start..start + before).all(|at| target.byte(at) == 7), "{case:?}");
            assert!((0..before).all(|at| stage.byte(at) == 7), "{case:?}");
        }
    }
}

#[test]
fn whichever_side_goes_at_any_moment_both_places_have_what_counts() {
    let Some(_path) = armed() else { return };
    let (source, target, stage) = (Edge::new(7), Edge::new(0), Edge::new(0));
    let page = source.end() - PAGE_SIZE;
    for (name, routine) in routines() {
        for (len, skew) in [(64, 0), (64, 5), (448, 33), (576, 0)] {
            for (gone, is_store) in [(page, false), (target.0, true)] {
                let run = || tee(routine, target.0, page + skew, len, &stage);
                taken_before_each_access(gone, &target, run, |stop| {
                    let done = stop.map_or(len, |stop| len - stop.left);
                    let more = written(&target, 0).checked_sub(done);
                    assert!(more.is_some_and(|more| more < LINE), "{name} {len} {skew}: {more:?}");
                    assert!((0..done).all(|at| stage.byte(at) == 7), "{name} {len} {skew}");
                    assert!(stop.is_none_or(|stop| stop.left > 0 && stop.is_store == is_store), "{stop:?}");
                    stage.fill(0, len, 0);
                });
            }
        }
    }
}

/// Every byte of the source changes before each access, so bytes that were loaded twice would differ.
#[test]
fn a_source_that_changes_at_any_moment_is_the_same_in_both_places() {
    let Some(_path) = armed() else { return };
    let (source, target, stage) = (Edge::new(7), Edge::new(0), Edge::new(0));
    let len = 576;
    for (name, routine) in routines() {
        let mut turn = 0_u8;
        let change = || {
            turn = turn.wrapping_add(1);
            source.fill(0, len, turn);
        };
        let stop = arch::stepped(change, || tee(routine, target.0, source.0, len, &stage));
        assert!(stop.is_none());
        assert!((0..len).all(|at| target.byte(at) == stage.byte(at)), "{name}");
        assert_ne!(target.byte(0), target.byte(len - 1), "{name}: the source has changed meanwhile");
    }
}

type Copy = fn(Memory, Memory, &mut u32) -> usize;

/// Copies with a sum, to the first memory from the second.
const COPIES: [(&str, Copy); 5] = [
    ("memcpy", |dst, src, crc| crc32c::memcpy(dst, src, crc).unwrap().0),
    ("memcpy_nocache", |dst, src, crc| crc32c::memcpy_nocache(dst, src, crc).unwrap().0),
    ("copy_to_iter", |dst, src, crc| {
        let mut i = IovIter::ubuf(Direction::Dest, dst, None).unwrap();
        crc32c::copy_to_iter(src, &mut i, src.len(), crc).unwrap()
    }),
    ("copy_from_iter", |dst, src, crc| {
        let mut i = IovIter::ubuf(Direction::Source, src, None).unwrap();
        crc32c::copy_from_iter(dst, &mut i, src.len(), crc).unwrap()
    }),
    ("copy_from_iter_nocache", |dst, src, crc| {
        let mut i = IovIter::ubuf(Direction::Source, src, None).unwrap();
        crc32c::copy_from_iter_nocache(dst, &mut i, src.len(), crc).unwrap()
    }),
];

fn memory(addr: usize, len: usize) -> Memory {
    // SAFETY: every caller passes a range of a mapping of its own, which stays until the copies are done, and to which
    // nobody refers.
    unsafe { Memory::new(Segment::new(addr, len), UNCHECKED) }
}

fn sum(len: usize) -> u32 {
    crc32c::of_bytes(&vec![7; len])
}

/// In every block, and by every set: also by those that copy through the stage.
#[test]
fn the_sum_is_that_of_the_bytes_before_the_end_of_either_side() {
    let Some(_path) = armed() else { return };
    let _setting = Setting::keep();
    let (source, target) = (Edge::new(7), Edge::new(0));
    for (set, (name, copy)) in arch::available().flat_map(|set| COPIES.map(|copy| (set, copy))) {
        arch::choose(set.name);
        for before in (0..=700).chain((1500..4000).step_by(29)) {
            let (len, skew) = (before + 700, before % 3 * 17);
            let (mut by_source, mut by_target) = (0, 0);
            target.fill(0, skew + len, 0);
            let done = copy(memory(target.0 + skew, len), memory(source.end() - before, len), &mut by_source);
            assert_eq!((done, by_source), (before, sum(before)), "{} {name}", set.name);
            assert!((skew..skew + len).all(|at| target.byte(at) == if at < skew + before { 7 } else { 0 }), "{name}");
            let done = copy(memory(target.end() - before, len), memory(source.0 + skew, len), &mut by_target);
            assert_eq!((done, by_target), (before, sum(before)), "{} {name}", set.name);
            assert!((PAGES * PAGE_SIZE - before..PAGES * PAGE_SIZE).all(|at| target.byte(at) == 7), "{name}");
        }
    }
}

#[test]
fn the_sum_is_that_of_what_was_written_whenever_a_page_goes() {
    let Some(_path) = armed() else { return };
    let (source, target) = (Edge::new(7), Edge::new(0));
    let (page, len) = (source.end() - PAGE_SIZE, 600);
    for ((name, copy), gone) in [COPIES[1], COPIES[2]].into_iter().flat_map(|copy| [(copy, page), (copy, target.0)]) {
        let run = || {
            let mut crc = 0;
            (copy(memory(target.0, len), memory(page + 5, len), &mut crc), crc)
        };
        taken_before_each_access(gone, &target, run, |(done, crc)| {
            let more = written(&target, 0).checked_sub(done);
            assert!(more.is_some_and(|more| more < LINE), "{name}: {more:?}");
            assert_eq!(crc, sum(done), "{name}: {done}");
        });
    }
}
