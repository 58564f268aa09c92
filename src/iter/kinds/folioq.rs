//! FOLIOQ: a position in a queue of folios. A chunk is the part of a folio within one page.

use crate::abi::{Direction, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::iter::IovIter;
use crate::iter::walk::{Prepared, Step};
use crate::memory::{Backing, Page};
use crate::structure::{FolioQueue, Folios};
use std::sync::Arc;

#[derive(Clone)]
pub(in crate::iter) struct FolioCursor {
    queue: Arc<FolioQueue>,
    /// The index of the current folio, counted over all nodes of the queue. At the end of the queue it is the number of
    /// folios.
    slot: usize,
    /// Bytes between the start and the position, which limits a revert.
    consumed: usize,
    prepared: Prepared,
}

impl IovIter {
    /// The folios of a queue, starting `offset` bytes into the folio `first_slot` (`iov_iter_folio_queue`).
    pub fn folioq(
        direction: Direction,
        queue: Arc<FolioQueue>,
        first_slot: usize,
        offset: usize,
        count: usize,
    ) -> Result<Self> {
        let cursor = FolioCursor::new(queue, first_slot, offset)?;
        Ok(Self { offset, ..Self::with_body(direction, count, cursor.into()) })
    }
}

impl FolioCursor {
    fn new(queue: Arc<FolioQueue>, slot: usize, offset: usize) -> Result<Self> {
        let folios = queue.snapshot();
        if slot > folios.len() {
            return Err(Error::invalid("first_slot", slot, format!("0..={}, the folios in the queue", folios.len())));
        }
        let size = folios.get(slot).map_or(0, |folio| folio.seg().len);
        if offset > size {
            return Err(Error::invalid("offset", offset, format!("0..={size}, the size of folio {slot}")));
        }
        Ok(Self { queue, slot, consumed: 0, prepared: Prepared::new() })
    }

    #[inline(never)]
    pub(in crate::iter) fn walk<S: Step>(
        &mut self,
        offset: &mut usize,
        nbytes: usize,
        writes: bool,
        step: &mut S,
    ) -> usize {
        let folios = self.queue.snapshot();
        let mut progress = 0;
        while progress < nbytes {
            let Some(folio) = folios.get(self.slot) else { break };
            let part = (nbytes - progress).min(PAGE_SIZE - *offset % PAGE_SIZE).min(folio.seg().len - *offset);
            if part != 0 && !self.prepared.takes(folio, writes) {
                break;
            }
            let done = if part == 0 { 0 } else { part - step.step(folio.seg().addr + *offset, progress, part) };
            progress += done;
            *offset += done;
            if *offset >= folio.seg().len {
                self.slot += 1;
                *offset = 0;
            }
            if done < part {
                break;
            }
        }
        self.consumed += progress;
        progress
    }

    /// Moves forwards by `nbytes`; the error is the number of bytes to the end of the queue, if they are fewer.
    pub(in crate::iter) fn advance(&mut self, offset: &mut usize, nbytes: usize) -> std::result::Result<(), usize> {
        let folios = self.queue.snapshot();
        let (mut slot, mut left) = (self.slot, offset.saturating_add(nbytes));
        while let Some(folio) = folios.get(slot)
            && left >= folio.seg().len
        {
            left -= folio.seg().len;
            slot += 1;
        }
        if left > 0 && slot >= folios.len() {
            return Err(nbytes.saturating_sub(left));
        }
        self.slot = slot;
        *offset = left;
        self.consumed += nbytes;
        Ok(())
    }

    /// Moves backwards by `nbytes` (not 0); the error is the number of bytes consumed, if they are fewer.
    pub(in crate::iter) fn revert(&mut self, offset: &mut usize, nbytes: usize) -> std::result::Result<(), usize> {
        if nbytes > self.consumed {
            return Err(self.consumed);
        }
        let folios = self.queue.snapshot();
        let mut left = nbytes;
        while left > *offset {
            // `left <= consumed` bytes lie before the position, so there is a folio before this one: folios are never
            // removed.
            left -= *offset;
            self.slot -= 1;
            *offset = size(&folios, self.slot);
        }
        *offset -= left;
        self.consumed -= nbytes;
        Ok(())
    }

    /// Calls `show` with each folio from the position on and the offset of its first byte ahead, until `show` returns
    /// `false`. Folios that are consumed to their end are left out.
    pub(in crate::iter) fn folios(&self, offset: usize, mut show: impl FnMut(&Page, usize) -> bool) {
        let folios = self.queue.snapshot();
        let mut skip = offset;
        for slot in self.slot.. {
            match folios.get(slot) {
                Some(folio) if skip >= folio.seg().len || show(folio, skip) => skip = 0,
                _ => break,
            }
        }
    }

    pub(in crate::iter) fn backing(&self) -> Backing {
        self.prepared.note(self.queue.backing())
    }

    pub(in crate::iter) fn current_size(&self) -> usize {
        size(&self.queue.snapshot(), self.slot)
    }
}

fn size(folios: &Folios, slot: usize) -> usize {
    folios.get(slot).map_or(0, |folio| folio.seg().len)
}
