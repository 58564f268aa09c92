//! Where in the ring a record has room. Pure arithmetic over positions.

use crate::arch::LINE;

/// Bytes of a header: a line of its own.
pub const HEADER: u64 = LINE as u64;

/// Bytes of the ring, by their offset in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

/// The ring: how long it is, and what of it is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    capacity: u64,
    /// In order and apart from each other.
    bad: Vec<Extent>,
}

impl Ring {
    /// A ring of so many bytes, a multiple of a line, without its bad extents, which are in order.
    pub fn new(capacity: u64, bad: Vec<Extent>) -> Self {
        Self { capacity, bad }
    }

    /// Its length in bytes.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// What is not used.
    pub fn bad(&self) -> &[Extent] {
        &self.bad
    }

    /// Where a position is.
    pub fn offset(&self, position: u64) -> u64 {
        position % self.capacity
    }

    /// The first bad extent that shares a byte with a range within the ring.
    fn bad_in(&self, offset: u64, span: u64) -> Option<Extent> {
        self.bad.iter().copied().find(|bad| bad.start < offset + span && offset < bad.end)
    }

    /// Whether a line may be a header's.
    pub fn is_used(&self, position: u64) -> bool {
        self.bad_in(self.offset(position), HEADER).is_none()
    }

    /// Whether all of a range within a lap is used.
    pub fn is_clear(&self, position: u64, span: u64) -> bool {
        self.bad_in(self.offset(position), span).is_none()
    }

    /// Where the lap behind a position begins; itself at a lap's start.
    pub fn next_lap(&self, position: u64) -> u64 {
        position.next_multiple_of(self.capacity)
    }

    /// The first position from `from` on at which `span` bytes lie together, in no bad extent and ending at `limit` at
    /// the latest.
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

    /// Every position where the record that follows one which ends at `from` may be, in order: there, at the ring's
    /// start, behind each bad extent.
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

    /// The longest span that has a place between `from` and `limit`.
    pub fn largest(&self, from: u64, limit: u64) -> u64 {
        let room = |at: u64| {
            let offset = self.offset(at);
            let bad = self.bad.iter().map(|bad| bad.start).filter(|start| *start >= offset);
            let stop = bad.min().unwrap_or(self.capacity).min(self.capacity);
            (stop - offset).min(limit - at)
        };
        self.candidates(from, limit).into_iter().map(room).max().unwrap_or(0)
    }

    /// The ring without another extent, which it rounds outwards to whole lines. Of more than `limit` extents the two
    /// that are nearest to each other become one.
    #[must_use]
    pub fn without(&self, extent: Extent, limit: usize) -> Self {
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
            let gap = |index: &usize| bad[index + 1].start - bad[*index].end;
            let Some(index) = (0..bad.len() - 1).min_by_key(gap) else { break };
            bad[index].end = bad.remove(index + 1).end;
        }
        Self { capacity: self.capacity, bad }
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
        let ring = ring().without(Extent { start: 310, end: 400 }, 10);
        assert_eq!(ring.bad(), [Extent { start: 256, end: 448 }, Extent { start: 960, end: 1024 }]);
        let ring = ring.without(Extent { start: 512, end: 513 }, 2);
        assert_eq!(ring.bad(), [Extent { start: 256, end: 576 }, Extent { start: 960, end: 1024 }]);
    }
}
