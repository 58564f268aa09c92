//! How a range is written past the caches: by non-temporal stores, of whole lines and of parts of lines. Where a range cannot be streamed
//! it goes through the cache, and what has to be durable is written back. No line is written in two ways: one that takes both a cached
//! and a non-temporal store costs three times either.
//!
//! The algorithm is generic over what it writes to, so that the same code runs over a model that records what each store,
//! write-back and fence does to each byte.

use super::mover::{ASK_AHEAD, Move};
use crate::arch::{self, LINE};
use crate::memory::Segment;
use std::mem::MaybeUninit;

/// What can be done to memory on the way past the caches. Everything may come short, and says by how much.
pub(super) trait Media {
    /// Whether non-temporal stores can be had.
    fn can_stream(&self) -> bool;
    /// Copies into own memory; returns the bytes not copied.
    fn load(&mut self, own: usize, src: usize, len: usize) -> usize;
    /// Copies through the cache; returns the bytes not copied.
    fn store(&mut self, dst: usize, src: usize, len: usize) -> usize;
    /// Copies, what is not empty, past the caches. If it does not get to all, `finish` may go on, and tells how many bytes are left
    /// then, which it returns.
    fn stream(&mut self, dst: usize, src: usize, len: usize, finish: impl FnOnce(&mut Self, &Rest) -> usize) -> usize;
    /// Writes back the lines of a range; returns the bytes not written back.
    fn write_back(&mut self, dst: usize, len: usize) -> usize;
    /// Waits for all of it.
    fn fence(&mut self);
}

/// What a stream did not get to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rest {
    /// Where it begins.
    pub(super) dst: usize,
    /// Where it would have come from.
    pub(super) src: usize,
    /// How much it is, and not none.
    pub(super) len: usize,
    /// How many bytes of it could be read all the same.
    pub(super) readable: usize,
}

/// What is asked of a copy past the caches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Promise {
    /// To leave the caches alone as far as it can (`nocache`).
    Nocache,
    /// That nothing it wrote is in the caches alone (`flushcache`).
    Durable,
}

/// Ranges shorter than this that may leave partial lines in the cache go there whole: two edge lines would be most of them.
pub(super) const STREAM_FROM: usize = 256;

/// One range; returns the bytes that did not get there.
#[inline]
pub(super) fn copy_flat<M: Media>(media: &mut M, promise: Promise, dst: usize, src: usize, len: usize) -> usize {
    let left = copy(media, promise, dst, src, len);
    media.fence();
    left
}

/// One range, not fenced.
#[inline(always)]
#[allow(clippy::inline_always)] // once per call
pub(super) fn copy<M: Media>(media: &mut M, promise: Promise, dst: usize, src: usize, len: usize) -> usize {
    if is_streamed_whole(media, promise, dst, len) {
        stream(media, promise, dst, src, len)
    } else if !media.can_stream() || len < STREAM_FROM {
        through_cache(media, promise, dst, src, len)
    } else {
        copy_ragged(media, dst, src, len)
    }
}

/// One range of many, not fenced: what is not streamed whole is out of the way.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
fn copy_part<M: Media>(media: &mut M, promise: Promise, dst: usize, src: usize, len: usize) -> usize {
    if is_streamed_whole(media, promise, dst, len) {
        stream(media, promise, dst, src, len)
    } else {
        copy_out_of_the_way(media, promise, dst, src, len)
    }
}

#[inline(never)]
fn copy_out_of_the_way<M: Media>(media: &mut M, promise: Promise, dst: usize, src: usize, len: usize) -> usize {
    copy(media, promise, dst, src, len)
}

#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn is_streamed_whole<M: Media>(media: &M, promise: Promise, dst: usize, len: usize) -> bool {
    let ends_as_wanted = promise == Promise::Durable || (dst | len).is_multiple_of(LINE);
    ends_as_wanted && len != 0 && media.can_stream()
}

/// Past the caches; returns the bytes that did not get there.
#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn stream<M: Media>(media: &mut M, promise: Promise, dst: usize, src: usize, len: usize) -> usize {
    media.stream(dst, src, len, move |media, rest| finish_line(media, promise, rest))
}

/// Of a stream that stopped the bytes that could still be read; returns the bytes that did not get there.
#[cold]
fn finish_line<M: Media>(media: &mut M, promise: Promise, rest: &Rest) -> usize {
    rest.len - rest.readable + through_cache(media, promise, rest.dst, rest.src, rest.readable)
}

/// Leaves the caches alone but for the partial line at either end, whose other bytes may be in use there.
fn copy_ragged<M: Media>(media: &mut M, dst: usize, src: usize, len: usize) -> usize {
    let head = dst.wrapping_neg() % LINE;
    let tail = (dst + len) % LINE;
    let end = len - tail;
    let left = media.store(dst, src, head);
    if left != 0 {
        return left + len - head;
    }
    let left = stream(media, Promise::Nocache, dst + head, src + head, end - head);
    if left != 0 {
        return left + tail;
    }
    media.store(dst + end, src + end, tail)
}

#[inline(always)]
#[allow(clippy::inline_always)] // as above
fn through_cache<M: Media>(media: &mut M, promise: Promise, dst: usize, src: usize, len: usize) -> usize {
    let stored = len - media.store(dst, src, len);
    match promise {
        Promise::Nocache => len - stored,
        Promise::Durable => len - stored + media.write_back(dst, stored),
    }
}

/// Scattering, durably: each chunk is a range of its own.
pub(super) struct Scatter<'m, M> {
    media: &'m mut M,
}

impl<'m, M: Media> Scatter<'m, M> {
    pub(super) fn new(media: &'m mut M) -> Self {
        Self { media }
    }

    /// Ends the copy.
    pub(super) fn finish(self) {
        self.media.fence();
    }
}

impl<M: Media> Move for Scatter<'_, M> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        copy_part(self.media, Promise::Durable, dst, src, len)
    }

    /// It is written past the caches.
    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn target_comes(&mut self, _seg: Segment) {}
}

/// What gathered bytes wait in until their line is whole.
const STAGE: usize = 4096;

/// From here on a chunk's whole lines are not worth staging.
const DIRECT_FROM: usize = 256;

#[repr(align(64))]
struct Stage(MaybeUninit<[u8; STAGE]>);

/// Gathering: chunks that follow one another in the destination. A line that several chunks share is put together first and
/// written once.
pub(super) struct Gather<'m, M> {
    media: &'m mut M,
    promise: Promise,
    /// Where the whole copy ends.
    end: usize,
    stage: Stage,
    /// What is staged, and where it goes.
    staged: usize,
    staged_dst: usize,
    /// Bytes of earlier chunks that turned out not to get there.
    lost: usize,
}

impl<M: Media> Move for Gather<'_, M> {
    #[inline]
    fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let end = Segment::new(dst, len).end();
        if self.staged == 0 && (end == self.end || end.is_multiple_of(LINE)) {
            return copy_part(self.media, self.promise, dst, src, len);
        }
        self.gather(Segment::new(dst, len), src)
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // as above
    fn source_comes(&mut self, seg: Segment) {
        if seg.len < DIRECT_FROM {
            arch::prefetch(seg.addr, seg.len);
        } else {
            arch::prefetch_far(seg.addr, seg.len.min(ASK_AHEAD));
        }
    }
}

impl<'m, M: Media> Gather<'m, M> {
    pub(super) fn new(media: &'m mut M, promise: Promise, end: usize) -> Self {
        let stage = Stage(MaybeUninit::uninit());
        Self { media, promise, end, stage, staged: 0, staged_dst: 0, lost: 0 }
    }

    fn gather(&mut self, dst: Segment, src: usize) -> usize {
        let mut done = 0;
        while done < dst.len {
            let (to, from) = (dst.skip(done), src + done);
            let lines = to.len.saturating_sub(to.end() % LINE);
            if self.staged == 0 && lines >= DIRECT_FROM {
                let left = copy_part(self.media, self.promise, to.addr, from, lines);
                done += lines - left;
                if left != 0 {
                    return dst.len - done;
                }
                continue;
            }
            if self.staged == 0 {
                self.staged_dst = to.addr;
            }
            // A long chunk only completes the line; short ones fill the stage.
            let full = if lines >= DIRECT_FROM {
                (self.staged_dst + self.staged).next_multiple_of(LINE)
            } else {
                self.limit()
            };
            let part = to.len.min(full - self.staged_dst - self.staged);
            let own = self.own() + self.staged;
            let read = part - self.media.load(own, from, part);
            self.staged += read;
            done += read;
            if read < part {
                return dst.len - done;
            }
            if self.staged_dst + self.staged == full {
                let left = self.drain();
                if left != 0 {
                    // What is lost of this chunk is its own residue, the rest belongs to chunks before it.
                    let own = left.min(done);
                    self.lost += left - own;
                    return dst.len - (done - own);
                }
            }
        }
        0
    }

    /// Where the stage is full: at the end of a line.
    fn limit(&self) -> usize {
        self.staged_dst + STAGE - self.staged_dst % LINE
    }

    fn own(&mut self) -> usize {
        self.stage.0.as_mut_ptr().expose_provenance()
    }

    /// Writes what is staged; returns the bytes that did not get there.
    fn drain(&mut self) -> usize {
        let own = self.own();
        let staged = std::mem::take(&mut self.staged);
        if staged == 0 { 0 } else { copy_part(self.media, self.promise, self.staged_dst, own, staged) }
    }

    /// Ends the copy; returns how many bytes of what was taken did not get there.
    pub(super) fn finish(mut self) -> usize {
        let left = self.lost + self.drain();
        self.media.fence();
        left
    }
}

#[cfg(test)]
mod recorder;
#[cfg(test)]
mod tests;
