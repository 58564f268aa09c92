//! A run: neighbours in an array of segments that have the same length. A step decides once how it processes them.

use crate::abi::PAGE_SIZE;
use crate::memory::Segment;
use std::slice;

/// The longest segments, in bytes, that are processed as a run. The copy of a longer one takes much more time than the
/// decision how to copy it.
const UP_TO: usize = 512;

/// The segments of a run, each with a later one to prefetch meanwhile. The first segment of another length ends it.
#[derive(Clone)]
pub(crate) struct Run<'a> {
    segs: slice::Iter<'a, Segment>,
    /// The same segments without the first few.
    ahead: slice::Iter<'a, Segment>,
    len: usize,
}

impl<'a> Run<'a> {
    /// The run at the start of `segs`, of which it has as many segments as fit in `room` bytes. `None` if those are
    /// fewer than two, or empty, or too long.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment, where no two in a row are equally long
    pub(super) fn at_start_of(segs: &'a [Segment], room: usize) -> Option<Self> {
        let [first, second, ..] = segs else { return None };
        let len = first.len;
        if second.len != len || len.wrapping_sub(1) >= UP_TO || room < 2 * len {
            return None;
        }
        Some(Self::of(&segs[..segs.len().min(room / len)], len))
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per run
    fn of(segs: &'a [Segment], len: usize) -> Self {
        let ahead = segs.get(lookahead(len)..).unwrap_or_default();
        Self { segs: segs.iter(), ahead: ahead.iter(), len }
    }

    /// Its first segments, as many as `nbytes` bytes hold.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per run
    pub(crate) fn within(&self, nbytes: usize) -> Self {
        let segs = self.segs.as_slice();
        let segs = if segs.len() * self.len <= nbytes { segs } else { &segs[..nbytes / self.len] };
        Self { segs: segs.iter(), ..self.clone() }
    }

    /// The run without its first segments.
    pub(crate) fn behind(&self, segments: usize) -> Self {
        Self::of(&self.segs.as_slice()[segments..], self.len)
    }

    /// Its segments, perhaps with others behind its end, of which the first has another length.
    pub(crate) fn segs(&self) -> &'a [Segment] {
        self.segs.as_slice()
    }

    /// The length of each segment, in bytes; not 0.
    #[inline(always)]
    #[allow(clippy::inline_always)] // one load
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Iterator for Run<'_> {
    /// A segment's address, and a segment to prefetch.
    type Item = (usize, Option<Segment>);

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn next(&mut self) -> Option<Self::Item> {
        let seg = self.segs.next().filter(|seg| seg.len == self.len)?;
        let next = self.ahead.next().map(|next| Segment::new(next.addr, self.len));
        Some((seg.addr, next))
    }
}

/// How many segments ahead to prefetch, so that a segment has arrived when the walk reaches it: as many as make up a
/// page, between 2 and 64. Measured for segments of 64 bytes to 16 KiB.
#[inline]
pub(super) fn lookahead(len: usize) -> usize {
    (PAGE_SIZE >> (len | 1).ilog2()).clamp(2, 64)
}
