//! The chunks and the runs of a walk, as a copier copies and prefetches them.

use super::Copier;
use crate::arch::{self, guard, tuning};
use crate::copy::chunk::{CopyChunk, PREFETCH_CHUNK};
use crate::fault::arm::Path;
use crate::iter::Run;
use crate::memory::Segment;

/// If the next source is longer than this, only its first lines are prefetched, since the hardware prefetcher fetches
/// the rest.
const PREFETCH_UP_TO: usize = 16 << 10;

impl CopyChunk for Copier {
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes, and per call
    unsafe fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        if len < self.nontemporal_from {
            // SAFETY: `copy` has the same contract, which its caller upholds.
            unsafe { self.copy_through_caches(dst, src, len) }
        } else {
            // SAFETY: `copy` has the same contract, which its caller upholds.
            unsafe { self.copy_nontemporal(dst, src, len) }
        }
    }

    /// If the CPU copies the segments through the caches, it does so in this loop, which decides nothing more.
    #[inline(never)] // among the other paths of a walk, its variables would not stay in registers
    unsafe fn copy_run(
        &mut self,
        run: &Run<'_>,
        ends: impl Fn(usize, usize) -> (usize, usize),
    ) -> Option<(usize, usize)> {
        let len = run.len();
        if len >= self.nontemporal_from {
            return None;
        }
        self.make_room(len);
        let Path::Direct(armed) = &self.path else { return None };
        let (set, mut taken, mut copied, mut left) = (self.set, 0, 0, 0);
        for (addr, next) in run.within(self.span_left) {
            if let Some(next) = next {
                arch::prefetch(next.addr, len);
            }
            let (dst, src) = ends(addr, copied);
            debug_assert!(dst <= src || dst - src >= len, "{len} bytes are moved up by {}", dst - src);
            taken += 1;
            copied += len;
            // SAFETY: by `copy_run`'s contract `copy` accepts the ranges: they are parts of `Memory`, whose maker lets
            // the destination be written to. Either they are `Backing::Heap`, which stays accessible, or the path,
            // which is `Path::Direct`, holds an `Armed`, which `arm::arm` gives while the handler is installed.
            match unsafe { guard::copy(set, dst, src, len) } {
                None if armed.is_current() => {}
                stop => {
                    left = self.count(stop.as_ref(), dst, src, len);
                    break;
                }
            }
        }
        self.span_left -= copied;
        Some((taken, left))
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_source(&mut self, next: Segment) {
        if next.len < self.nontemporal_from || next.len > PREFETCH_UP_TO || next.len < PREFETCH_CHUNK {
            arch::prefetch(next.addr, next.len);
        } else {
            self.next_source = next;
        }
    }

    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch_destination(&mut self, next: Segment) {
        if next.len < self.nontemporal_from || !tuning::is_streamed(next.addr, next.len, self.expected) {
            arch::prefetch(next.addr, next.len);
        }
    }
}
