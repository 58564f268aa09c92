//! The walk: the one loop over an iterator's memory, which also moves the iterator. Every copy flavour is a [`Step`] of
//! a few lines.
//!
//! The contract between the two is the kernel's: a step returns the bytes it did **not** process. A residue of 0 goes
//! on to the next chunk; any other ends the walk, and the iterator stands exactly behind the last byte processed. So a
//! fault in the middle of a chunk yields an exact position without unwinding.

use super::{IovIter, Run};
use crate::abi::Direction;
use crate::arch;
use crate::error::Result;
use crate::memory::{Backing, Page, Segment};
use std::sync::atomic::{AtomicUsize, Ordering};

/// How a step accesses memory. The walk needs to know it in order to refuse read-only pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// It writes to a destination and reads a source.
    ByDirection,
    /// It reads in either direction.
    Reads,
    /// It writes in either direction.
    Writes,
}

impl Touch {
    fn writes(self, direction: Direction) -> bool {
        match self {
            Self::ByDirection => direction == Direction::Dest,
            Self::Reads => false,
            Self::Writes => true,
        }
    }
}

/// The operation that a walk applies to each contiguous chunk of memory.
pub(crate) trait Step {
    /// How it accesses memory.
    const TOUCH: Touch = Touch::ByDirection;

    /// Processes `len` bytes (never 0) at `addr`, which lie `progress` bytes from the start of the walk; returns how
    /// many of them, at the chunk's end, it did **not** process. A result other than 0 ends the walk.
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize;

    /// Processes the segments of a run in turn, of which the first lies `progress` bytes from the start of the walk.
    /// Returns how many segments it took, at least one, and how many bytes of the last of them it did **not** process.
    /// If the latter is not 0, the walk ends there. Otherwise it goes on, even if not all segments were taken.
    #[inline(always)]
    #[allow(clippy::inline_always)] // the step is inlined into the loop
    fn run(&mut self, run: &Run<'_>, progress: usize) -> (usize, usize) {
        one_by_one(self, run, progress)
    }

    /// Prefetches a segment that the walk reaches soon.
    #[inline(always)]
    #[allow(clippy::inline_always)] // called once per segment, which may be 64 bytes short
    fn prefetch(&mut self, next: Segment) {
        arch::prefetch(next.addr, next.len);
    }
}

/// Passes each segment of a run to [`Step::step`], with the result of [`Step::run`].
#[inline(always)]
#[allow(clippy::inline_always)] // the step is inlined into the loop
pub(crate) fn one_by_one<S: Step + ?Sized>(step: &mut S, run: &Run<'_>, progress: usize) -> (usize, usize) {
    let (len, mut taken) = (run.len(), 0);
    for (addr, next) in run.clone() {
        if let Some(next) = next {
            step.prefetch(next);
        }
        let left = step.step(addr, progress + taken * len, len);
        taken += 1;
        if left != 0 {
            return (taken, left);
        }
    }
    (taken, 0)
}

/// Accesses no memory: only the position moves.
struct Pass;

impl Step for Pass {
    const TOUCH: Touch = Touch::Reads;

    fn step(&mut self, _addr: usize, _progress: usize, _len: usize) -> usize {
        0
    }

    fn prefetch(&mut self, _next: Segment) {}
}

/// The weakest backing that a copy over an XArray or a folio queue is prepared for.
///
/// A copy first checks that the pages are writable and asks for their backing, which decides whether it arms the fault
/// handler; then it walks. In between, another thread may store a page that is read-only, or one whose backing is less
/// safe. So the walk takes one snapshot of the structure, checks each page in it again, and ends before such a page as
/// it ends before a hole.
pub(super) struct Prepared(AtomicUsize);

impl Prepared {
    /// Accepts any backing until the first [`Self::note`].
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(Backing::Unchecked as usize))
    }

    /// Notes the backing that the caller is about to rely on, and returns it.
    pub(super) fn note(&self, backing: Backing) -> Backing {
        self.0.store(backing as usize, Ordering::Relaxed);
        backing
    }

    /// Whether the walk may access a page.
    pub(super) fn takes(&self, page: &Page, writes: bool) -> bool {
        (page.writable() || !writes) && page.memory().backing() as usize <= self.0.load(Ordering::Relaxed)
    }
}

impl Clone for Prepared {
    fn clone(&self) -> Self {
        Self(AtomicUsize::new(self.0.load(Ordering::Relaxed)))
    }
}

impl IovIter {
    /// Walks over at most `nbytes` and `count` bytes, moves the iterator by the bytes processed and returns their
    /// number.
    ///
    /// The position afterwards is that of the kernel's copying walker: a walk that ends at the end of a segment moves
    /// to the start of the next one, but not past empty segments there; the next walk passes those. ([`Self::advance`]
    /// passes them at once.) A walk of 0 bytes changes nothing. An XArray page or a folio that the copy is not prepared
    /// for ends the walk ([`Prepared`]).
    #[inline(always)]
    #[allow(clippy::inline_always)] // for a single range the walk is one call of the step
    pub(crate) fn walk<S: Step>(&mut self, nbytes: usize, step: &mut S) -> usize {
        let nbytes = nbytes.min(self.count);
        if nbytes == 0 {
            return 0;
        }
        let done = self.body.walk(&mut self.offset, nbytes, S::TOUCH.writes(self.direction), step);
        self.count -= done;
        done
    }

    /// Moves forwards by `nbytes` to the position where a copy of as many bytes ends, that is, not past the empty
    /// segments that follow. Refused where [`Self::advance`] is.
    pub fn pass(&mut self, nbytes: usize) -> Result<()> {
        if self.body.as_vector().is_some() {
            self.walk(nbytes, &mut Pass);
            return Ok(());
        }
        // The other kinds have no empty segments, so a walk and an advance lead to the same position. An advance is
        // used, because a walk might end early: at a page that another thread has replaced since it was copied.
        self.advance(nbytes)
    }

    /// Appends a reference to `page[offset..offset + nbytes]`, clipped to `count`, to a PIPE. Returns the bytes
    /// appended: all of them, or 0.
    pub(crate) fn append_page(&mut self, page: &Page, offset: usize, nbytes: usize) -> usize {
        let nbytes = nbytes.min(self.count);
        let Some(pipe) = self.body.as_pipe_mut() else { return 0 };
        if nbytes == 0 || !pipe.0.lend(page, offset, nbytes) {
            return 0;
        }
        self.count -= nbytes;
        nbytes
    }
}
