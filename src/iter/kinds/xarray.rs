//! XARRAY: the pages of an XArray from a byte position on. A chunk is one page; a hole ends the walk.

use crate::abi::{Direction, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::iter::walk::{Prepared, Step};
use crate::memory::{Backing, Page};
use crate::structure::XArray;
use std::sync::Arc;

#[derive(Clone)]
pub(in crate::iter) struct XarrayCursor {
    array: Arc<XArray>,
    /// The byte position in the array at which the iterator began.
    pub(in crate::iter) start: usize,
    prepared: Prepared,
}

impl IovIter {
    /// The pages of an XArray from byte position `start` on (`iov_iter_xarray`). A hole ends a transfer.
    pub fn xarray(direction: Direction, array: Arc<XArray>, start: usize, count: usize) -> Result<Self> {
        if start.checked_add(count).is_none() {
            return Err(Error::invalid("count", count, format!("start {start} + count within 64 bits")));
        }
        let cursor = XarrayCursor { array, start, prepared: Prepared::new() };
        Ok(Self::with_body(direction, count, cursor.into()))
    }
}

impl XarrayCursor {
    #[inline(never)]
    pub(in crate::iter) fn walk<S: Step>(
        &mut self,
        offset: &mut usize,
        nbytes: usize,
        writes: bool,
        step: &mut S,
    ) -> usize {
        let tree = self.array.snapshot();
        let mut progress = 0;
        while progress < nbytes {
            let at = self.start + *offset;
            let Some(page) = tree.load(at / PAGE_SIZE).filter(|page| self.prepared.takes(page, writes)) else { break };
            let chunk = page.seg().take(PAGE_SIZE).skip(at % PAGE_SIZE).take(nbytes - progress);
            let part = chunk.len;
            if part == 0 {
                // A page shorter than `PAGE_SIZE` ends the walk where its bytes end, as a hole does.
                break;
            }
            let done = part - step.step(chunk.addr, progress, part);
            progress += done;
            *offset += done;
            if done < part {
                break;
            }
        }
        progress
    }

    pub(in crate::iter) fn backing(&self) -> Backing {
        self.prepared.note(self.array.backing())
    }

    /// Calls `show` with each page of the next `nbytes` bytes and the offset of its first byte ahead, up to the first
    /// hole or until `show` returns `false`.
    pub(in crate::iter) fn pages(&self, offset: usize, nbytes: usize, mut show: impl FnMut(&Page, usize) -> bool) {
        let tree = self.array.snapshot();
        let at = self.start + offset;
        let mut skip = at % PAGE_SIZE;
        for index in at / PAGE_SIZE..at.saturating_add(nbytes).div_ceil(PAGE_SIZE) {
            match tree.load(index) {
                Some(page) if show(page, skip) => skip = 0,
                _ => break,
            }
        }
    }
}
