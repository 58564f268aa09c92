//! PIPE filled by a system call, which may block for as long as it likes: the bytes go to pages that are not in the ring yet, with
//! no lock held, and the pages enter the ring with exactly the bytes that came. Slots are reserved meanwhile, so that no byte read
//! from a descriptor ever finds the ring full.

use super::pipe::PipeCursor;
use super::{Body, IovIter};
use crate::abi::PAGE_SIZE;
use crate::memory::{Page, Segment};
use crate::structure::{PipeRing, Ring, Slot};
use std::sync::Arc;

/// The most pages one call is offered. A call that reads little has allocated them all for nothing.
const MAX_PAGES: usize = 64;

/// Room that a pipe offers to one system call. The slots stay reserved until it is accepted or dropped.
pub(crate) struct Offer {
    ring: Arc<PipeRing>,
    /// Slots reserved and not yet used.
    reserved: usize,
    /// The rest of the newest page, which the iterator wrote last, and where it begins.
    open: Option<(Page, usize)>,
    pages: Vec<Page>,
}

impl Drop for Offer {
    fn drop(&mut self) {
        self.ring.lock().unreserve(self.reserved);
    }
}

impl Offer {
    /// The memory offered, in the order it is to be filled.
    pub(crate) fn segs(&self) -> impl Iterator<Item = Segment> {
        let open = self.open.iter().map(|(page, end)| page.seg().skip(*end));
        open.chain(self.pages.iter().map(Page::seg))
    }

    /// Has a page enter the ring in a reserved slot.
    fn push(&mut self, ring: &mut Ring, page: Page, offset: usize, len: usize) -> bool {
        let pushed = ring.push_reserved(Slot { page, offset, len, flags: 0, own: true });
        self.reserved -= usize::from(pushed);
        pushed
    }
}

impl PipeCursor {
    fn offer(&self, nbytes: usize) -> Offer {
        let mut ring = self.ring.lock();
        let open = self.current(&mut ring).filter(|slot| slot.own && slot.end() < PAGE_SIZE);
        let open = open.map(|slot| (slot.page.clone(), slot.end()));
        let room = open.as_ref().map_or(0, |(_, end)| PAGE_SIZE - end);
        let pages = nbytes.saturating_sub(room).div_ceil(PAGE_SIZE).min(ring.free()).min(MAX_PAGES);
        let pages: Vec<Page> = (0..pages).map_while(|_| Ring::own_page()).collect();
        // The open page needs a slot of its own should it be drained before the bytes are there.
        let reserved = pages.len() + usize::from(open.is_some());
        ring.reserve(reserved);
        drop(ring);
        Offer { ring: Arc::clone(&self.ring), reserved, open, pages }
    }

    /// Makes the first `nbytes` bytes of the offer part of the pipe; how many did.
    fn accept(&mut self, mut offer: Offer, nbytes: usize) -> usize {
        let shared = Arc::clone(&self.ring);
        let mut ring = shared.lock();
        let mut done = 0;
        if let Some((page, end)) = offer.open.take() {
            let part = nbytes.min(PAGE_SIZE - end);
            let is_there = |slot: &&mut Slot| slot.own && slot.page.seg().addr == page.seg().addr;
            let entered = match self.current(&mut ring).filter(is_there) {
                Some(slot) => {
                    slot.len += part;
                    true
                }
                None => part == 0 || offer.push(&mut ring, page, end, part),
            };
            done += if entered { part } else { 0 };
        }
        for page in std::mem::take(&mut offer.pages) {
            let part = (nbytes - done).min(PAGE_SIZE);
            if part == 0 || !offer.push(&mut ring, page, 0, part) {
                break;
            }
            done += part;
        }
        if done != 0 {
            self.stand_on_newest(&ring);
        }
        // The offer takes the lock to give the slots up that were not used.
        drop(ring);
        drop(offer);
        done
    }
}

impl IovIter {
    /// Room for up to `nbytes` bytes (and `count`) in a PIPE, to be filled with no lock held; `None` for any other kind.
    pub(crate) fn offer(&self, nbytes: usize) -> Option<Offer> {
        match &self.body {
            Body::Pipe(pipe) => Some(pipe.offer(nbytes.min(self.count))),
            Body::Ubuf { .. } | Body::Vector(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => None,
        }
    }

    /// Moves the PIPE that made the offer on by the `nbytes` bytes the offer was filled with.
    pub(crate) fn accept(&mut self, offer: Offer, nbytes: usize) {
        if let Body::Pipe(pipe) = &mut self.body {
            self.count -= pipe.accept(offer, nbytes.min(self.count));
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

    #[test]
    fn what_was_read_enters_the_ring_and_nothing_else() {
        let ring = Arc::new(PipeRing::new(4, Some(3)).unwrap());
        let mut i = IovIter::pipe(Direction::Dest, Arc::clone(&ring), 5 * PAGE_SIZE).unwrap();
        let offer = i.offer(usize::MAX).unwrap();
        assert_eq!(offer.segs().map(|seg| seg.len).sum::<usize>(), 3 * PAGE_SIZE, "as many pages as slots are free");
        assert_eq!((lengths(&ring), ring.lock().free()), (vec![], 0), "the slots are kept, the ring is empty");
        i.accept(offer, PAGE_SIZE + 10);
        assert_eq!((lengths(&ring), ring.lock().free()), (vec![(0, PAGE_SIZE), (0, 10)], 1));
        let offer = i.offer(20).unwrap();
        assert_eq!(offer.segs().next().map(|seg| seg.len), Some(PAGE_SIZE - 10), "the open page first");
        i.accept(offer, 20);
        assert_eq!((lengths(&ring), i.count()), (vec![(0, PAGE_SIZE), (0, 30)], 4 * PAGE_SIZE - 30));
        drop(i.offer(usize::MAX));
        assert_eq!(ring.lock().free(), 1, "an offer that came to nothing keeps no slot");
    }

    #[test]
    fn a_full_ring_that_is_drained_meanwhile_keeps_the_place_of_the_open_page() {
        let ring = Arc::new(PipeRing::new(1, None).unwrap());
        let mut i = IovIter::pipe(Direction::Dest, Arc::clone(&ring), 100).unwrap();
        let offer = i.offer(10).unwrap();
        i.accept(offer, 10);
        let offer = i.offer(10).unwrap();
        let drained = ring.lock().consume(10);
        assert!(drained.is_some() && !ring.lock().push_own(1, 0), "nobody else gets the slot that came free");
        i.accept(offer, 5);
        assert_eq!((lengths(&ring), i.count()), (vec![(10, 5)], 85));
    }
}
