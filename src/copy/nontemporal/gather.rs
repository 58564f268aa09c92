//! Gathers chunks into consecutive memory with non-temporal stores. A line that several chunks share is assembled in a
//! buffer and written once.
//!
//! The buffer begins at `buffered_dst` and ends where a line of the destination does, so that whatever `drain` writes
//! ends with a whole line, except for the end of the copy. The walk is told that a chunk is copied when it is in the
//! buffer; if it cannot be written later, `lost` counts its bytes and the caller takes them back.

use super::{Flush, LineStore, copy_part};
use crate::arch::{self, LINE};
use crate::copy::chunk::{CopyChunk, PREFETCH_CHUNK, poison};
use crate::memory::Segment;
use std::mem::MaybeUninit;

/// The size of the buffer for chunks whose lines are not whole yet.
pub(super) const BUFFER_SIZE: usize = 4096;

/// If a chunk has at least this many bytes of whole lines, those are copied directly and not through the buffer.
const DIRECT_FROM: usize = 256;

#[repr(align(64))]
struct LineBuffer([MaybeUninit<u8>; BUFFER_SIZE]);

/// Gathers chunks that follow one another in the destination.
pub(in crate::copy) struct Gather<'m, S> {
    store: &'m mut S,
    flush: Flush,
    /// The address behind the whole copy.
    end: usize,
    buffer: LineBuffer,
    /// The bytes in the buffer, and the address that the first of them goes to.
    buffered: usize,
    buffered_dst: usize,
    /// Bytes of earlier chunks that were reported as copied and could not be written.
    lost: usize,
}

impl<S: LineStore> CopyChunk for Gather<'_, S> {
    #[inline]
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let end = Segment::new(dst, len).end();
        if self.buffered == 0 && (end == self.end || end.is_multiple_of(LINE)) {
            // SAFETY: `copy` has the same contract, which its caller upholds.
            return unsafe { copy_part(self.store, self.flush, dst, src, len) };
        }
        // SAFETY: `copy` has the same contract, which its caller upholds.
        unsafe { self.gather(Segment::new(dst, len), src) }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_source(&mut self, next: Segment) {
        if next.len < DIRECT_FROM {
            arch::prefetch(next.addr, next.len);
        } else {
            arch::prefetch_far(next.addr, next.len.min(PREFETCH_CHUNK));
        }
    }
}

impl<'m, S: LineStore> Gather<'m, S> {
    /// Makes a `Gather` for chunks that end at the address `end`.
    pub(in crate::copy) fn new(store: &'m mut S, flush: Flush, end: usize) -> Self {
        let mut buffer = LineBuffer([const { MaybeUninit::uninit() }; BUFFER_SIZE]);
        poison(&mut buffer.0);
        Self { store, flush, end, buffer, buffered: 0, buffered_dst: 0, lost: 0 }
    }

    /// # Safety
    /// As for [`CopyChunk::copy`].
    unsafe fn gather(&mut self, dst: Segment, src: usize) -> usize {
        let mut done = 0;
        while done < dst.len {
            let (to, from) = (dst.skip(done), src + done);
            let lines = to.len.saturating_sub(to.end() % LINE);
            if self.buffered == 0 && lines >= DIRECT_FROM {
                // SAFETY: this is a part of the range for which the caller of `gather` upholds the same contract.
                let left = unsafe { copy_part(self.store, self.flush, to.addr, from, lines) };
                done += lines - left;
                if left != 0 {
                    return dst.len - done;
                }
                continue;
            }
            if self.buffered == 0 {
                self.buffered_dst = to.addr;
            }
            // A long chunk completes the line that is in the buffer, and its other lines are then copied directly. A
            // short chunk fills the buffer.
            let full = if lines >= DIRECT_FROM {
                (self.buffered_dst + self.buffered).next_multiple_of(LINE)
            } else {
                self.limit()
            };
            let part = to.len.min(full - self.buffered_dst - self.buffered);
            let own = self.own() + self.buffered;
            // SAFETY: the destination is the buffer, which has room up to `limit`, and `full` is at most that;
            // `gather`'s caller promises the source.
            let read = part - unsafe { self.store.load(own, from, part) };
            self.buffered += read;
            done += read;
            if read < part {
                return dst.len - done;
            }
            if self.buffered_dst + self.buffered == full {
                // SAFETY: the bytes in the buffer go to destinations that the callers of `copy` promised.
                let left = unsafe { self.drain() };
                if left != 0 {
                    // The bytes not written are the last ones in the buffer. Those of this chunk are returned as not
                    // copied; any more belong to chunks before it.
                    let own = left.min(done);
                    self.lost += left - own;
                    return dst.len - (done - own);
                }
            }
        }
        0
    }

    /// The destination address at which the buffer is full, which is the end of a line.
    fn limit(&self) -> usize {
        self.buffered_dst + BUFFER_SIZE - self.buffered_dst % LINE
    }

    fn own(&mut self) -> usize {
        self.buffer.0.as_mut_ptr().expose_provenance()
    }

    /// Writes the bytes in the buffer; returns how many were not written.
    ///
    /// # Safety
    /// The bytes in the buffer came through [`CopyChunk::copy`], whose caller promised their destination.
    unsafe fn drain(&mut self) -> usize {
        let own = self.own();
        let buffered = std::mem::take(&mut self.buffered);
        if buffered == 0 {
            return 0;
        }
        // SAFETY: the source is the buffer, `buffered` bytes of which were loaded; the caller promises the destination.
        unsafe { copy_part(self.store, self.flush, self.buffered_dst, own, buffered) }
    }

    /// Ends the copy with a fence; returns how many of the bytes reported as copied were not written.
    pub(in crate::copy) fn finish(mut self) -> usize {
        // SAFETY: the bytes in the buffer go to destinations that the callers of `copy` promised.
        let left = self.lost + unsafe { self.drain() };
        self.store.fence();
        left
    }
}
