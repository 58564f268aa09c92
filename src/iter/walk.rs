//! The walk: the only place that goes over the memory of an iterator and moves it, and the only dispatch over kinds
//! that does. Every copy flavour is a [`Step`] of a few lines.

use super::{Body, IovIter};
use crate::arch;
use crate::memory::{Page, Segment};

/// What to do with each contiguous chunk of an iterator's memory.
pub trait Step {
    /// Processes `len` bytes (never 0) at `addr`, the `progress`-th byte of the walk on; returns how many of them it did **not**
    /// process. Anything but 0 ends the walk.
    fn step(&mut self, addr: usize, progress: usize, len: usize) -> usize;

    /// Told of a segment that comes up soon.
    #[inline(always)]
    #[allow(clippy::inline_always)] // once per segment of 64 bytes
    fn prefetch(&mut self, next: Segment) {
        arch::prefetch(next.addr, next.len);
    }
}

impl IovIter {
    /// Walks over at most `nbytes` bytes (and `count`), moves the iterator by what was processed and returns that.
    ///
    /// The position afterwards is the kernel's copying walker's: at the end of a segment it moves on to the next one
    /// once, empty ones that follow are stepped over only when more is asked for. A walk of zero bytes changes nothing.
    #[inline(always)]
    #[allow(clippy::inline_always)] // there is nothing to walk over in a single range
    pub fn walk<S: Step>(&mut self, nbytes: usize, step: &mut S) -> usize {
        let nbytes = nbytes.min(self.count);
        if nbytes == 0 {
            return 0;
        }
        let done = match &mut self.body {
            Body::Ubuf(memory) => {
                let done = nbytes - step.step(memory.seg().addr + self.offset, 0, nbytes);
                self.offset += done;
                done
            }
            Body::Vector(vector) => vector.walk(&mut self.offset, nbytes, step),
            Body::Pipe(pipe) => pipe.walk(nbytes, step),
            Body::Xarray(xarray) => xarray.walk(&mut self.offset, nbytes, step),
            Body::Folioq(folioq) => folioq.walk(&mut self.offset, nbytes, step),
            Body::Discard => nbytes,
        };
        self.count -= done;
        done
    }

    /// Gives a PIPE a reference to `page[offset..offset + nbytes]`, cut to `count`; all or nothing. Returns the bytes it stands for.
    pub(crate) fn append_page(&mut self, page: &Page, offset: usize, nbytes: usize) -> usize {
        let nbytes = nbytes.min(self.count);
        let Body::Pipe(pipe) = &mut self.body else { return 0 };
        if nbytes == 0 || !pipe.reference(page, offset, nbytes) {
            return 0;
        }
        self.count -= nbytes;
        nbytes
    }
}
