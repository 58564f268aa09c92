//! Finds room for a record in the ring. This is pure arithmetic over positions.

use crate::arch::LINE;

/// The size of a header in bytes: each has a cache line of its own.
pub const HEADER: u64 = LINE as u64;

/// A range of the ring, as offsets in bytes from the ring's start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

/// The ring: its length, and the extents in it that are not used because they are bad.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    capacity: u64,
    /// The bad extents, in order. No two overlap.
    bad: Vec<Extent>,
}

impl Ring {
    /// Makes a ring of `capacity` bytes, a multiple of a line. The extents `bad` are not used; they are in order.
    pub fn new(capacity: u64, bad: Vec<Extent>) -> Self {
        Self { capacity, bad }
    }

    /// Its length in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The extents that are not used.
    pub fn bad(&self) -> &[Extent] {
        &self.bad
    }

    /// The offset in the ring, in bytes, at which a position lies.
    pub fn offset(&self, position: u64) -> u64 {
        position % self.capacity
    }

    /// The parts of the ring, one in each of two laps, between two positions that are at most its length apart.
    pub fn parts(&self, from: u64, to: u64) -> [Extent; 2] {
        let start = self.offset(from);
        let end = start + (to - from);
        let behind = end.saturating_sub(self.capacity);
        [Extent { start, end: end.min(self.capacity) }, Extent { start: 0, end: behind }]
    }

    /// The first bad extent that overlaps the `span` bytes at `offset`, which end within the ring.
    fn bad_in(&self, offset: u64, span: u64) -> Option<Extent> {
        self.bad.iter().copied().find(|bad| bad.start < offset + span && offset < bad.end)
    }

    /// Whether the line at a position may hold a header: it is in no bad extent.
    pub fn is_used(&self, position: u64) -> bool {
        self.bad_in(self.offset(position), HEADER).is_none()
    }

    /// Whether the line at a position is in no bad extent, and for how many bytes from there on, in this lap, it is the
    /// same.
    pub fn stretch(&self, position: u64) -> (bool, u64) {
        let offset = self.offset(position);
        if let Some(bad) = self.bad_in(offset, HEADER) {
            return (false, bad.end - offset);
        }
        let next = self.bad.iter().map(|bad| bad.start).find(|start| *start > offset);
        (true, next.unwrap_or(self.capacity) - offset)
    }

    /// The position at which the next lap begins. A position at the start of a lap is its own answer.
    pub fn next_lap(&self, position: u64) -> u64 {
        position.next_multiple_of(self.capacity)
    }

    /// The first position from `from` on at which a record of `span` bytes fits: in one lap, in no bad extent, and
    /// ending at `limit` or before.
    pub fn place(&self, from: u64, span: u64, limit: u64) -> Option<u64> {
        if span > self.capacity {
            return None;
        }
        let mut at = from;
        while at.checked_add(span)? <= limit {
            let offset = self.offset(at);
            if offset + span > self.capacity {
                at += self.capacity - offset;
            } else if let Some(bad) = self.bad_in(offset, span) {
                at += bad.end - offset;
            } else {
                return Some(at);
            }
        }
        None
    }

    /// Every position, in order, at which the next record after one that ends at `from` may begin: `from` itself, the
    /// ring's start, and the end of each bad extent.
    pub fn candidates(&self, from: u64, limit: u64) -> Vec<u64> {
        let lap = from - self.offset(from);
        let starts = self.bad.iter().map(|bad| bad.end).chain([0]);
        let ahead = starts.flat_map(|start| [lap + start, lap + self.capacity + start]).filter(|at| *at > from);
        let mut found: Vec<u64> = [from].into_iter().chain(ahead).filter(|at| at + HEADER <= limit).collect();
        found.retain(|at| self.is_used(*at));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The largest `span` in bytes for which [`Ring::place`] finds a position; 0 if there is none.
    pub fn largest(&self, from: u64, limit: u64) -> u64 {
        let room = |at: u64| self.stretch(at).1.min(limit - at);
        self.candidates(from, limit).into_iter().map(room).max().unwrap_or(0)
    }

    /// The same ring with one more bad extent, which is rounded outwards to whole lines. While there are more than
    /// `limit` extents, the two with the smallest gap between them are merged, of those whose gap lies in one of the
    /// `free` extents: a record in a gap would not be found any more. `None` if no gap does.
    pub fn without(&self, extent: Extent, limit: usize, free: [Extent; 2]) -> Option<Self> {
        let start = extent.start - extent.start % HEADER;
        let end = extent.end.next_multiple_of(HEADER).min(self.capacity);
        let mut all: Vec<Extent> = self.bad.iter().copied().chain([Extent { start, end }]).collect();
        all.retain(|extent| extent.start < extent.end);
        all.sort_unstable_by_key(|extent| extent.start);
        let mut bad: Vec<Extent> = Vec::with_capacity(all.len());
        for extent in all {
            match bad.last_mut() {
                Some(last) if extent.start <= last.end => last.end = last.end.max(extent.end),
                Some(_) | None => bad.push(extent),
            }
        }
        while bad.len() > limit {
            let gap = |index: usize| Extent { start: bad[index].end, end: bad[index + 1].start };
            let is_free = |gap: Extent| free.iter().any(|part| part.start <= gap.start && gap.end <= part.end);
            let gaps = (0..bad.len() - 1).map(|index| (index, gap(index))).filter(|(_, gap)| is_free(*gap));
            let (index, _) = gaps.min_by_key(|(_, gap)| gap.end - gap.start)?;
            bad[index].end = bad.remove(index + 1).end;
        }
        Some(Self { capacity: self.capacity, bad })
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, Ring};

    fn ring() -> Ring {
        Ring::new(1024, vec![Extent { start: 256, end: 320 }, Extent { start: 960, end: 1024 }])
    }

    /// Every position in turn.
    fn place_slowly(ring: &Ring, from: u64, span: u64, limit: u64) -> Option<u64> {
        (from..limit).step_by(64).find(|at| {
            let offset = at % ring.capacity();
            let is_clear = (offset..offset + span).step_by(64).all(|line| ring.is_used(line) && line < ring.capacity());
            at + span <= limit && is_clear
        })
    }

    #[test]
    fn parts_have_each_line_between_two_positions_once() {
        let ring = ring();
        for from in (0..2 * ring.capacity()).step_by(64) {
            for len in (0..=ring.capacity()).step_by(64) {
                let parts = ring.parts(from, from + len);
                let is_in = |offset: u64| parts.iter().filter(|part| (part.start..part.end).contains(&offset)).count();
                for line in (0..ring.capacity()).step_by(64) {
                    let is_between = (from..from + len).step_by(64).any(|at| ring.offset(at) == line);
                    assert_eq!(is_in(line), usize::from(is_between), "{from} {len} {line}");
                }
            }
        }
    }

    #[test]
    fn a_place_is_the_first_that_has_room() {
        for ring in [ring(), Ring::new(640, vec![]), Ring::new(128, vec![Extent { start: 0, end: 128 }])] {
            for from in (0..3 * ring.capacity()).step_by(64) {
                for span in (64..=ring.capacity() + 64).step_by(64) {
                    for limit in (from..=from + ring.capacity()).step_by(64) {
                        let expected = place_slowly(&ring, from, span, limit);
                        assert_eq!(ring.place(from, span, limit), expected, "{from} {span} {limit}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_place_is_a_candidate_and_the_largest_span_has_one() {
        for ring in [ring(), Ring::new(640, vec![])] {
            for from in (0..3 * ring.capacity()).step_by(64) {
                for limit in (from..=from + ring.capacity()).step_by(64) {
                    let largest = ring.largest(from, limit);
                    assert_eq!(ring.place(from, largest.max(64), limit).is_some(), largest != 0, "{from} {limit}");
                    assert_eq!(ring.place(from, largest + 64, limit), None, "{from} {limit}");
                    for span in (64..=largest).step_by(64) {
                        let place = ring.place(from, span, limit).unwrap();
                        assert!(ring.candidates(from, limit).contains(&place), "{from} {span} {limit}");
                    }
                }
            }
        }
    }

    #[test]
    fn extents_are_merged_and_their_number_is_limited() {
        let free = ring().parts(0, 1024);
        let ring = ring().without(Extent { start: 310, end: 400 }, 10, free).unwrap();
        assert_eq!(ring.bad(), [Extent { start: 256, end: 448 }, Extent { start: 960, end: 1024 }]);
        let merged = ring.without(Extent { start: 512, end: 513 }, 2, free).unwrap();
        assert_eq!(merged.bad(), [Extent { start: 256, end: 576 }, Extent { start: 960, end: 1024 }]);
        // Records lie in the smaller gap, or in both.
        let merged = ring.without(Extent { start: 512, end: 513 }, 2, ring.parts(512, 960)).unwrap();
        assert_eq!(merged.bad(), [Extent { start: 256, end: 448 }, Extent { start: 512, end: 1024 }]);
        assert_eq!(ring.without(Extent { start: 512, end: 513 }, 2, ring.parts(512, 896)), None);
    }
}
