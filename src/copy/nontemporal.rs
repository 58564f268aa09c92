//! Non-temporal copies: how a range is written past the caches, in whole lines and in parts of lines, and what of it
//! goes through the cache and is written back instead.
//!
//! No line is written in both ways. A line that takes a cached and a non-temporal store costs three times either, as
//! the CPU has to evict it in between.
//!
//! The algorithm is generic over what it writes to ([`LineStore`]), so that the same code runs over a model that
//! records what each store, write-back and fence does to each byte.

mod gather;
#[cfg(test)]
pub(crate) mod recorder;
#[cfg(test)]
mod tests;

pub(super) use gather::Gather;

use super::chunk::{CopyChunk, NONTEMPORAL_FROM};
use crate::arch::LINE;
use crate::memory::Segment;

/// What a copy to the medium does to memory. Each operation may stop early and returns the bytes not done.
pub(super) trait LineStore {
    /// Whether there are non-temporal stores that do what a copy promises: some are but hints, after which a line that
    /// is to be flushed has to be written back all the same.
    fn can_bypass(&self, flush: Flush) -> bool;
    /// Copies into a buffer of our own; returns the bytes not copied.
    ///
    /// # Safety
    /// The source is one that [`CopyChunk::copy`] accepts; the buffer has room.
    unsafe fn load(&mut self, own: usize, src: usize, len: usize) -> usize;
    /// Copies through the cache; returns the bytes not copied.
    ///
    /// # Safety
    /// As for [`CopyChunk::copy`].
    unsafe fn store(&mut self, dst: usize, src: usize, len: usize) -> usize;
    /// Copies `len` bytes, not 0, past the caches. If it does not get to all of them, `finish` may go on, and returns
    /// how many are left then.
    ///
    /// # Safety
    /// As for [`CopyChunk::copy`].
    unsafe fn nontemporal(
        &mut self,
        dst: usize,
        src: usize,
        len: usize,
        finish: impl FnOnce(&mut Self, &Remainder) -> usize,
    ) -> usize;
    /// Writes back the lines of a range; returns the bytes not written back.
    ///
    /// # Safety
    /// The range is a destination that [`CopyChunk::copy`] accepts.
    unsafe fn write_back(&mut self, dst: usize, len: usize) -> usize;
    /// May claim the lines of a range that is about to be stored to through the cache and written back.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    fn claim(&mut self, _dst: usize, _len: usize) {}
    /// Waits for every store and write-back before it.
    fn fence(&mut self);
}

/// The part that a non-temporal copy did not reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Remainder {
    /// Where it begins.
    pub(super) dst: usize,
    /// Where it would have come from.
    pub(super) src: usize,
    /// Its length in bytes, not 0.
    pub(super) len: usize,
    /// How many bytes of it can be read all the same.
    pub(super) readable: usize,
}

/// What is flushed of the bytes that went through the cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flush {
    /// Nothing: the copy spares the caches as far as it can (`nocache`).
    None,
    /// Their lines: nothing that was counted is in the caches alone (`flushcache`).
    Lines,
}

/// Copies one range, without a fence; returns the bytes not copied.
///
/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per call
pub(super) unsafe fn copy<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    if is_nontemporal_whole(store, flush, dst, len) {
        // SAFETY: the caller of `copy` promises it.
        unsafe { nontemporal(store, flush, dst, src, len) }
    } else if !store.can_bypass(flush) || len < NONTEMPORAL_FROM {
        // SAFETY: the caller of `copy` promises it.
        unsafe { through_cache(store, flush, dst, src, len) }
    } else {
        // SAFETY: the caller of `copy` promises it.
        unsafe { copy_ragged(store, dst, src, len) }
    }
}

/// One range that a fence follows at once. If it is shorter than `through_cache_below`, and is to be durable, its lines
/// are claimed, stored to and written back: some CPUs take less time over that than over one stream that nothing hides.
/// Returns the bytes that did not get there.
///
/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per call
pub(super) unsafe fn copy_alone<S: LineStore>(
    store: &mut S,
    flush: Flush,
    through_cache_below: usize,
    dst: usize,
    src: usize,
    len: usize,
) -> usize {
    if flush == Flush::Lines && len < through_cache_below {
        store.claim(dst, len);
        // SAFETY: the caller of `copy_alone` promises it.
        unsafe { through_cache(store, flush, dst, src, len) }
    } else {
        // SAFETY: the caller of `copy_alone` promises it.
        unsafe { copy(store, flush, dst, src, len) }
    }
}

/// Copies one range of many, without a fence. A range that is not streamed whole takes an out-of-line path.
///
/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
unsafe fn copy_part<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    if is_nontemporal_whole(store, flush, dst, len) {
        // SAFETY: the caller of `copy_part` promises it.
        unsafe { nontemporal(store, flush, dst, src, len) }
    } else {
        // SAFETY: the caller of `copy_part` promises it.
        unsafe { copy_part_out_of_line(store, flush, dst, src, len) }
    }
}

/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(never)]
unsafe fn copy_part_out_of_line<S: LineStore>(
    store: &mut S,
    flush: Flush,
    dst: usize,
    src: usize,
    len: usize,
) -> usize {
    // SAFETY: the caller of `copy_part_out_of_line` promises it.
    unsafe { copy(store, flush, dst, src, len) }
}

/// Whether all of a range is streamed. The partial lines at its ends are, too, if they had to be written back
/// otherwise.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
fn is_nontemporal_whole<S: LineStore>(store: &S, flush: Flush, dst: usize, len: usize) -> bool {
    let streams_partial_lines = flush == Flush::Lines || (dst | len).is_multiple_of(LINE);
    streams_partial_lines && len != 0 && store.can_bypass(flush)
}

/// Copies past the caches; returns the bytes not copied.
///
/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
unsafe fn nontemporal<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    let finish = move |store: &mut S, rest: &Remainder| {
        // SAFETY: the caller of `nontemporal` promises it, of the part that `nontemporal` did not get to.
        unsafe { finish_line(store, flush, rest) }
    };
    // SAFETY: the caller of `nontemporal` promises it.
    unsafe { store.nontemporal(dst, src, len, finish) }
}

/// Copies what could still be read of a stream that stopped; returns the bytes not copied.
///
/// # Safety
/// As for [`CopyChunk::copy`], of the range that `rest` is about.
#[cold]
unsafe fn finish_line<S: LineStore>(store: &mut S, flush: Flush, rest: &Remainder) -> usize {
    // SAFETY: the caller of `finish_line` promises it of the whole range, of which the first `readable` bytes are a
    // part.
    rest.len - rest.readable + unsafe { through_cache(store, flush, rest.dst, rest.src, rest.readable) }
}

/// Streams whole lines. The partial line at either end goes through the cache, where the program may be using its other
/// bytes.
///
/// # Safety
/// As for [`CopyChunk::copy`].
unsafe fn copy_ragged<S: LineStore>(store: &mut S, dst: usize, src: usize, len: usize) -> usize {
    let head = dst.wrapping_neg() % LINE;
    let tail = (dst + len) % LINE;
    let end = len - tail;
    // SAFETY: the caller of `copy_ragged` promises it of the whole range, of which this is a part.
    let left = unsafe { store.store(dst, src, head) };
    if left != 0 {
        return left + len - head;
    }
    // SAFETY: the caller of `copy_ragged` promises it of the whole range, of which this is a part.
    let left = unsafe { nontemporal(store, Flush::None, dst + head, src + head, end - head) };
    if left != 0 {
        return left + tail;
    }
    // SAFETY: the caller of `copy_ragged` promises it of the whole range, of which this is a part.
    unsafe { store.store(dst + end, src + end, tail) }
}

/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
unsafe fn through_cache<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    // SAFETY: the caller of `through_cache` promises it.
    let stored = len - unsafe { store.store(dst, src, len) };
    match flush {
        Flush::None => len - stored,
        // SAFETY: the caller of `through_cache` promises it of the whole range, of which this is a part.
        Flush::Lines => len - stored + unsafe { store.write_back(dst, stored) },
    }
}

/// Scattering, durably: each chunk is a range of its own.
pub(super) struct Scatter<'m, S> {
    store: &'m mut S,
}

impl<'m, S: LineStore> Scatter<'m, S> {
    pub(super) fn new(store: &'m mut S) -> Self {
        Self { store }
    }

    /// Ends the copy: one fence for all chunks.
    pub(super) fn finish(self) {
        self.store.fence();
    }
}

impl<S: LineStore> CopyChunk for Scatter<'_, S> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: the caller of `copy` promises it.
        unsafe { copy_part(self.store, Flush::Lines, dst, src, len) }
    }

    /// Nothing: a destination that is written past the caches need not be in them.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_destination(&mut self, _next: Segment) {}
}
