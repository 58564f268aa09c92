//! Copies between flat memory and lists of lines, by every instruction set that has a routine for them. It takes all
//! but the last few segments, and stops where it leaves one to the caller.

use super::{RED, pattern, sets};
use crate::abi::{Direction, PAGE_SIZE};
use crate::arch::{LINE, LINES_AHEAD, Primitives, guard};
use crate::memory::Segment;
use std::sync::atomic::AtomicU32;

/// How many segments the routine may take.
const COUNT: usize = 100;
/// Bytes on either side: the segments and gaps between them.
const ROOM: usize = 4 * PAGE_SIZE;

/// Memory that begins at a page boundary.
struct Room {
    bytes: Vec<u8>,
    start: usize,
}

impl Room {
    fn new(content: &[u8]) -> Self {
        let mut bytes = vec![0; ROOM + PAGE_SIZE];
        let start = bytes.as_ptr().align_offset(PAGE_SIZE);
        bytes[start..start + ROOM].copy_from_slice(content);
        Self { bytes, start }
    }

    fn addr(&mut self) -> usize {
        self.bytes[self.start..].as_mut_ptr().expose_provenance()
    }

    fn content(&self) -> &[u8] {
        &self.bytes[self.start..self.start + ROOM]
    }
}

/// Offsets of segments that lie in one page each, at all distances from a line boundary, in no order.
fn offsets() -> Vec<usize> {
    (0..COUNT + LINES_AHEAD)
        .map(|number| number * 37 % 164)
        .map(|slot| slot / 48 * PAGE_SIZE + slot % 48 * 83)
        .collect()
}

/// Copies between the segments at `listed`, of which one may have another length, and flat memory from `flat` on.
/// Checks that the first `expected` segments are copied, and no other byte.
fn check(set: &Primitives, direction: Direction, listed: &[usize], other: Option<usize>, flat: usize, expected: usize) {
    let (source, blank) = (pattern(ROOM), vec![RED; ROOM]);
    let (mut from, mut to) = (Room::new(&source), Room::new(&blank));
    let (list_start, flat_start) = match direction {
        Direction::Source => (from.addr(), to.addr() + flat),
        Direction::Dest => (to.addr(), from.addr() + flat),
    };
    let mut list: Vec<_> = listed.iter().map(|at| Segment::new(list_start + at, LINE)).collect();
    if let Some(other) = other {
        list[other].len += 1;
    }
    let watched = (&AtomicU32::new(5), 5);
    // SAFETY: all segments and as many lines of the flat side lie in the rooms, which nobody else refers to.
    let (taken, stop) = unsafe { guard::copy_lines(set, direction, &list, flat_start, watched) };
    assert!(stop.is_none());
    let case = (set.name, direction, other, flat);
    assert_eq!(taken, expected, "{case:?}");
    let mut wanted = blank;
    for (number, at) in listed[..expected].iter().enumerate() {
        let (dst, src) = match direction {
            Direction::Source => (flat + number * LINE, *at),
            Direction::Dest => (*at, flat + number * LINE),
        };
        wanted[dst..dst + LINE].copy_from_slice(&source[src..src + LINE]);
    }
    assert!(to.content() == wanted, "{case:?}");
}

/// Every set that has the routine, and both directions.
fn each(test: impl Fn(&Primitives, Direction)) {
    for set in sets().filter(|set| set.lines.is_some()) {
        test(set, Direction::Source);
        test(set, Direction::Dest);
    }
}

#[test]
fn all_lines_of_a_list_but_the_last_are_copied_and_nothing_else() {
    each(|set, direction| {
        check(set, direction, &offsets(), None, 0, COUNT);
        check(set, direction, &offsets()[..=LINES_AHEAD], None, LINE, 1);
        check(set, direction, &offsets()[..LINES_AHEAD], None, 0, 0);
        check(set, direction, &[], None, 0, 0);
    });
}

#[test]
fn a_segment_of_another_length_is_left() {
    each(|set, direction| {
        for other in [0, 1, 2, 50, COUNT - 1] {
            check(set, direction, &offsets(), Some(other), 0, other);
        }
        check(set, direction, &offsets(), Some(COUNT), 0, COUNT);
    });
}

#[test]
fn a_destination_that_straddles_pages_is_left_and_a_source_is_not() {
    for distance in 1..LINE {
        each(|set, direction| {
            let mut listed = offsets();
            listed[3] = PAGE_SIZE - distance;
            check(set, direction, &listed, None, 0, if direction == Direction::Dest { 3 } else { COUNT });
            let flat = PAGE_SIZE - 7 * LINE - distance;
            check(set, direction, &offsets(), None, flat, if direction == Direction::Source { 7 } else { COUNT });
        });
    }
}

#[test]
fn no_segment_is_taken_behind_the_one_after_which_the_word_is_another() {
    each(|set, direction| {
        let (mut from, mut to) = (Room::new(&pattern(ROOM)), Room::new(&vec![RED; ROOM]));
        let (listed, flat) = match direction {
            Direction::Source => (from.addr(), to.addr()),
            Direction::Dest => (to.addr(), from.addr()),
        };
        let list: Vec<_> = (0..COUNT + LINES_AHEAD).map(|number| Segment::new(listed + number * LINE, LINE)).collect();
        // SAFETY: all segments and as many lines of the flat side lie in the rooms, which nobody else refers to.
        let (taken, stop) = unsafe { guard::copy_lines(set, direction, &list, flat, (&AtomicU32::new(6), 5)) };
        assert!(taken == 1 && stop.is_none(), "{} {direction:?} {taken}", set.name);
        assert!(to.content()[LINE..].iter().all(|byte| *byte == RED), "{} {direction:?}", set.name);
    });
}
