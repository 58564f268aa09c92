//! A set of bytes, stored as sorted spans.
//!
//! The spans are in chunks of up to 4 KiB, and the chunks in a directory. Two binary searches find a span; an insertion
//! moves at most the spans of one chunk, and the directory's entries. The ordered maps of the standard library do not
//! fit: they abort if there is no memory, and the number of spans is decided by a file or another program.
//!
//! A change takes two steps. [`Spans::make_room`] may fail, and does not change the set. After it, [`Spans::insert`]
//! and [`Spans::remove`] allocate nothing and cannot fail.

use super::Span;
use crate::error::{Result, reserve};

/// The most spans in a chunk. 256 of them take 4 KiB.
const CHUNK: usize = if cfg!(test) { 4 } else { 256 };

/// A set of spans, of which no two overlap or touch.
#[derive(Default, Debug)]
pub(super) struct Spans {
    /// In order. None is empty, except for a chunk that `make_room` adds to an empty set until `insert` follows.
    chunks: Vec<Chunk>,
    /// How many spans there are.
    len: usize,
    /// A span that contains every span that was in the set since it was last empty. A lookup outside it needs no
    /// search.
    reach: Option<Span>,
}

#[derive(Debug)]
struct Chunk {
    /// The first byte of the first span, so that a search of the directory reads no chunk.
    first: usize,
    spans: Vec<Span>,
}

/// How many probes a round of [`count_leading`] makes.
const PROBES: usize = 16;

/// How many of the first elements `is_leading` is true of. Behind the first of which it is false it is true of none:
/// [`slice::partition_point`] with many probes a round instead of one, because they do not wait for each other.
pub(super) fn count_leading<T>(sorted: &[T], is_leading: impl Fn(&T) -> bool) -> usize {
    let (mut known, mut end) = (0, sorted.len());
    while end - known > PROBES {
        // The last element of each stride is probed. The first probe that fails ends the search above.
        let stride = (end - known) / PROBES;
        let lasts = sorted[known..end].chunks_exact(stride).take(PROBES).map(|stride| &stride[stride.len() - 1]);
        let strides = lasts.filter(|last| is_leading(last)).count();
        if strides < PROBES {
            end = known + (strides + 1) * stride - 1;
        }
        known += strides * stride;
    }
    known + sorted[known..end].iter().filter(|element| is_leading(element)).count()
}

/// The place of a span: the chunk, and the index in it. The index behind a chunk's last stands for the first span of
/// the next chunk.
#[derive(Clone, Copy)]
struct Place {
    chunk: usize,
    index: usize,
}

impl PartialEq for Spans {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.from(Place { chunk: 0, index: 0 }).eq(other.from(Place { chunk: 0, index: 0 }))
    }
}

impl Eq for Spans {}

impl Spans {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A copy of the set.
    pub(super) fn try_clone(&self) -> Result<Self> {
        let mut chunks = Vec::new();
        reserve(&mut chunks, self.chunks.len())?;
        for chunk in &self.chunks {
            let mut spans = Vec::new();
            reserve(&mut spans, chunk.spans.len())?;
            spans.extend_from_slice(&chunk.spans);
            chunks.push(Chunk { first: chunk.first, spans });
        }
        Ok(Self { chunks, ..*self })
    }

    /// The place of the last span that begins at or before `address`.
    fn place_at_or_before(&self, address: usize) -> Option<Place> {
        let chunk = count_leading(&self.chunks, |chunk| chunk.first <= address).checked_sub(1)?;
        let index = count_leading(&self.chunks[chunk].spans, |span| span.first <= address).checked_sub(1)?;
        Some(Place { chunk, index })
    }

    fn get(&self, place: Place) -> Span {
        self.chunks[place.chunk].spans[place.index]
    }

    fn set(&mut self, place: Place, span: Span) {
        let chunk = &mut self.chunks[place.chunk];
        chunk.spans[place.index] = span;
        chunk.first = chunk.spans[0].first;
    }

    /// The spans from `place` on.
    fn from(&self, place: Place) -> impl Iterator<Item = Span> {
        let here = self.chunks.get(place.chunk).map_or(&[][..], |chunk| &chunk.spans[place.index..]);
        let rest = self.chunks.get(place.chunk + 1..).unwrap_or_default();
        here.iter().chain(rest.iter().flat_map(|chunk| &chunk.spans)).copied()
    }

    /// Reserves memory for one more span that begins at or after `address`, in front of the next span. The set stays
    /// the same.
    pub(super) fn make_room(&mut self, address: usize) -> Result<()> {
        if self.chunks.is_empty() {
            let mut spans = Vec::new();
            reserve(&mut spans, 1)?;
            reserve(&mut self.chunks, 1)?;
            // This chunk stays empty until `insert` follows; `remove` of an empty set takes it away.
            self.chunks.push(Chunk { first: address, spans });
            return Ok(());
        }
        let number = self.place_at_or_before(address).map_or(0, |place| place.chunk);
        let is_last = number + 1 == self.chunks.len();
        let chunk = &mut self.chunks[number];
        if chunk.spans.len() < CHUNK {
            return reserve(&mut chunk.spans, 1);
        }
        // A full chunk is split in the middle. The last chunk is split before its last span if the new span goes behind
        // it, so that spans added in order leave full chunks.
        let at = if is_last && chunk.spans[CHUNK - 1].first < address { CHUNK - 1 } else { CHUNK / 2 };
        let mut upper = Vec::new();
        reserve(&mut upper, CHUNK - at + 1)?;
        reserve(&mut self.chunks, 1)?;
        upper.extend(self.chunks[number].spans.drain(at..));
        self.chunks.insert(number + 1, Chunk { first: upper[0].first, spans: upper });
        Ok(())
    }

    /// Inserts a span in front of the one at `place`, or behind the last one.
    fn insert_at(&mut self, place: Place, span: Span) {
        let chunk = &mut self.chunks[place.chunk];
        debug_assert!(chunk.spans.len() < chunk.spans.capacity(), "there is no room: see make_room");
        chunk.spans.insert(place.index, span);
        chunk.first = chunk.spans[0].first;
        self.len += 1;
    }

    /// Removes `count` spans from `place` on.
    fn remove_at(&mut self, place: Place, count: usize) {
        let mut left = count;
        let Place { mut chunk, mut index } = place;
        let mut emptied = 0;
        while left > 0 {
            let spans = &mut self.chunks[chunk].spans;
            let end = spans.len().min(index + left);
            left -= end - index;
            spans.drain(index..end);
            if let Some(first) = spans.first() {
                self.chunks[chunk].first = first.first;
            } else {
                emptied += 1;
            }
            (chunk, index) = (chunk + 1, 0);
        }
        if emptied > 0 {
            let begin = place.chunk + usize::from(!self.chunks[place.chunk].spans.is_empty());
            self.chunks.drain(begin..begin + emptied);
        }
        self.len -= count;
    }

    /// Adds the bytes of `span`, and merges it with every span that it overlaps or touches. The caller has called
    /// [`Self::make_room`] for its first byte.
    pub(super) fn insert(&mut self, span: Span) {
        self.reach = Some(self.reach.unwrap_or(span).and(span));
        let Span { mut first, mut last } = span;
        let left = self.place_at_or_before(first);
        let place = match left {
            None => Place { chunk: 0, index: 0 },
            Some(place) if self.get(place).last >= first.saturating_sub(1) => {
                if self.get(place).last >= last {
                    return;
                }
                first = self.get(place).first;
                place
            }
            Some(Place { chunk, index }) => Place { chunk, index: index + 1 },
        };
        let limit = last.saturating_add(1);
        let mut swallowed = 0;
        for other in self.from(place).take_while(|other| other.first <= limit) {
            swallowed += 1;
            last = last.max(other.last);
        }
        let merged = Span { first, last };
        if swallowed == 0 {
            self.insert_at(place, merged);
            return;
        }
        let place = self.normal(place);
        self.set(place, merged);
        self.remove_at(Place { index: place.index + 1, ..place }, swallowed - 1);
    }

    /// The same place, given by the chunk that its span is in.
    fn normal(&self, place: Place) -> Place {
        let is_past = self.chunks.get(place.chunk).is_some_and(|chunk| place.index == chunk.spans.len());
        if is_past { Place { chunk: place.chunk + 1, index: 0 } } else { place }
    }

    /// Removes the bytes of `span`, which may split one span into two. The caller has called [`Self::make_room`] for
    /// its first byte.
    pub(super) fn remove(&mut self, span: Span) {
        let mut place = Place { chunk: 0, index: 0 };
        if let Some(left) = self.place_at_or_before(span.first) {
            place = left;
            let Span { first, last } = self.get(left);
            if first < span.first {
                place.index += 1;
                if last >= span.first {
                    self.set(left, Span { first, last: span.first - 1 });
                }
                if last > span.last {
                    self.insert_at(place, Span { first: span.last + 1, last });
                    return;
                }
            }
        }
        let gone = self.from(place).take_while(|other| other.last <= span.last).count();
        let cut = self.from(place).nth(gone).filter(|other| other.first <= span.last);
        if let Some(cut) = cut
            && let Some(behind) = self.place_at_or_before(cut.first)
        {
            self.set(behind, Span { first: span.last + 1, last: cut.last });
        }
        self.remove_at(self.normal(place), gone);
        self.tidy();
    }

    /// Removes the chunks and the reach of a set that has no spans.
    pub(super) fn tidy(&mut self) {
        if self.len == 0 {
            self.chunks.clear();
            self.reach = None;
        }
    }

    /// A span that contains all spans; see the field.
    pub(super) fn reach(&self) -> Option<Span> {
        self.reach
    }

    /// Whether any span overlaps `span`. If any does, the last one that begins at or before the end of `span` does.
    pub(super) fn intersects(&self, span: Span) -> bool {
        self.reach.is_some_and(|reach| reach.first <= span.last && span.first <= reach.last)
            && self.place_at_or_before(span.last).is_some_and(|place| self.get(place).last >= span.first)
    }

    /// The first span that overlaps `span`.
    pub(super) fn first_in(&self, span: Span) -> Option<Span> {
        self.spans_in(span).next()
    }

    /// The spans that overlap `span`, in order.
    pub(super) fn spans_in(&self, span: Span) -> impl Iterator<Item = Span> {
        let place = match self.place_at_or_before(span.first) {
            None => Place { chunk: 0, index: 0 },
            Some(place) if self.get(place).last >= span.first => place,
            Some(Place { chunk, index }) => Place { chunk, index: index + 1 },
        };
        self.from(place).take_while(move |other| other.first <= span.last)
    }

    /// Whether `address` is in the set, and the widest span that contains it in which every byte has the same answer.
    pub(super) fn around(&self, address: usize) -> (bool, Span) {
        let left = self.place_at_or_before(address);
        let (first, next) = match left {
            Some(place) if self.get(place).last >= address => return (true, self.get(place)),
            Some(place) => (self.get(place).last + 1, Place { index: place.index + 1, ..place }),
            None => (0, Place { chunk: 0, index: 0 }),
        };
        (false, Span { first, last: self.from(next).next().map_or(usize::MAX, |next| next.first - 1) })
    }
}
