//! The walk over segments, with a separate loop for runs of segments of equal length.
//!
//! Scattered memory is often an array of equal small blocks. For those, the cost per segment is the loop around the
//! copy, and the latency of memory that no prefetcher foresees. So a run of equal lengths is walked with the length in
//! a register, and each step prefetches the segment that it reaches about one memory latency later.

use super::{Flavour, Vector};
use crate::abi::PAGE_SIZE;
use crate::iter::walk::Step;
use crate::memory::Segment;
use std::sync::Arc;

impl Vector {
    #[inline(never)]
    pub(in crate::iter) fn walk<S: Step>(&mut self, offset: &mut usize, nbytes: usize, step: &mut S) -> usize {
        match &self.flavour {
            Flavour::Bvec(offsets) => {
                let offsets = Arc::clone(offsets);
                self.walk_chunks(offset, nbytes, step, |cur, skip| PAGE_SIZE - (offsets[cur] + skip) % PAGE_SIZE)
            }
            Flavour::Iovec | Flavour::Kvec => self.walk_chunks(offset, nbytes, step, |_, _| usize::MAX),
        }
    }

    /// `limit(segment, skip)` is the greatest length of a chunk that begins `skip` bytes into that segment.
    #[inline(always)]
    #[allow(clippy::inline_always)] // instantiated per step and flavour, so that `limit` is a constant for most
    fn walk_chunks<S: Step>(
        &mut self,
        offset: &mut usize,
        nbytes: usize,
        step: &mut S,
        limit: impl Fn(usize, usize) -> usize,
    ) -> usize {
        let segs = self.ranges.segs();
        let (mut cur, mut skip, mut progress) = (self.cur, *offset, 0);
        while progress < nbytes {
            // nbytes <= count <= the bytes that the segments hold from here on, so `cur` is in range.
            let seg = segs[cur];
            if skip == 0 && seg.len.wrapping_sub(1) < RUN_UP_TO && limit(cur, 0) == usize::MAX {
                let (whole, part) = walk_run(&segs[cur..], progress, nbytes - progress, step);
                cur += whole;
                progress += whole * seg.len + part;
                skip = part;
                if part != 0 {
                    break;
                }
                if whole != 0 {
                    continue;
                }
            }
            let part = (nbytes - progress).min(seg.len - skip).min(limit(cur, skip));
            if part != 0 {
                if let Some(next) = segs.get(cur + lookahead(seg.len)) {
                    step.prefetch(*next);
                }
                let done = part - step.step(seg.addr + skip, progress, part);
                progress += done;
                skip += done;
                if done < part {
                    break;
                }
            }
            if skip >= seg.len {
                cur += 1;
                skip = 0;
            }
        }
        self.cur = cur;
        *offset = skip;
        progress
    }
}

/// Segments of at most this many bytes are walked in runs of equal length.
const RUN_UP_TO: usize = 512;

/// Walks over the segments at the start of `segs` that have the length of the first and fit in `room` bytes. It leaves
/// the array's last few segments, which have no segment ahead of them to prefetch, to the caller. Returns how many
/// segments were processed as a whole, and how many bytes of the one after those, if the step stopped in it.
#[inline(always)]
#[allow(clippy::inline_always)] // instantiated per step: the step is inlined into the loop
fn walk_run<S: Step>(segs: &[Segment], progress: usize, room: usize, step: &mut S) -> (usize, usize) {
    let len = segs[0].len;
    let coming = segs.get(lookahead(len)..).unwrap_or_default();
    let mut whole = 0;
    for (seg, next) in segs.iter().zip(coming).take(room / len) {
        if seg.len != len {
            break;
        }
        step.prefetch(Segment::new(next.addr, len));
        let left = step.step(seg.addr, progress + whole * len, len);
        if left != 0 {
            return (whole, len - left);
        }
        whole += 1;
    }
    (whole, 0)
}

/// How many segments ahead to prefetch, so that a segment has arrived when the walk reaches it: as many as make up a
/// page, between 2 and 32. Measured for segments of 64 bytes to 16 KiB.
#[inline]
fn lookahead(len: usize) -> usize {
    (PAGE_SIZE >> (len | 1).ilog2()).clamp(2, 32)
}
