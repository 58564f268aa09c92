//! FOLIOQ: a position in a queue of folios, one chunk per page of a folio.

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
    /// The current folio, counted over all nodes; the number of folios at the end of the queue.
    slot: usize,
    /// Bytes between the start and here.
    consumed: usize,
    prepared: Prepared,
}

impl IovIter {
    /// A folio queue from `offset` bytes into `first_slot` on (`iov_iter_folio_queue`).
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

    /// Moves on `nbytes`, or says how many there are to the end of the queue.
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

    /// Goes back `nbytes` (not 0), or says how many there are to the start.
    pub(in crate::iter) fn revert(&mut self, offset: &mut usize, nbytes: usize) -> std::result::Result<(), usize> {
        if nbytes > self.consumed {
            return Err(self.consumed);
        }
        let folios = self.queue.snapshot();
        let mut left = nbytes;
        while left > *offset {
            // consumed bytes lie before here, so there is a folio before this one.
            left -= *offset;
            self.slot -= 1;
            *offset = size(&folios, self.slot);
        }
        *offset -= left;
        self.consumed -= nbytes;
        Ok(())
    }

    /// Shows the folios from `offset` on, each with the offset it is entered at and none of them used up, until `show`
    /// has had enough.
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
