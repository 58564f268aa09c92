//! Runs of segments, as a copier copies them through the caches. Where it `GATHERS`, the segments are the sources and
//! the flat memory is the destination, otherwise it is the other way round.

use super::Copier;
use crate::abi::Direction;
use crate::arch::{self, LINE, LINES_AHEAD, guard};
use crate::fault::arm::Path;
use crate::iter::Run;

/// The destination and the source of a segment.
#[inline(always)]
#[allow(clippy::inline_always)] // once per segment
fn ends<const GATHERS: bool>(addr: usize, flat: usize) -> (usize, usize) {
    if GATHERS { (flat, addr) } else { (addr, flat) }
}

impl Copier {
    /// Copies segments that are one line long, most of them by [`guard::copy_lines`]. What that stops before is copied
    /// by itself. Returns what `CopyChunk::copy_run` does.
    ///
    /// # Safety
    /// As for `CopyChunk::copy_run`.
    #[inline(never)] // away from the loop for other lengths
    pub(super) unsafe fn copy_lines<const GATHERS: bool>(&mut self, mut run: Run<'_>, flat: usize) -> (usize, usize) {
        let direction = if GATHERS { Direction::Source } else { Direction::Dest };
        let mut taken = 0;
        loop {
            let Path::Direct(armed) = &self.path else { return (taken, 0) };
            let (segs, at) = (run.segs(), flat + taken * LINE);
            // SAFETY: by the contract of `copy_lines`, `CopyChunk::copy` accepts the ranges: they are parts of
            // `Memory`, whose maker lets the destination be written to. Either they are `Backing::Heap`, which stays
            // accessible, or the path, which is `Path::Direct`, holds an `Armed`, which `arm::arm` gives while the
            // handler is installed.
            let (done, stop) = unsafe { guard::copy_lines(self.set, direction, segs, at, armed.watched()) };
            taken += done;
            if done != 0 && (stop.is_some() || !armed.is_current()) {
                let (dst, src) = ends::<GATHERS>(segs[done - 1].addr, at + (done - 1) * LINE);
                return (taken, self.count(stop.as_ref(), dst, src, LINE));
            }
            run = run.behind(done);
            let alone = match done {
                _ if run.segs().len() <= LINES_AHEAD => LINES_AHEAD,
                // It stopped at once, and may do so again: the destinations may all straddle pages.
                0 => LINES_AHEAD / 4,
                _ => 1,
            };
            // SAFETY: this is a part of the run for which the caller of `copy_lines` upholds the same contract.
            let (more, left) = unsafe { self.copy_each::<GATHERS>(run.within(alone * LINE), flat + taken * LINE) };
            taken += more;
            if more == 0 || left != 0 {
                return (taken, left);
            }
            run = run.behind(more);
        }
    }

    /// Copies each segment by a call of the plain copy, in a loop that decides nothing more. Returns what
    /// `CopyChunk::copy_run` does, or 0 segments if the run is empty or the CPU must not copy any more.
    ///
    /// # Safety
    /// As for `CopyChunk::copy_run`.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per run, which may have two segments
    pub(super) unsafe fn copy_each<const GATHERS: bool>(&mut self, run: Run<'_>, flat: usize) -> (usize, usize) {
        let Path::Direct(armed) = &self.path else { return (0, 0) };
        let (set, len, mut taken, mut copied) = (self.set, run.len(), 0, 0);
        for (addr, next) in run {
            if let Some(next) = next {
                arch::prefetch(next.addr, len);
            }
            let (dst, src) = ends::<GATHERS>(addr, flat + copied);
            debug_assert!(dst <= src || dst - src >= len, "{len} bytes are moved up by {}", dst - src);
            taken += 1;
            copied += len;
            // SAFETY: by the contract of `copy_each`, `CopyChunk::copy` accepts the ranges: they are parts of `Memory`,
            // whose maker lets the destination be written to. Either they are `Backing::Heap`, which stays accessible,
            // or the path, which is `Path::Direct`, holds an `Armed`, which `arm::arm` gives while the handler is
            // installed.
            match unsafe { guard::copy(set, dst, src, len) } {
                None if armed.is_current() => {}
                stop => return (taken, self.count(stop.as_ref(), dst, src, len)),
            }
        }
        (taken, 0)
    }
}
