//! Positions over addresses that are never touched.

use super::{IovIter, IterState};
use crate::abi::Direction;
use crate::memory::{Backing, Memories, Memory, Segment};

fn iovec(segs: &[(usize, usize)], count: Option<usize>) -> IovIter {
    let segs: Vec<Segment> = segs.iter().map(|(addr, len)| Segment::new(*addr, *len)).collect();
    // SAFETY: nothing touches it.
    let ranges = unsafe { Memories::new(segs, Backing::Unchecked) };
    IovIter::iovec(Direction::Dest, ranges, count).unwrap()
}

/// Touches nothing and stops at one place.
struct Count(usize);

impl super::Step for Count {
    fn step(&mut self, _addr: usize, progress: usize, len: usize) -> usize {
        len - len.min(self.0.saturating_sub(progress))
    }
}

/// Notes the address of each byte that it is given, and stops after some.
struct Bytes {
    found: Vec<usize>,
    limit: usize,
}

impl super::Step for Bytes {
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize {
        assert_eq!(progress, self.found.len());
        let done = len.min(self.limit - progress);
        self.found.extend(addr..addr + done);
        len - done
    }
}

fn state(i: &IovIter) -> (usize, usize, usize) {
    let IterState { iov_offset, count, nr_segs } = i.save_state();
    (iov_offset, count, nr_segs)
}

const SEGS: &[(usize, usize)] = &[(0x1000, 4), (0x2000, 0), (0x3ffe, 5), (0x8000, 0), (0x9001, 6)];

#[test]
fn copying_and_advancing_rest_in_different_places() {
    let mut copied = iovec(SEGS, None);
    assert_eq!(copied.walk(4, &mut Count(99)), 4);
    assert_eq!(state(&copied), (0, 11, 4));
    let mut advanced = iovec(SEGS, None);
    advanced.advance(4).unwrap();
    assert_eq!(state(&advanced), (0, 11, 3));
}

#[test]
fn a_short_step_ends_the_walk_where_it_stopped() {
    for (limit, expected) in [(4, (0, 11, 3)), (7, (3, 8, 3)), (0, (0, 15, 5))] {
        let mut i = iovec(SEGS, None);
        assert_eq!(i.walk(15, &mut Count(limit)), limit);
        assert_eq!(state(&i), expected);
    }
}

#[test]
fn equal_segments_are_walked_as_any_others() {
    let lists: [&[usize]; 7] = [
        &[4, 4],
        &[4, 4, 4, 4, 3],
        &[1, 5, 5, 5, 5, 5, 2, 5, 5],
        &[0, 3, 3, 0, 3, 3, 0],
        &[2, 7, 2, 7, 7],
        &[1; 9],
        &[512, 512, 513, 513],
    ];
    for lens in lists {
        let segs: Vec<_> = lens.iter().enumerate().map(|(index, len)| ((index + 1) << 12, *len)).collect();
        let bytes: Vec<_> = segs.iter().flat_map(|(addr, len)| *addr..addr + len).collect();
        let step = if bytes.len() > 100 { 127 } else { 1 };
        let places = || (0..=bytes.len()).step_by(step);
        for (start, end) in places().flat_map(|start| places().map(move |end| (start, end))).filter(|(s, e)| s <= e) {
            for stop in (0..=end - start).step_by(step) {
                let mut i = iovec(&segs, None);
                i.advance(start).unwrap();
                let mut walked = Bytes { found: Vec::new(), limit: stop };
                assert_eq!(i.walk(end - start, &mut walked), stop, "{lens:?} {start}..{end}");
                assert_eq!(walked.found, bytes[start..start + stop], "{lens:?} {start}..{end}");
                let mut rest = Bytes { found: Vec::new(), limit: usize::MAX };
                assert_eq!(i.walk(usize::MAX, &mut rest), bytes.len() - start - stop, "{lens:?} {start}..{end}");
                assert_eq!(rest.found, bytes[start + stop..], "{lens:?}: the position after {stop}");
            }
        }
    }
}

#[test]
fn reverting_steps_back_over_empty_segments() {
    let mut i = iovec(SEGS, None);
    i.advance(15).unwrap();
    i.revert(6).unwrap();
    assert_eq!(state(&i), (0, 6, 1));
    i.revert(1).unwrap();
    assert_eq!(state(&i), (4, 7, 3));
    let before = i.save_state();
    assert!(i.revert(9).is_err());
    assert_eq!(i.save_state(), before);
}

#[test]
fn a_duplicate_begins_where_it_was_made() {
    let mut i = iovec(SEGS, None);
    i.advance(6).unwrap();
    let saved = i.save_state();
    let mut dup = i.dup().unwrap();
    dup.advance(9).unwrap();
    assert!(dup.revert(12).is_err());
    dup.revert(9).unwrap();
    assert_eq!(dup.save_state(), saved);
    i.revert(6).unwrap();
    assert_eq!(state(&i), (0, 15, 5));
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    let mut i = iovec(SEGS, None);
    for bad in [(5, 11, 5), (0, 16, 5), (0, 0, 6), (1, 0, 0)] {
        let bad = IterState { iov_offset: bad.0, count: bad.1, nr_segs: bad.2 };
        assert!(i.restore(bad).is_err(), "{bad:?}");
    }
    assert_eq!(state(&i), (0, 15, 5));
}

#[test]
fn what_a_copy_takes_back_may_be_more_than_one_transfer() {
    // SAFETY: nothing touches it.
    let range = unsafe { Memory::new(Segment::new(0x1000, 8 << 30), Backing::Unchecked) };
    let mut i = IovIter::ubuf(Direction::Dest, range, None).unwrap();
    i.advance(5 << 30).unwrap();
    assert!(i.revert(5 << 30).is_err());
    i.take_back(5 << 30).unwrap();
    assert_eq!(state(&i), (0, 8 << 30, 1));
}
