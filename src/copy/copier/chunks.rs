//! The chunks and the runs of a walk, as a copier copies and prefetches them.

use super::Copier;
use crate::arch::{self, LINE, LINES_AHEAD, tuning};
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

    /// If the CPU copies the segments through the caches, it does so in loops that decide nothing more.
    #[inline(never)] // among the other paths of a walk, their variables would not stay in registers
    unsafe fn copy_run<const GATHERS: bool>(&mut self, run: &Run<'_>, flat: usize) -> Option<(usize, usize)> {
        let len = run.len();
        if len >= self.nontemporal_from {
            return None;
        }
        self.make_room(len);
        if matches!(self.path, Path::Syscalls) {
            return None;
        }
        let run = run.within(self.span_left);
        let (taken, left) = if len == LINE && run.segs().len() > LINES_AHEAD {
            // SAFETY: this is a part of the run for which the caller of `copy_run` upholds the same contract.
            unsafe { self.copy_lines::<GATHERS>(run, flat) }
        } else {
            // SAFETY: this is a part of the run for which the caller of `copy_run` upholds the same contract.
            unsafe { self.copy_each::<GATHERS>(run, flat) }
        };
        self.span_left -= taken * len;
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
