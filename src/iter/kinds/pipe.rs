//! PIPE: a destination that appends to a ring, as it was in its last form (6.0 to 6.4): each step extends the newest
//! own page or takes one more slot, so nothing is ever reserved that is not filled.

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

    /// Adds up to `nbytes` on up to `maxpages` pages: the pages' addresses, the first byte's offset, the bytes.
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
    /// A pipe to fill (`iov_iter_pipe`, until 6.4). `count` may be more than it can take.
    pub fn pipe(direction: Direction, ring: Arc<PipeRing>, count: usize) -> Result<Self> {
        require_possible(direction, Kind::Pipe)?;
        Ok(Self::with_body(direction, count, PipeCursor(Writer::iterator(ring)).into()))
    }

    /// A pipe that is written to as `write(2)` does it: what comes next may be added to the last page.
    pub(crate) fn pipe_write(ring: Arc<PipeRing>, count: usize) -> Self {
        Self::with_body(Direction::Dest, count, PipeCursor(Writer::ordinary(ring)).into())
    }
}
