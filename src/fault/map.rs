//! `FaultMap`: which bytes are known to be bad, and for which access.
//!
//! The bytes are those of the address space, of a file, or of anything else with up to 2^64 bytes. A map is two sets of
//! spans: the bytes that cannot be read and the bytes that cannot be written. Its ranges are the longest stretches with
//! the same answer in both. A lookup for one access searches only the set of that access, so a million ranges of the
//! other cost it nothing.

mod range;
pub mod shared;
mod spans;
#[cfg(test)]
mod tests;

pub use range::{Access, Range, Span};

use crate::error::Result;
use spans::Spans;
use std::iter::Peekable;

/// Known-bad bytes, as ranges that are sorted, do not overlap, and are merged with neighbours of the same access.
///
/// A lookup takes O(log n). An update also moves up to 4 KiB of spans, and visits every span that it replaces. Two maps
/// are equal if the same bytes are bad for the same access. An update for which there is no memory fails and changes
/// nothing.
#[derive(Default, Debug)]
pub struct FaultMap {
    reads: Spans,
    writes: Spans,
    incomplete: bool,
}

impl FaultMap {
    /// Makes a map in which no byte is bad.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there may be bad bytes that the map does not have, because the list it was made from may not be
    /// complete.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// Marks the map as incomplete.
    pub fn set_incomplete(&mut self) {
        self.incomplete = true;
    }

    /// A copy of the map.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self { reads: self.reads.try_clone()?, writes: self.writes.try_clone()?, incomplete: self.incomplete })
    }

    /// Marks `len` bytes as bad for `access`, in addition to what they are bad for already.
    pub fn add(&mut self, start: usize, len: u128, access: Access) -> Result<()> {
        let Some(span) = Span::new(start, len)? else { return Ok(()) };
        self.change(span, [Access::Read, Access::Write].map(|each| access.intersects(each)), Spans::insert)
    }

    /// Marks `len` bytes as good for every access.
    pub fn clear(&mut self, start: usize, len: u128) -> Result<()> {
        let Some(span) = Span::new(start, len)? else { return Ok(()) };
        self.change(span, [self.reads.len() > 0, self.writes.len() > 0], Spans::remove)
    }

    /// Changes the set of reads, the set of writes, or both. It reserves the memory for both changes before it makes
    /// either, so that a failure changes nothing.
    fn change(&mut self, span: Span, [reads, writes]: [bool; 2], change: fn(&mut Spans, Span)) -> Result<()> {
        if reads {
            self.reads.make_room(span.first)?;
        }
        if writes {
            self.writes.make_room(span.first)?;
        }
        if reads {
            change(&mut self.reads, span);
        }
        if writes {
            change(&mut self.writes, span);
        }
        Ok(())
    }

    /// Adds everything that is bad in another map. The map becomes incomplete if the other is.
    pub fn join(&mut self, other: &Self) -> Result<()> {
        other.iter().try_for_each(|range| self.add(range.start, range.length(), range.access))?;
        self.incomplete |= other.incomplete;
        Ok(())
    }

    /// Makes a map in which those of the first `size` bytes that are good for every access here are bad to read. It is
    /// incomplete if this one is.
    pub fn complement(&self, size: u128) -> Result<Self> {
        let mut rest = Self { incomplete: self.incomplete, ..Self::new() };
        // The first byte behind the ranges visited so far.
        let mut next = 0_u128;
        for range in self.within(0, size) {
            rest.add(next as usize, range.start as u128 - next, Access::Read)?;
            next = range.last as u128 + 1;
        }
        if next < size {
            rest.add(next as usize, size - next, Access::Read)?;
        }
        Ok(rest)
    }

    /// The first range that overlaps the `len` bytes from `start` and is bad for `access`. It is returned whole, not
    /// clipped to those bytes. Bytes at 2^64 and beyond do not exist, and so are not bad.
    pub fn first_in(&self, start: usize, len: u128, access: Access) -> Option<Range> {
        let span = Span::clamped(start, len)?;
        let first = |set: &Spans, asked: Access| {
            let found = if access.intersects(asked) { set.first_in(span) } else { None };
            found.map(|found| found.first.max(span.first))
        };
        let at = match (first(&self.reads, Access::Read), first(&self.writes, Access::Write)) {
            (Some(read), Some(write)) => read.min(write),
            (read, write) => read.or(write)?,
        };
        self.range_at(at)
    }

    /// Whether any of the `len` bytes from `start` is bad for `access`. It is cheaper than [`Self::first_in`].
    pub fn intersects(&self, start: usize, len: u128, access: Access) -> bool {
        let Some(span) = Span::clamped(start, len) else { return false };
        let intersects = |set: &Spans, asked: Access| access.intersects(asked) && set.intersects(span);
        intersects(&self.reads, Access::Read) || intersects(&self.writes, Access::Write)
    }

    /// The range that contains `address`.
    fn range_at(&self, address: usize) -> Option<Range> {
        let (read, reads) = self.reads.around(address);
        let (write, writes) = self.writes.around(address);
        let access = Access::of(read, write)?;
        Some(Range { start: reads.first.max(writes.first), last: reads.last.min(writes.last), access })
    }

    /// Whether a byte is bad for any access.
    pub fn contains(&self, address: usize) -> bool {
        self.reads.around(address).0 || self.writes.around(address).0
    }

    /// All ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = Range> {
        self.ranges_in(Span { first: 0, last: usize::MAX })
    }

    /// The first range with a byte at or after `address`, clipped to start there at the earliest.
    pub fn next_from(&self, address: usize) -> Option<Range> {
        self.ranges_in(Span { first: address, last: usize::MAX }).next()
    }

    /// The ranges in the `len` bytes from `start`, in order, clipped to them.
    pub fn within(&self, start: usize, len: u128) -> impl Iterator<Item = Range> {
        Span::clamped(start, len).into_iter().flat_map(|span| self.ranges_in(span))
    }

    fn ranges_in(&self, span: Span) -> impl Iterator<Item = Range> {
        let (reads, writes) = (self.reads.spans_in(span).peekable(), self.writes.spans_in(span).peekable());
        Overlay { reads, writes, at: Some(span.first), last: span.last }
    }

    /// The number of ranges. If the map has bytes of both accesses, this counts them, in O(n); otherwise it is known.
    pub fn len(&self) -> usize {
        if self.writes.len() == 0 {
            self.reads.len()
        } else if self.reads.len() == 0 {
            self.writes.len()
        } else {
            self.iter().count()
        }
    }

    /// A span that contains every range. It may be wider than needed: it does not shrink until the map is empty. `None`
    /// if there is no range.
    pub fn reach(&self) -> Option<Span> {
        match (self.reads.reach(), self.writes.reach()) {
            (Some(reads), Some(writes)) => Some(reads.and(writes)),
            (reads, writes) => reads.or(writes),
        }
    }

    /// Whether no byte is bad.
    pub fn is_empty(&self) -> bool {
        self.reads.len() == 0 && self.writes.len() == 0
    }
}

impl PartialEq for FaultMap {
    fn eq(&self, other: &Self) -> bool {
        self.reads == other.reads && self.writes == other.writes
    }
}

impl Eq for FaultMap {}

/// Merges the two sorted sequences of spans into one of ranges.
struct Overlay<R: Iterator<Item = Span>, W: Iterator<Item = Span>> {
    reads: Peekable<R>,
    writes: Peekable<W>,
    /// The first byte behind the ranges returned so far; `None` once the last address is passed.
    at: Option<usize>,
    last: usize,
}

/// The next span that ends at or after `at`. Skips those that end before.
fn ahead(spans: &mut Peekable<impl Iterator<Item = Span>>, at: usize) -> Option<Span> {
    while spans.next_if(|span| span.last < at).is_some() {}
    spans.peek().copied()
}

impl<R: Iterator<Item = Span>, W: Iterator<Item = Span>> Iterator for Overlay<R, W> {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        let at = self.at?;
        let (read, write) = (ahead(&mut self.reads, at), ahead(&mut self.writes, at));
        let start = read.into_iter().chain(write).map(|span| span.first.max(at)).min()?;
        if start > self.last {
            return None;
        }
        let covers = |set: Option<Span>| set.is_some_and(|span| span.first <= start);
        let access = Access::of(covers(read), covers(write))?;
        let end = |set: Option<Span>| set.map_or(usize::MAX, |s| if s.first <= start { s.last } else { s.first - 1 });
        let last = end(read).min(end(write)).min(self.last);
        self.at = last.checked_add(1);
        Some(Range { start, last, access })
    }
}
