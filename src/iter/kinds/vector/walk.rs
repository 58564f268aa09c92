//! The walk over segments, with a separate loop for runs of segments of equal length.
//!
//! Scattered memory is often an array of equal small blocks. For those, the cost per segment is the loop around the
//! copy, and the latency of memory that no prefetcher foresees. So a [`Run`] of equal lengths is passed to the step as
//! a whole. The step decides once how it processes that length, and prefetches the segment that it reaches about one
//! memory latency later.

use super::{Flavour, Vector};
use crate::abi::PAGE_SIZE;
use crate::iter::run::{Run, lookahead};
use crate::iter::walk::Step;
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
            if skip == 0
                && limit(cur, 0) == usize::MAX
                && let Some(run) = Run::at_start_of(&segs[cur..], nbytes - progress)
            {
                let (taken, left) = step.run(&run, progress);
                progress += taken * seg.len - left;
                cur += taken;
                if left != 0 {
                    (cur, skip) = (cur - 1, seg.len - left);
                    break;
                }
                continue;
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
