//! Compares the map with a naive model that keeps every byte, over so few bytes that everything can be tried.

use super::shared::SharedMap;
use super::spans::count_leading;
use super::{Access, FaultMap, Range, Span};
use crate::memory::Segment;

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Both];

/// The model: for each byte, the accesses that are bad, as bits. Its first byte may be at any address.
#[derive(Clone)]
struct Naive {
    base: usize,
    bytes: Vec<u8>,
}

impl Naive {
    fn ranges(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> = Vec::new();
        for (at, bits) in self.bytes.iter().enumerate() {
            let Some(access) = ACCESSES.into_iter().find(|access| *access as u8 == *bits) else { continue };
            let address = self.base + at;
            match ranges.last_mut() {
                Some(range) if range.access == access && range.last + 1 == address => range.last = address,
                _ => ranges.push(Range { start: address, last: address, access }),
            }
        }
        ranges
    }

    fn first_in(&self, at: usize, len: usize, access: Access) -> Option<Range> {
        let bad = (at..at + len).find(|byte| self.bytes[*byte] & access as u8 != 0)?;
        self.ranges().into_iter().find(|range| range.last >= self.base + bad)
    }
}

/// Checks that the map answers everything as the model does.
fn agree(map: &FaultMap, naive: &Naive) {
    let (base, size) = (naive.base, naive.bytes.len());
    let ranges = naive.ranges();
    assert_eq!(map.iter().collect::<Vec<_>>(), ranges);
    assert_eq!((map.len(), map.is_empty()), (ranges.len(), ranges.is_empty()));
    for at in 0..size {
        assert_eq!(map.contains(base + at), naive.bytes[at] != 0);
        for len in 0..=size - at {
            for access in ACCESSES {
                let first = naive.first_in(at, len, access);
                assert_eq!(map.intersects(base + at, len as u128, access), first.is_some());
                assert_eq!(map.first_in(base + at, len as u128, access), first);
            }
            let (first, end) = (base + at, base + at + len.saturating_sub(1));
            let clipped: Vec<Range> = ranges
                .iter()
                .filter(|range| len > 0 && range.start <= end && range.last >= first)
                .map(|range| Range { start: range.start.max(first), last: range.last.min(end), ..*range })
                .collect();
            assert_eq!(map.within(first, len as u128).collect::<Vec<_>>(), clipped);
        }
    }
}

/// Adds a range (`Some`) to both, or clears it (`None`).
fn apply(map: &mut FaultMap, naive: &mut Naive, at: usize, len: usize, access: Option<Access>) {
    let start = naive.base + at;
    for byte in &mut naive.bytes[at..at + len] {
        *byte = access.map_or(0, |access| *byte | access as u8);
    }
    match access {
        Some(access) => map.add(start, len as u128, access).unwrap(),
        None => map.clear(start, len as u128).unwrap(),
    }
}

fn changes() -> impl Iterator<Item = Option<Access>> {
    ACCESSES.into_iter().map(Some).chain([None])
}

/// Makes every change of every span of five bytes, from every state that five bytes can be in. This includes every
/// split and merge.
#[test]
fn every_change_of_every_short_line_is_the_naive_one() {
    const SIZE: usize = 5;
    for base in [0, usize::MAX - (SIZE - 1)] {
        for state in 0..4u32.pow(SIZE as u32) {
            let mut naive = Naive { base, bytes: vec![0; SIZE] };
            let mut map = FaultMap::new();
            for at in 0..SIZE {
                let bits = (state / 4u32.pow(at as u32)) as u8 % 4;
                let access = ACCESSES.into_iter().find(|access| *access as u8 == bits);
                apply(&mut map, &mut naive, at, 1, access);
            }
            agree(&map, &naive);
            for at in 0..SIZE {
                for (len, change) in (0..=SIZE - at).flat_map(|len| changes().map(move |change| (len, change))) {
                    let (mut map, mut naive) = (map.try_clone().unwrap(), naive.clone());
                    apply(&mut map, &mut naive, at, len, change);
                    assert_eq!(map.iter().collect::<Vec<_>>(), naive.ranges(), "{state} {at} {len} {change:?}");
                }
            }
        }
    }
}

#[test]
fn long_random_histories_are_the_naive_ones() {
    const SIZE: usize = 24;
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % n
    };
    for base in [0, 1 << 40, usize::MAX - (SIZE - 1)] {
        let (mut map, mut naive) = (FaultMap::new(), Naive { base, bytes: vec![0; SIZE] });
        for _ in 0..400 {
            let at = below(SIZE);
            let len = below(SIZE - at + 1).min(1 + below(12));
            let change = changes().nth(below(4)).unwrap();
            apply(&mut map, &mut naive, at, len, change);
            agree(&map, &naive);
        }
    }
}

#[test]
fn the_whole_line_is_one_range() {
    let whole = 1u128 << 64;
    let mut map = FaultMap::new();
    map.add(0, 1 << 63, Access::Read).unwrap();
    map.add(1 << 63, 1 << 63, Access::Read).unwrap();
    let all = Range { start: 0, last: usize::MAX, access: Access::Read };
    assert_eq!((map.iter().collect::<Vec<_>>(), all.length()), (vec![all], whole));
    assert_eq!(map.first_in(usize::MAX, 1, Access::Both), Some(all));
    assert_eq!(map.first_in(0, whole, Access::Write), None);
    map.clear(5, whole - 5).unwrap();
    assert_eq!(map.iter().collect::<Vec<_>>(), [Range { start: 0, last: 4, access: Access::Read }]);
    map.clear(0, whole).unwrap();
    assert!(map.is_empty());
}

#[test]
fn what_passes_the_end_of_the_line_is_refused_and_changes_nothing() {
    let mut map = FaultMap::new();
    map.add(usize::MAX - 9, 10, Access::Both).unwrap();
    let before = map.try_clone().unwrap();
    for (start, length) in [(usize::MAX, 2), (1, 1 << 64), (0, (1 << 64) + 1), (usize::MAX, u128::MAX)] {
        let message = format!("start is {start} and length {length}: the range ends past 2**64");
        assert_eq!(map.add(start, length, Access::Read).unwrap_err().to_string(), message);
        assert_eq!(map.clear(start, length).unwrap_err().to_string(), message);
        assert_eq!(Span::new(start, length).unwrap_err().to_string(), message);
    }
    assert_eq!(map, before);
    assert_eq!(map.first_in(usize::MAX, u128::MAX, Access::Read), before.iter().next());
}

#[test]
fn ranges_of_the_other_access_do_not_slow_a_query_down() {
    let mut map = FaultMap::new();
    let count = 200_000;
    for at in 0..count {
        map.add(at * 4, 2, Access::Write).unwrap();
    }
    map.add(count * 4, 1, Access::Read).unwrap();
    // A walk over the ranges that cannot be written would take far too long.
    let last = Range { start: count * 4, last: count * 4, access: Access::Read };
    for at in 0..count {
        assert_eq!(map.first_in(at * 4, u128::MAX, Access::Read), Some(last));
    }
}

#[test]
fn what_lies_beside_a_shared_map_is_known_without_its_lock() {
    let shared = SharedMap::new(FaultMap::new());
    let (low, bad, high) = (Segment::new(0, 100), Segment::new(100, 50), Segment::new(150, usize::MAX - 150));
    assert!([low, bad, high, Segment::new(usize::MAX, 1)].iter().all(|seg| shared.is_beside(*seg)));
    shared.lock().add(100, 50, Access::Write).unwrap();
    assert_eq!([low, bad, high].map(|seg| shared.is_beside(seg)), [true, false, true]);
    assert_eq!([Segment::new(99, 2), Segment::new(149, 2)].map(|seg| shared.is_beside(seg)), [false, false]);
    assert!(shared.is_beside(Segment::new(120, 0)));
    shared.lock().add(usize::MAX, 1, Access::Read).unwrap();
    assert!(!shared.is_beside(Segment::new(usize::MAX, 1)));
    shared.lock().clear(0, 1 << 64).unwrap();
    assert!([low, bad, high].iter().all(|seg| shared.is_beside(*seg)));
    *shared.lock() = {
        let mut map = FaultMap::new();
        map.add(7, 1, Access::Read).unwrap();
        map
    };
    assert_eq!([Segment::new(0, 7), Segment::new(0, 8)].map(|seg| shared.is_beside(seg)), [true, false]);
}

#[test]
fn the_leading_elements_are_counted_however_many_there_are() {
    for len in (0..300).chain([4095, 4096, 5000]) {
        let sorted: Vec<usize> = (0..len).collect();
        for leading in (0..=len).step_by(1 + len / 100).chain([len]) {
            assert_eq!(count_leading(&sorted, |element| *element < leading), leading, "of {len}");
        }
    }
}
