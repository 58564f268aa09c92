//! Tests of durability: the code runs over a recorder of what was done to each byte.

mod ledger;

use super::recorder::{Place, Recorder};
use super::{Flush, Gather, LineStore, Scatter, copy_alone};
use crate::abi::{Direction, PAGE_SIZE};
use crate::arch::LINE;
use crate::copy::step::{FromIter, ToIter};
use crate::iter::IovIter;
use crate::memory::{Backing, Memories, Memory, Page, Segment};
use crate::structure::{FolioQueue, XArray};
use std::sync::Arc;

/// Memory of a test that begins at a page boundary.
struct Arena {
    bytes: Vec<u8>,
    skip: usize,
    len: usize,
}

impl Arena {
    fn new(len: usize) -> Self {
        let mut bytes = vec![0xEE; len + PAGE_SIZE];
        let skip = bytes.as_mut_ptr().addr().wrapping_neg() % PAGE_SIZE;
        Self { bytes, skip, len }
    }

    fn pattern(len: usize) -> Self {
        let mut arena = Self::new(len);
        let skip = arena.skip;
        for (at, byte) in arena.bytes[skip..skip + len].iter_mut().enumerate() {
            *byte = (at * 7 + at / 256) as u8 | 1;
        }
        arena
    }

    fn base(&mut self) -> usize {
        self.bytes.as_mut_ptr().expose_provenance() + self.skip
    }

    fn contents(&self) -> &[u8] {
        &self.bytes[self.skip..self.skip + self.len]
    }
}

fn at(addr: usize, len: usize) -> Memory {
    // SAFETY: every test passes ranges of its arenas, which it neither moves nor refers to until its last copy is done.
    unsafe { Memory::new(Segment::new(addr, len), Backing::Heap) }
}

/// Copies one range as a flat copy does. Returns the bytes not copied.
fn copy_flat<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    // SAFETY: the callers pass ranges of their own arenas, or a ledger, which touches nothing.
    let left = unsafe { copy_alone(store, flush, 0, dst, src, len) };
    store.fence();
    left
}

/// Copies one range as a flat copy does on a CPU on which every length goes through the cache. Returns the bytes not
/// copied.
fn copy_through_cache<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    // SAFETY: the callers pass ranges of their own arenas, or a ledger, which touches nothing.
    let left = unsafe { copy_alone(store, flush, usize::MAX, dst, src, len) };
    store.fence();
    left
}

/// Gathers `len` bytes of an iterator to `dst`. Returns the bytes taken from the iterator, and how many of those were
/// not written.
fn gather(recorder: &mut Recorder, i: &mut IovIter, dst: usize, len: usize) -> (usize, usize) {
    let mut gather = Gather::new(recorder, Flush::Lines, dst + len);
    // SAFETY: the callers pass ranges of their own arenas.
    let mut step = unsafe { FromIter::new(dst, &mut gather) };
    let taken = i.walk(len, &mut step);
    (taken, gather.finish())
}

/// Checks that all `len` bytes at `at` are on the medium, that no other byte was written, and that no rule was broken.
fn check(recorder: &Recorder, at: usize, len: usize, case: &impl std::fmt::Debug) {
    for (byte, place) in recorder.places.iter().enumerate() {
        let expected = if byte >= at && byte < at + len { Place::Medium } else { Place::Untouched };
        assert_eq!(*place, expected, "byte {byte}: {case:?}");
    }
    assert_eq!((recorder.fences, &recorder.broken), (1, &Vec::new()), "{case:?}");
    assert_eq!(recorder.written_back_twice(), 0, "{case:?}");
}

const OFFSETS: usize = 128;
const LENGTHS: usize = 1024;

#[test]
fn every_offset_and_length_is_durable_on_return() {
    let mut source = Arena::pattern(LENGTHS + LINE);
    let mut arena = Arena::new(OFFSETS + LENGTHS + LINE);
    for dst_at in 0..OFFSETS {
        for len in 0..=LENGTHS {
            let src_at = (dst_at * 5 + len) % LINE;
            for way in [copy_flat, copy_through_cache] {
                let mut recorder = Recorder::new(arena.base(), arena.len);
                let left = way(&mut recorder, Flush::Lines, arena.base() + dst_at, source.base() + src_at, len);
                assert_eq!(left, 0);
                check(&recorder, dst_at, len, &(dst_at, len));
                assert_eq!(arena.contents()[dst_at..dst_at + len], source.contents()[src_at..src_at + len]);
            }
        }
    }
}

/// A deterministic sequence of numbers below a limit.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    /// Lengths that add up to `total`: some short, some long, some 0.
    fn lengths(&mut self, total: usize) -> Vec<usize> {
        let mut lengths = Vec::new();
        let mut left = total;
        while left > 0 {
            let most = [2, 9, 65, 200, 300, 1500, 5000][self.below(7)];
            let len = if self.below(3) == 0 { self.below(most) / LINE * LINE } else { self.below(most) };
            lengths.push(len.min(left));
            left -= len.min(left);
        }
        lengths
    }
}

/// Iterators of every kind that has memory, over the same bytes.
fn every_kind(memory: Segment, lengths: &[usize], direction: Direction) -> Vec<IovIter> {
    let mut segs = Vec::new();
    let mut start = memory.addr;
    for len in lengths {
        segs.push(at(start, *len));
        start += len;
    }
    let segs: Memories = segs.into_iter().collect();
    let pages = memory.len.div_ceil(PAGE_SIZE);
    let page = |index: usize| Page::new(at(memory.addr + index * PAGE_SIZE, PAGE_SIZE), true, Arc::new(()));
    let (xarray, queue) = (XArray::default(), FolioQueue::new(3));
    for index in 0..pages {
        xarray.store(index, page(index)).unwrap();
        queue.append(page(index)).unwrap();
    }
    let total = lengths.iter().sum();
    vec![
        IovIter::ubuf(direction, at(memory.addr, memory.len), Some(total)).unwrap(),
        IovIter::iovec(direction, segs.clone(), None).unwrap(),
        IovIter::kvec(direction, segs.clone(), None).unwrap(),
        IovIter::bvec(direction, segs, vec![0; lengths.len()], None).unwrap(),
        IovIter::xarray(direction, Arc::new(xarray), 0, total).unwrap(),
        IovIter::folioq(direction, Arc::new(queue), 0, 0, total).unwrap(),
    ]
}

#[test]
fn gathered_from_every_kind_each_line_is_written_once() {
    let mut numbers = Numbers(1);
    let mut source = Arena::pattern(4 * PAGE_SIZE);
    let mut arena = Arena::new(4 * PAGE_SIZE + 2 * LINE);
    for round in 0..200 {
        let total = 1 + numbers.below(4 * PAGE_SIZE);
        let (dst_at, mut lengths) = (numbers.below(2 * LINE), numbers.lengths(total));
        if round % 8 == 0 {
            // Short segments only, so that the buffer fills up more than once.
            lengths = vec![100; total / 100];
            lengths.push(total % 100);
        }
        let memory = Segment::new(source.base(), 4 * PAGE_SIZE);
        for mut i in every_kind(memory, &lengths, Direction::Source) {
            let dst = arena.base() + dst_at;
            let mut recorder = Recorder::new(arena.base(), arena.len);
            assert_eq!(gather(&mut recorder, &mut i, dst, total), (total, 0));
            check(&recorder, dst_at, total, &(i.kind(), dst_at, &lengths));
            assert_eq!(arena.contents()[dst_at..dst_at + total], source.contents()[..total], "{:?}", i.kind());
        }
    }
}

#[test]
fn scattered_to_every_kind_all_is_durable_on_return() {
    let mut numbers = Numbers(2);
    let mut source = Arena::pattern(4 * PAGE_SIZE);
    let mut arena = Arena::new(4 * PAGE_SIZE);
    for _ in 0..100 {
        let total = 1 + numbers.below(4 * PAGE_SIZE);
        let lengths = numbers.lengths(total);
        let memory = Segment::new(arena.base(), 4 * PAGE_SIZE);
        for mut i in every_kind(memory, &lengths, Direction::Dest) {
            let mut recorder = Recorder::new(memory.addr, memory.len);
            let mut scatter = Scatter::new(&mut recorder);
            // SAFETY: both ranges are arenas of this test with at least `total` bytes, to which nobody refers
            // meanwhile.
            let mut step = unsafe { ToIter::new(source.base(), &mut scatter) };
            assert_eq!(i.walk(total, &mut step), total);
            scatter.finish();
            for (byte, place) in recorder.places.iter().enumerate() {
                let expected = if byte < total { Place::Medium } else { Place::Untouched };
                assert_eq!(*place, expected, "{:?} byte {byte}: {lengths:?}", i.kind());
            }
            assert_eq!(recorder.fences, 1);
            assert_eq!(arena.contents()[..total], source.contents()[..total], "{:?}", i.kind());
        }
    }
}

/// A bug of the kernel's user copy: after a fault in an aligned source, it stored the bytes before the fault through
/// the cache, and did not write them back.
#[test]
fn what_a_fault_cut_short_is_durable_to_the_byte() {
    let mut numbers = Numbers(3);
    let mut source = Arena::pattern(4 * PAGE_SIZE);
    let mut arena = Arena::new(4 * PAGE_SIZE + 2 * LINE);
    for round in 0..600 {
        let total = 1 + numbers.below(4 * PAGE_SIZE);
        let (dst_at, lengths) = (numbers.below(2 * LINE), numbers.lengths(total));
        let dst = arena.base() + dst_at;
        let bad = numbers.below(total);
        for mut i in every_kind(Segment::new(source.base(), 4 * PAGE_SIZE), &lengths, Direction::Source) {
            let mut recorder = Recorder::new(arena.base(), arena.len);
            let expected = if round % 2 == 0 {
                recorder.bad_source = Segment::new(source.base() + bad, total - bad);
                bad
            } else {
                recorder.bad_destination = (dst + bad) / LINE * LINE;
                recorder.bad_destination.saturating_sub(dst)
            };
            let (taken, lost) = gather(&mut recorder, &mut i, dst, total);
            let done = taken - lost;
            let case = (i.kind(), dst_at, bad, &lengths);
            assert_eq!(done, expected, "{case:?}");
            i.revert(taken - done).unwrap();
            assert_eq!(i.count(), total - done, "{case:?}");
            assert_eq!(recorder.places.iter().filter(|place| **place == Place::Medium).count(), done, "{case:?}");
            assert!(recorder.places[dst_at..dst_at + done].iter().all(|place| *place == Place::Medium), "{case:?}");
            assert!(!recorder.places.contains(&Place::Dirty), "{case:?}");
            assert_eq!(arena.contents()[dst_at..dst_at + done], source.contents()[..done], "{case:?}");
        }
    }
}

#[test]
fn one_range_that_a_fault_cut_short_is_durable_to_the_byte_either_way() {
    let mut source = Arena::pattern(4 * LINE);
    let mut arena = Arena::new(6 * LINE);
    for way in [copy_flat, copy_through_cache] {
        for (dst_at, len) in [(0, 8), (0, 64), (5, 100), (60, 8), (63, 200), (64, 192), (100, 1)] {
            for bad in 0..len {
                for is_source_bad in [true, false] {
                    let mut recorder = Recorder::new(arena.base(), arena.len);
                    let dst = arena.base() + dst_at;
                    let done = if is_source_bad {
                        recorder.bad_source = Segment::new(source.base() + bad, len - bad);
                        bad
                    } else {
                        recorder.bad_destination = (dst + bad) / LINE * LINE;
                        recorder.bad_destination.saturating_sub(dst)
                    };
                    let case = (dst_at, len, bad, is_source_bad);
                    assert_eq!(way(&mut recorder, Flush::Lines, dst, source.base(), len), len - done, "{case:?}");
                    let is_medium = |place: &Place| *place == Place::Medium;
                    assert!(recorder.places[dst_at..dst_at + done].iter().all(is_medium), "{case:?}");
                    assert_eq!(recorder.places.iter().filter(|place| is_medium(place)).count(), done, "{case:?}");
                    assert!(!recorder.places.contains(&Place::Dirty), "{case:?}");
                    assert_eq!(arena.contents()[dst_at..dst_at + done], source.contents()[..done], "{case:?}");
                }
            }
        }
    }
}

/// Two bugs of the kernel's flush copy: when fewer than eight bytes crossed the end of a line it wrote back only one
/// line, and only the user copy fenced.
#[test]
fn seven_bytes_over_the_end_of_a_line_leave_both_lines() {
    let mut source = Arena::pattern(LINE);
    let mut arena = Arena::new(3 * LINE);
    for at in 0..LINE {
        for len in 1..8 {
            let mut recorder = Recorder::new(arena.base(), arena.len);
            let mut i = every_kind(Segment::new(source.base(), LINE), &[len], Direction::Source).remove(2);
            assert_eq!(gather(&mut recorder, &mut i, arena.base() + at, len), (len, 0));
            check(&recorder, at, len, &(at, len));
        }
    }
}
