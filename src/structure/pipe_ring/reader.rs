//! The reading end of a pipe: the oldest bytes of its ring, which one reader at a time looks at and takes.

use super::{PipeRing, Slot, copies};
use crate::error::Result;
use crate::sys::futex;
use std::sync::atomic::Ordering;

/// The reading end of a ring, which one reader has at a time. Dropped, it is the next one's.
pub struct Reader<'a> {
    pub(super) pipe: &'a PipeRing,
    pub(super) generation: u32,
}

impl Reader<'_> {
    /// Bytes in the ring now.
    pub fn available(&self) -> u128 {
        self.pipe.lock().bytes
    }

    /// The oldest bytes, at most `nbytes` in at most `most` slots. They stay where they are until they are consumed,
    /// and nobody takes them back meanwhile.
    pub fn peek(&self, nbytes: usize, most: usize) -> Result<Vec<Slot>> {
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

    /// Takes the first `nbytes` of what `slots` showed out of the ring.
    pub fn consume(&self, slots: &[Slot], nbytes: usize) {
        debug_assert!(nbytes <= slots.iter().map(|slot| slot.len).sum());
        let mut ring = self.pipe.lock();
        // After a fork in between the reading end was another's: nothing is consumed that it may have.
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
