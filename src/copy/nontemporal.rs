//! Non-temporal copies: which parts of a range are stored non-temporally, as whole lines or parts of lines, and which
//! go through the cache and, if the copy is to be durable, are written back.
//!
//! No line is stored to in both ways. A line that gets both a cached and a non-temporal store costs three times as much
//! as with either alone, because the CPU has to evict it in between.
//!
//! The algorithm is generic over the memory that it writes to ([`LineStore`]). The tests run it over a model that
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

/// The operations of a non-temporal copy on memory. Each may stop early, and returns the bytes not done.
pub(super) trait LineStore {
    /// Whether non-temporal stores can be used for a copy with this `flush`. The kernel's copies have none. On some
    /// architectures they are only hints, after which a line that is to be flushed must be written back all the same,
    /// so they do not serve `Flush::Lines`.
    fn can_bypass(&self, flush: Flush) -> bool;
    /// Copies into a buffer of ours through the cache; returns the bytes not copied.
    ///
    /// # Safety
    /// [`CopyChunk::copy`] accepts the source, and the buffer has room for `len` bytes.
    unsafe fn load(&mut self, own: usize, src: usize, len: usize) -> usize;
    /// Copies through the cache; returns the bytes not copied.
    ///
    /// # Safety
    /// As for [`CopyChunk::copy`].
    unsafe fn store(&mut self, dst: usize, src: usize, len: usize) -> usize;
    /// Copies `len` bytes, not 0, with non-temporal stores. If it stops early, it calls `finish` with what remains,
    /// which may copy some of that and returns how many bytes are left.
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
    /// May prefetch for writing the lines of a range that is about to be stored to through the cache and written back.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per call
    fn claim(&mut self, _dst: usize, _len: usize) {}
    /// Orders every earlier store and write-back before what follows.
    fn fence(&mut self);
}

/// The part of a range that a non-temporal copy did not write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Remainder {
    /// The address of its first byte.
    pub(super) dst: usize,
    /// The source of that byte.
    pub(super) src: usize,
    /// Its length in bytes, not 0.
    pub(super) len: usize,
    /// How many of its first bytes can still be copied; they lie before the bad line.
    pub(super) readable: usize,
}

/// Whether the lines of bytes that went through the cache are written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flush {
    /// They are not: the copy avoids the caches where it can (`nocache`).
    None,
    /// They are: every counted byte leaves the caches (`flushcache`).
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
        // SAFETY: `copy` has the same contract, which its caller upholds.
        unsafe { nontemporal(store, flush, dst, src, len) }
    } else if !store.can_bypass(flush) || len < NONTEMPORAL_FROM {
        // SAFETY: `copy` has the same contract, which its caller upholds.
        unsafe { through_cache(store, flush, dst, src, len) }
    } else {
        // SAFETY: `copy` has the same contract, which its caller upholds.
        unsafe { copy_ragged(store, dst, src, len) }
    }
}

/// Copies one range right before a fence; returns the bytes not copied. If the copy is to be durable and shorter than
/// `through_cache_below` bytes, its lines are prefetched for writing, stored to and written back: on some CPUs that
/// takes less time than non-temporal stores for whose completion the fence must wait at once.
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
        // SAFETY: `copy_alone` has the same contract, which its caller upholds.
        unsafe { through_cache(store, flush, dst, src, len) }
    } else {
        // SAFETY: `copy_alone` has the same contract, which its caller upholds.
        unsafe { copy(store, flush, dst, src, len) }
    }
}

/// Copies one range of many, without a fence; returns the bytes not copied. Only a range that is stored non-temporally
/// as a whole is handled inline.
///
/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
unsafe fn copy_part<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    if is_nontemporal_whole(store, flush, dst, len) {
        // SAFETY: `copy_part` has the same contract, which its caller upholds.
        unsafe { nontemporal(store, flush, dst, src, len) }
    } else {
        // SAFETY: `copy_part` has the same contract, which its caller upholds.
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
    // SAFETY: `copy_part_out_of_line` has the same contract, which its caller upholds.
    unsafe { copy(store, flush, dst, src, len) }
}

/// Whether all of a range is stored non-temporally. That includes the partial lines at its ends if they would have to
/// be written back otherwise.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
fn is_nontemporal_whole<S: LineStore>(store: &S, flush: Flush, dst: usize, len: usize) -> bool {
    let streams_partial_lines = flush == Flush::Lines || (dst | len).is_multiple_of(LINE);
    streams_partial_lines && len != 0 && store.can_bypass(flush)
}

/// Copies with non-temporal stores; returns the bytes not copied.
///
/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
unsafe fn nontemporal<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    let finish = move |store: &mut S, rest: &Remainder| {
        // SAFETY: `rest` is a part of the range, for which `nontemporal`'s caller promises the contract of
        // `CopyChunk::copy`.
        unsafe { finish_line(store, flush, rest) }
    };
    // SAFETY: `nontemporal` has the same contract, which its caller upholds.
    unsafe { store.nontemporal(dst, src, len, finish) }
}

/// Copies the bytes before the bad line that a stopped non-temporal copy left; returns the bytes of `rest` not copied.
///
/// # Safety
/// The contract of [`CopyChunk::copy`] holds for `rest`.
#[cold]
unsafe fn finish_line<S: LineStore>(store: &mut S, flush: Flush, rest: &Remainder) -> usize {
    // SAFETY: the caller of `finish_line` promises it of the whole range, of which the first `readable` bytes are a
    // part.
    rest.len - rest.readable + unsafe { through_cache(store, flush, rest.dst, rest.src, rest.readable) }
}

/// Stores whole lines non-temporally, and the partial line at either end through the cache, where the program may be
/// using the line's other bytes. Returns the bytes not copied.
///
/// # Safety
/// As for [`CopyChunk::copy`].
unsafe fn copy_ragged<S: LineStore>(store: &mut S, dst: usize, src: usize, len: usize) -> usize {
    let head = dst.wrapping_neg() % LINE;
    let tail = (dst + len) % LINE;
    let end = len - tail;
    // SAFETY: this is a part of the range for which the caller of `copy_ragged` upholds the same contract.
    let left = unsafe { store.store(dst, src, head) };
    if left != 0 {
        return left + len - head;
    }
    // SAFETY: this is a part of the range for which the caller of `copy_ragged` upholds the same contract.
    let left = unsafe { nontemporal(store, Flush::None, dst + head, src + head, end - head) };
    if left != 0 {
        return left + tail;
    }
    // SAFETY: this is a part of the range for which the caller of `copy_ragged` upholds the same contract.
    unsafe { store.store(dst + end, src + end, tail) }
}

/// # Safety
/// As for [`CopyChunk::copy`].
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment of 64 bytes
unsafe fn through_cache<S: LineStore>(store: &mut S, flush: Flush, dst: usize, src: usize, len: usize) -> usize {
    // SAFETY: `through_cache` has the same contract, which its caller upholds.
    let stored = len - unsafe { store.store(dst, src, len) };
    match flush {
        Flush::None => len - stored,
        // SAFETY: this is a part of the range for which the caller of `through_cache` upholds the same contract.
        Flush::Lines => len - stored + unsafe { store.write_back(dst, stored) },
    }
}

/// Copies to scattered destinations, durably. Each chunk is a range of its own.
pub(super) struct Scatter<'m, S> {
    store: &'m mut S,
}

impl<'m, S: LineStore> Scatter<'m, S> {
    pub(super) fn new(store: &'m mut S) -> Self {
        Self { store }
    }

    /// Ends the copy with one fence for all chunks.
    pub(super) fn finish(self) {
        self.store.fence();
    }
}

impl<S: LineStore> CopyChunk for Scatter<'_, S> {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        // SAFETY: `copy` has the same contract, which its caller upholds.
        unsafe { copy_part(self.store, Flush::Lines, dst, src, len) }
    }

    /// Does nothing: a destination that is stored to non-temporally need not be in the caches.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_destination(&mut self, _next: Segment) {}
}
