//! PIPE: a destination that appends to a ring, as in the kernel's last form of it (6.0 to 6.4). Each chunk is the rest
//! of this iterator's newest page or one new page. It is committed after the step with the bytes that the step wrote,
//! so the ring never has a slot without data.

use crate::abi::{Direction, Kind, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::iter::walk::Step;
use crate::iter::{IovIter, require_possible};
use crate::structure::{PipeRing, Writer};
use std::sync::Arc;

#[derive(Clone)]
pub(in crate::iter) struct PipeCursor(pub(in crate::iter) Writer);

impl PipeCursor {
    #[inline(never)]
    pub(in crate::iter) fn walk<S: Step>(&mut self, nbytes: usize, step: &mut S) -> usize {
        let mut progress = 0;
        while progress < nbytes {
            let Some(place) = self.0.reserve(nbytes - progress) else { break };
            let seg = place.seg();
            let left = step.step(seg.addr, progress, seg.len);
            progress += self.0.commit(place, seg.len - left);
            if left != 0 {
                break;
            }
        }
        progress
    }

    /// Adds up to `nbytes` unwritten bytes on up to `maxpages` pages; returns the pages' addresses, the offset of the
    /// first byte in its page, and the number of bytes added.
    pub(in crate::iter) fn extend(&mut self, nbytes: usize, maxpages: usize) -> Result<(Vec<usize>, usize, usize)> {
        let (mut pages, mut first, mut done) = (Vec::new(), 0, 0);
        let most = maxpages.min(nbytes.div_ceil(PAGE_SIZE) + 1).min(self.0.free_slots().0);
        pages.try_reserve_exact(most).map_err(|_| Error::NoMemory(most * size_of::<usize>()))?;
        while done < nbytes && pages.len() < most {
            let Some(place) = self.0.reserve(nbytes - done) else { break };
            let seg = place.seg();
            if pages.is_empty() {
                first = seg.addr % PAGE_SIZE;
            }
            pages.push(seg.addr - seg.addr % PAGE_SIZE);
            done += self.0.commit(place, seg.len);
        }
        Ok((pages, first, done))
    }
}

impl IovIter {
    /// An iterator that fills a pipe (`iov_iter_pipe`, until 6.4). `count` may exceed the room in the ring.
    pub fn pipe(direction: Direction, ring: Arc<PipeRing>, count: usize) -> Result<Self> {
        require_possible(direction, Kind::Pipe)?;
        Ok(Self::with_body(direction, count, PipeCursor(Writer::iterator(ring)).into()))
    }

    /// An iterator that fills a pipe as `write(2)` does: later writes may append to its last page.
    pub(crate) fn pipe_write(ring: Arc<PipeRing>, count: usize) -> Self {
        Self::with_body(Direction::Dest, count, PipeCursor(Writer::ordinary(ring)).into())
    }
}
