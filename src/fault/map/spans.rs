//! A set of bytes, kept as the spans it consists of.

use super::Span;
use std::collections::BTreeMap;

/// Spans that neither overlap nor touch each other.
#[derive(Clone, Default, Debug)]
pub(super) struct Spans {
    /// First byte to last byte.
    spans: BTreeMap<usize, usize>,
    /// No span has reached beyond since there was none: what lies elsewhere need not be looked for.
    reach: Option<Span>,
}

impl PartialEq for Spans {
    fn eq(&self, other: &Self) -> bool {
        self.spans == other.spans
    }
}

impl Eq for Spans {}

impl Spans {
    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The last span that begins at or before `address`.
    fn at_or_before(&self, address: usize) -> Option<Span> {
        self.spans.range(..=address).next_back().map(|(first, last)| Span { first: *first, last: *last })
    }

    /// Adds the bytes of `span`, which swallows every span it overlaps or touches.
    pub(super) fn insert(&mut self, span: Span) {
        self.reach = Some(self.reach.unwrap_or(span).and(span));
        let Span { mut first, mut last } = span;
        if let Some(left) = self.at_or_before(first)
            && left.last >= first.saturating_sub(1)
        {
            if left.last >= last {
                return;
            }
            first = left.first;
        }
        let reach = last.saturating_add(1);
        while let Some((&start, &end)) = self.spans.range(first..=reach).next_back() {
            last = last.max(end);
            if start == first {
                break;
            }
            self.spans.remove(&start);
        }
        self.spans.insert(first, last);
    }

    /// Takes the bytes of `span` out.
    pub(super) fn remove(&mut self, span: Span) {
        if let Some(left) = self.at_or_before(span.first)
            && left.last >= span.first
        {
            self.spans.remove(&left.first);
            if left.first < span.first {
                self.spans.insert(left.first, span.first - 1);
            }
            if left.last > span.last {
                self.spans.insert(span.last + 1, left.last);
            }
        }
        while let Some((&start, &end)) = self.spans.range(span.first..=span.last).next_back() {
            self.spans.remove(&start);
            if end > span.last {
                self.spans.insert(span.last + 1, end);
            }
        }
        if self.spans.is_empty() {
            self.reach = None;
        }
    }

    /// Where all spans are.
    pub(super) fn reach(&self) -> Option<Span> {
        self.reach
    }

    /// Whether a span shares a byte with `span`: if so, the last that does not begin behind it does.
    pub(super) fn meets(&self, span: Span) -> bool {
        self.reach.is_some_and(|reach| reach.first <= span.last && span.first <= reach.last)
            && self.at_or_before(span.last).is_some_and(|last| last.last >= span.first)
    }

    /// The first span that shares a byte with `span`.
    pub(super) fn first_in(&self, span: Span) -> Option<Span> {
        self.spans_in(span).next()
    }

    /// Every span that shares a byte with `span`, in order.
    pub(super) fn spans_in(&self, span: Span) -> impl Iterator<Item = Span> {
        let straddles = self.at_or_before(span.first).filter(|left| left.first < span.first && left.last >= span.first);
        let inside = self.spans.range(span.first..=span.last).map(|(first, last)| Span { first: *first, last: *last });
        straddles.into_iter().chain(inside)
    }

    /// Whether `address` is in the set, and the widest span around it over which the answer is the same.
    pub(super) fn around(&self, address: usize) -> (bool, Span) {
        let left = self.at_or_before(address);
        if let Some(left) = left
            && left.last >= address
        {
            return (true, left);
        }
        let right = self.spans.range(address..).next().map_or(usize::MAX, |(first, _)| first - 1);
        (false, Span { first: left.map_or(0, |left| left.last + 1), last: right })
    }
}
