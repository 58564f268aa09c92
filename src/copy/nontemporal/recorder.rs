//! A [`LineStore`] for tests that records what was done to each byte, and whether it could be on the medium.

use super::{Flush, LineStore, Remainder};
use crate::arch::LINE;
use crate::copy::chunk::CopyChunk;
use crate::memory::Segment;

/// The bytes of the words in which partial lines are stored non-temporally.
const WORD: usize = 4;

/// Where the latest value of a byte is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Never written.
    Untouched,
    /// In the cache.
    Dirty,
    /// On its way to the medium: written back or stored non-temporally, but not fenced yet.
    Leaving,
    /// On the medium.
    Medium,
}

/// An operation, in the order in which they were made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Bytes of one line were stored at this offset of the memory. They may reach the medium at any time from now on,
    /// and are on it after the next fence.
    Store(usize, Vec<u8>),
    /// Every store before is on the medium. A fence is not recorded if nothing was stored since the last one.
    Fence,
}

/// In which ways a line was written by one copy. There must be one way only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ways {
    cached: bool,
    streamed: bool,
    written_back: usize,
}

/// Memory of a test, with the [`Place`] of each byte. The copy may also read and write its own buffers, which lie
/// outside `[base, base + places.len())`.
pub(crate) struct Recorder {
    base: usize,
    pub(super) places: Vec<Place>,
    lines: Vec<Ways>,
    /// The part of the source that cannot be read, and the first address of the destination that cannot be written.
    pub(super) bad_source: Segment,
    pub(crate) bad_destination: usize,
    pub(super) fences: usize,
    /// The operations so far.
    pub(crate) events: Vec<Event>,
    /// Descriptions of operations that broke a rule.
    pub(super) broken: Vec<String>,
}

impl Recorder {
    /// Records what is done to the `len` bytes at `base`, which is the start of a line.
    pub(crate) fn new(base: usize, len: usize) -> Self {
        assert!(base.is_multiple_of(LINE));
        Self {
            base,
            places: vec![Place::Untouched; len],
            lines: vec![Ways::default(); len.div_ceil(LINE) + 1],
            bad_source: Segment::default(),
            bad_destination: usize::MAX,
            fences: 0,
            events: Vec::new(),
            broken: Vec::new(),
        }
    }

    fn put(&mut self, dst: usize, src: usize, len: usize, place: Place) {
        let from = std::ptr::with_exposed_provenance::<u8>(src);
        // SAFETY: the tests pass ranges of their own vectors, or the copy's line buffer; both last and do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, std::ptr::with_exposed_provenance_mut(dst), len) };
        let at = dst - self.base;
        self.places[at..at + len].fill(place);
        for start in (at / LINE * LINE..at + len).step_by(LINE) {
            let (start, end) = (start.max(at), (start + LINE).min(at + len));
            let mut bytes = vec![0; end - start];
            let stored = std::ptr::with_exposed_provenance::<u8>(self.base + start);
            // SAFETY: the copy above has just written these bytes of the tests' memory, and `bytes` is as long.
            unsafe { std::ptr::copy_nonoverlapping(stored, bytes.as_mut_ptr(), bytes.len()) };
            self.events.push(Event::Store(start, bytes));
        }
        for line in at / LINE..(at + len).div_ceil(LINE) {
            let ways = &mut self.lines[line];
            ways.cached |= place == Place::Dirty;
            ways.streamed |= place == Place::Leaving;
            if ways.cached && ways.streamed {
                self.broken.push(format!("line {line} is written in two ways"));
            }
        }
    }

    fn readable(&self, src: usize, len: usize) -> usize {
        let bad = self.bad_source;
        if Segment::new(src, len).overlaps(bad) { bad.addr.saturating_sub(src) } else { len }
    }

    /// The number of bytes of a transfer before the first bad one on either side.
    fn good(&self, dst: usize, src: usize, len: usize) -> usize {
        self.readable(src, len).min(self.bad_destination.saturating_sub(dst))
    }

    /// The number of lines that were written back more than once.
    pub(super) fn written_back_twice(&self) -> usize {
        self.lines.iter().filter(|ways| ways.written_back > 1).count()
    }
}

impl CopyChunk for Recorder {
    /// Reads into a buffer of ours.
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: `copy` has the same contract, which its caller upholds.
        unsafe { self.load(dst, src, len) }
    }
}

impl LineStore for Recorder {
    fn can_bypass(&self, _flush: Flush) -> bool {
        true
    }

    unsafe fn load(&mut self, own: usize, src: usize, len: usize) -> usize {
        let good = self.readable(src, len);
        let from = std::ptr::with_exposed_provenance::<u8>(src);
        // SAFETY: the tests pass ranges of their own vectors, and the copy its line buffer; both last and do not
        // overlap.
        unsafe { std::ptr::copy_nonoverlapping(from, std::ptr::with_exposed_provenance_mut(own), good) };
        len - good
    }

    unsafe fn store(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let good = self.good(dst, src, len);
        self.put(dst, src, good, Place::Dirty);
        len - good
    }

    unsafe fn nontemporal(
        &mut self,
        dst: usize,
        src: usize,
        len: usize,
        finish: impl FnOnce(&mut Self, &Remainder) -> usize,
    ) -> usize {
        if len == 0 {
            self.broken.push(format!("an empty stream to {}", dst - self.base));
        }
        let good = self.good(dst, src, len);
        // Before the bad byte whole lines are stored; of a partial line, only whole words and the bytes before the
        // first word.
        let end = dst + good;
        let line = end / LINE * LINE;
        let is_partial = line < dst || line + LINE > dst + len;
        let stop = if is_partial { end / WORD * WORD } else { line };
        let streamed = if good == len { len } else { stop.saturating_sub(dst) };
        self.put(dst, src, streamed, Place::Leaving);
        let readable = if self.bad_destination == dst + streamed { 0 } else { good - streamed };
        if streamed == len {
            return 0;
        }
        finish(self, &Remainder { dst: dst + streamed, src: src + streamed, len: len - streamed, readable })
    }

    unsafe fn write_back(&mut self, dst: usize, len: usize) -> usize {
        let at = dst - self.base;
        for line in at / LINE..(at + len).div_ceil(LINE) {
            self.lines[line].written_back += 1;
            let end = ((line + 1) * LINE).min(self.places.len());
            for place in &mut self.places[line * LINE..end] {
                if *place == Place::Dirty {
                    *place = Place::Leaving;
                }
            }
        }
        0
    }

    fn fence(&mut self) {
        self.fences += 1;
        if self.places.contains(&Place::Dirty) {
            self.broken.push("something is fenced before it was written back".to_owned());
        }
        if !matches!(self.events.last(), Some(Event::Fence) | None) {
            self.events.push(Event::Fence);
        }
        for place in &mut self.places {
            if *place == Place::Leaving {
                *place = Place::Medium;
            }
        }
    }
}
