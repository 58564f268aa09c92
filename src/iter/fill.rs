//! A PIPE that a system call fills.
//!
//! The call may block without limit, so no lock is held during it: it writes to pages that are not in the ring yet, and
//! afterwards each page enters the ring with exactly the bytes that arrived. Their slots are reserved before the call.
//! Otherwise another writer could fill the ring meanwhile, and bytes already read from a descriptor would have no place
//! to go.

use super::IovIter;
use super::kinds::PipeCursor;
use crate::memory::Segment;
use crate::structure::{PipeRing, Place, Writer};
use std::sync::Arc;

/// The most pages offered to one call. They are allocated before it is known how many bytes the call reads.
const MAX_PAGES: usize = 64;

/// The memory that a pipe offers to one system call: the rest of the newest page, if this iterator was the last to
/// write to it, and new pages. The slots of the pages stay reserved until the offer is accepted or dropped.
pub(crate) struct Offer {
    ring: Arc<PipeRing>,
    places: Vec<Place>,
}

impl Drop for Offer {
    fn drop(&mut self) {
        Writer::give_back(&self.ring, self.places.drain(..));
    }
}

impl Offer {
    /// The memory offered, in the order in which the call fills it.
    pub(crate) fn segs(&self) -> impl Iterator<Item = Segment> {
        self.places.iter().map(Place::seg)
    }
}

impl PipeCursor {
    fn offer(&self, nbytes: usize) -> Offer {
        let mut offer = Offer { ring: Arc::clone(self.0.ring()), places: Vec::new() };
        let mut left = nbytes;
        while left > 0 && offer.places.len() < MAX_PAGES {
            if offer.places.try_reserve(1).is_err() {
                break;
            }
            let Some(place) = self.0.reserve(left) else { break };
            left -= place.seg().len;
            offer.places.push(place);
        }
        offer
    }

    /// Adds the first `nbytes` bytes of the offer to the pipe; returns how many were added.
    fn accept(&mut self, mut offer: Offer, nbytes: usize) -> usize {
        let mut done = 0;
        for place in offer.places.drain(..) {
            let part = place.seg().len.min(nbytes - done);
            done += self.0.commit(place, part);
        }
        done
    }
}

impl IovIter {
    /// Memory for at most `nbytes` and `count` bytes of a PIPE, which the caller fills with no lock held. `None` for
    /// other kinds.
    pub(crate) fn offer(&self, nbytes: usize) -> Option<Offer> {
        self.body.as_pipe().map(|pipe| pipe.offer(nbytes.min(self.count)))
    }

    /// Whether a PIPE has free slots. If it has and an offer is empty, the offer's pages could not be allocated.
    pub(crate) fn has_free_slots(&self) -> bool {
        self.body.as_pipe().is_some_and(|pipe| pipe.0.free_slots().0 > 0)
    }

    /// Adds the offer's first `nbytes` bytes, which the caller has filled, to the PIPE that made the offer, and
    /// advances it.
    pub(crate) fn accept(&mut self, offer: Offer, nbytes: usize) {
        let nbytes = nbytes.min(self.count);
        if let Some(pipe) = self.body.as_pipe_mut() {
            self.count -= pipe.accept(offer, nbytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::abi::{Direction, PAGE_SIZE};
    use crate::iter::IovIter;
    use crate::structure::PipeRing;
    use std::sync::Arc;

    fn lengths(ring: &PipeRing) -> Vec<(usize, usize)> {
        ring.lock().iter().map(|slot| (slot.offset, slot.len)).collect()
    }

    fn free(ring: &PipeRing) -> usize {
        ring.lock().unreserved()
    }

    #[test]
    fn what_was_read_enters_the_ring_and_nothing_else() {
        let ring = Arc::new(PipeRing::new(4, Some(3)).unwrap());
        let mut i = IovIter::pipe(Direction::Dest, Arc::clone(&ring), 5 * PAGE_SIZE).unwrap();
        let offer = i.offer(usize::MAX).unwrap();
        assert_eq!(offer.segs().map(|seg| seg.len).sum::<usize>(), 3 * PAGE_SIZE, "as many pages as slots are free");
        assert_eq!((lengths(&ring), free(&ring)), (vec![], 0), "the slots are kept, the ring is empty");
        i.accept(offer, PAGE_SIZE + 10);
        assert_eq!((lengths(&ring), free(&ring)), (vec![(0, PAGE_SIZE), (0, 10)], 1));
        let offer = i.offer(20).unwrap();
        assert_eq!(offer.segs().next().map(|seg| seg.len), Some(20), "the open page first");
        i.accept(offer, 20);
        assert_eq!((lengths(&ring), i.count()), (vec![(0, PAGE_SIZE), (0, 30)], 4 * PAGE_SIZE - 30));
        drop(i.offer(usize::MAX));
        assert_eq!(free(&ring), 1, "an offer that came to nothing keeps no slot");
    }

    #[test]
    fn a_full_ring_that_is_drained_meanwhile_keeps_the_place_of_the_open_page() {
        let ring = Arc::new(PipeRing::new(1, None).unwrap());
        let mut i = IovIter::pipe(Direction::Dest, Arc::clone(&ring), 100).unwrap();
        let offer = i.offer(10).unwrap();
        i.accept(offer, 10);
        let offer = i.offer(10).unwrap();
        let reader = ring.read().ok().unwrap();
        let slots = reader.peek(10, 1).unwrap();
        reader.consume(&slots, 10);
        drop(reader);
        assert!(lengths(&ring).is_empty());
        assert_eq!(free(&ring), 0, "nobody else gets the slot that came free");
        i.accept(offer, 5);
        assert_eq!((lengths(&ring), i.count()), (vec![(10, 5)], 85));
    }
}
