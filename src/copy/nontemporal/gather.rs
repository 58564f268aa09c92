//! Gathering into consecutive memory, past the caches: a line that several chunks share is put together first and
//! written once.

use super::{Flush, LineStore, copy_part};
use crate::arch::{self, LINE};
use crate::copy::chunk::{CopyChunk, PREFETCH_CHUNK, poison};
use crate::memory::Segment;
use std::mem::MaybeUninit;

/// The bytes of gathered chunks that wait until their lines are whole.
pub(super) const BUFFER_SIZE: usize = 4096;

/// The whole lines of a chunk that has so many bytes of them are not worth copying twice.
const DIRECT_FROM: usize = 256;

#[repr(align(64))]
struct LineBuffer([MaybeUninit<u8>; BUFFER_SIZE]);

/// Gathers chunks that follow one another in the destination.
pub(in crate::copy) struct Gather<'m, S> {
    store: &'m mut S,
    flush: Flush,
    /// Where the whole copy ends.
    end: usize,
    buffer: LineBuffer,
    /// How many bytes are in the buffer, and where they go.
    buffered: usize,
    buffered_dst: usize,
    /// Bytes of earlier chunks that could not be written.
    lost: usize,
}

impl<S: LineStore> CopyChunk for Gather<'_, S> {
    #[inline]
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        let end = Segment::new(dst, len).end();
        if self.buffered == 0 && (end == self.end || end.is_multiple_of(LINE)) {
            // SAFETY: the caller of `copy` promises it.
            return unsafe { copy_part(self.store, self.flush, dst, src, len) };
        }
        // SAFETY: the caller of `copy` promises it.
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
    /// For chunks that end at `end`.
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
                // SAFETY: the caller of `gather` promises it of the whole range, of which this is a part.
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
            // Of a long chunk only as much as completes the line is buffered; short ones fill the buffer.
            let full = if lines >= DIRECT_FROM {
                (self.buffered_dst + self.buffered).next_multiple_of(LINE)
            } else {
                self.limit()
            };
            let part = to.len.min(full - self.buffered_dst - self.buffered);
            let own = self.own() + self.buffered;
            // SAFETY: the destination is the buffer, which has room up to `limit`; the caller promises the source.
            let read = part - unsafe { self.store.load(own, from, part) };
            self.buffered += read;
            done += read;
            if read < part {
                return dst.len - done;
            }
            if self.buffered_dst + self.buffered == full {
                // SAFETY: what is buffered goes to chunks that the callers of `copy` promised.
                let left = unsafe { self.drain() };
                if left != 0 {
                    // The last of what is lost is this chunk's; the rest belongs to chunks before it.
                    let own = left.min(done);
                    self.lost += left - own;
                    return dst.len - (done - own);
                }
            }
        }
        0
    }

    /// The destination at which the buffer is full: the end of a line.
    fn limit(&self) -> usize {
        self.buffered_dst + BUFFER_SIZE - self.buffered_dst % LINE
    }

    fn own(&mut self) -> usize {
        self.buffer.0.as_mut_ptr().expose_provenance()
    }

    /// Writes what is buffered; returns the bytes that did not get there.
    ///
    /// # Safety
    /// What is buffered came through [`CopyChunk::copy`], whose caller vouched for where it goes.
    unsafe fn drain(&mut self) -> usize {
        let own = self.own();
        let buffered = std::mem::take(&mut self.buffered);
        if buffered == 0 {
            return 0;
        }
        // SAFETY: the source is the buffer, `buffered` bytes of which were loaded; the caller promises the destination.
        unsafe { copy_part(self.store, self.flush, self.buffered_dst, own, buffered) }
    }

    /// Ends the copy; returns how many bytes of what was taken did not get there.
    pub(in crate::copy) fn finish(mut self) -> usize {
        // SAFETY: what is buffered goes to chunks that the callers of `copy` promised.
        let left = self.lost + unsafe { self.drain() };
        self.store.fence();
        left
    }
}
