//! The walk: the only place that goes over the memory of an iterator and moves it. Every copy flavour is a [`Step`] of
//! a few lines.

use super::IovIter;
use crate::abi::Direction;
use crate::arch;
use crate::error::Result;
use crate::memory::{Backing, Page, Segment};
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a step does to the memory it is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Touch {
    /// It writes to a destination and reads a source.
    ByDirection,
    /// It only reads, whatever the direction.
    Reads,
    /// It writes, whatever the direction.
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

/// What to do with each contiguous chunk of an iterator's memory.
pub(crate) trait Step {
    /// What it does to the memory.
    const TOUCH: Touch = Touch::ByDirection;

    /// Processes `len` bytes (never 0) at `addr`, the `progress`-th byte of the walk on; returns how many of them it
    /// did **not** process. Anything but 0 ends the walk.
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize;

    /// May prefetch a segment that the walk reaches soon.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch(&mut self, next: Segment) {
        arch::prefetch(next.addr, next.len);
    }
}

/// Goes over memory and leaves it alone.
struct Pass;

impl Step for Pass {
    const TOUCH: Touch = Touch::Reads;

    fn step(&mut self, _addr: usize, _progress: usize, _len: usize) -> usize {
        0
    }
}

/// What a copy over pages that others may exchange meanwhile is prepared for.
///
/// A copy checks that the pages may be written to and asks how they may fail, and then walks over them. In between
/// another thread may have put a page there that is read-only, or one of a file that may be truncated. So the walk
/// looks at each page again, in the one snapshot it goes over, and ends in front of such a page as it does in front of
/// a hole.
pub(super) struct Prepared(AtomicUsize);

impl Prepared {
    /// For anything, until somebody has asked.
    pub(super) const fn new() -> Self {
        Self(AtomicUsize::new(Backing::Unchecked as usize))
    }

    /// Notes what whoever asks is going to rely on, and returns it.
    pub(super) fn note(&self, backing: Backing) -> Backing {
        self.0.store(backing as usize, Ordering::Relaxed);
        backing
    }

    /// Whether the walk may go over a page.
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
    /// Walks over at most `nbytes` bytes (and `count`), moves the iterator by what was processed and returns that.
    ///
    /// The position afterwards is the kernel's copying walker's: at the end of a segment it moves on to the next one
    /// once, empty ones that follow are stepped over only when more is asked for. A walk of zero bytes changes nothing.
    /// A page of an XArray or a folio that the copy is not prepared for ends it ([`Prepared`]).
    #[inline(always)]
    #[allow(clippy::inline_always)] // there is nothing to walk over in a single range
    pub(crate) fn walk<S: Step>(&mut self, nbytes: usize, step: &mut S) -> usize {
        let nbytes = nbytes.min(self.count);
        if nbytes == 0 {
            return 0;
        }
        let done = self.body.walk(&mut self.offset, nbytes, S::TOUCH.writes(self.direction), step);
        self.count -= done;
        done
    }

    /// Moves on by `nbytes`, to the position that a copy of as many ends at: empty segments behind them are not stepped
    /// over. Refused as [`Self::advance`] is.
    pub fn pass(&mut self, nbytes: usize) -> Result<()> {
        if self.body.as_vector().is_some() {
            self.walk(nbytes, &mut Pass);
            return Ok(());
        }
        // The other kinds have no empty segments, so both lead to the same position. A walk could end early here, at a
        // page that somebody has exchanged since it was copied.
        self.advance(nbytes)
    }

    /// Gives a PIPE a reference to `page[offset..offset + nbytes]`, cut to `count`; all or nothing. Returns the bytes
    /// it stands for.
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
