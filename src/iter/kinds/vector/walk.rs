//! The walk over segments, with a loop of its own for runs of equal ones.

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

    /// `limit(segment, skip)` is the most a chunk may have there.
    #[inline(always)]
    #[allow(clippy::inline_always)] // instantiated per step and flavour, each with its own `limit`
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
            // nbytes <= count <= what the segments hold from here, so there is one.
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

/// Segments of up to so many bytes are walked over in runs of one length.
const RUN_UP_TO: usize = 512;

/// Steps over the segments of a run that are as long as the first and fit `room` bytes, but for the last few, behind
/// which there is nothing to prefetch: what depends on the length is decided once for all. Returns how many were
/// processed whole, and of the one after those, if the step stopped in it, how many bytes were.
#[inline(always)]
#[allow(clippy::inline_always)] // instantiated per step, once per segment of 64 bytes
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

/// How many segments ahead the memory latency lies: about a page's worth of them, as measured from 64 bytes to 16 KiB.
#[inline]
fn lookahead(len: usize) -> usize {
    (PAGE_SIZE >> (len | 1).ilog2()).clamp(2, 32)
}
