//! The reading end of a pipe: one reader at a time peeks at the oldest bytes and consumes them.

use super::{PipeRing, Slot, copies};
use crate::error::Result;
use crate::sys::futex;
use std::sync::atomic::Ordering;

/// The reading end of a ring. Dropping it lets the next reader have it.
pub struct Reader<'a> {
    pub(super) pipe: &'a PipeRing,
    pub(super) generation: u32,
}

impl Reader<'_> {
    /// Bytes in the ring at this moment.
    pub fn available(&self) -> u128 {
        self.pipe.lock().bytes
    }

    /// Clones of the oldest slots: at most `nbytes` bytes in at most `most` slots. The bytes stay in the ring until
    /// they are consumed, and no writer can take them back meanwhile.
    pub(crate) fn peek(&self, nbytes: usize, most: usize) -> Result<Vec<Slot>> {
        let mut ring = self.pipe.lock();
        let mut left = nbytes;
        let wanted = |slot: &&Slot| {
            let before = left;
            left = left.saturating_sub(slot.len);
            before > 0
        };
        let count = ring.iter().take(most).take_while(wanted).count();
        let mut slots = copies(ring.iter(), count)?;
        let mut left = nbytes;
        for slot in &mut slots {
            slot.len = slot.len.min(left);
            left -= slot.len;
        }
        ring.in_flight = (nbytes - left) as u128;
        Ok(slots)
    }

    /// Removes the first `nbytes` bytes of `slots`, which [`Self::peek`] returned, from the ring.
    pub(crate) fn consume(&self, slots: &[Slot], nbytes: usize) {
        debug_assert!(nbytes <= slots.iter().map(|slot| slot.len).sum());
        let mut ring = self.pipe.lock();
        // If the process has forked since, the child has cleared the reading end, and another reader of the child may
        // own the bytes: this one consumes none.
        if self.generation == ring.generation {
            ring.consume(nbytes);
            ring.in_flight = 0;
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut ring = self.pipe.lock();
        if self.generation == ring.generation {
            (ring.reading, ring.in_flight) = (false, 0);
        }
        drop(ring);
        self.pipe.turn.fetch_add(1, Ordering::Relaxed);
        futex::wake_all(&self.pipe.turn);
    }
}
