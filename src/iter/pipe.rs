//! PIPE: a destination that appends to a ring, as it was in its last form (6.0 to 6.4): each step extends the newest own
//! page or takes one more slot, so nothing is ever reserved that is not filled.

use super::walk::Step;
use crate::abi::PAGE_SIZE;
use crate::memory::Page;
use crate::structure::{PipeRing, Ring, Slot};
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct PipeCursor {
    pub(super) ring: Arc<PipeRing>,
    /// The ring's counter when the iterator was made: the first slot it may have written.
    start_head: u32,
    /// The slot it wrote last and where that ends in its page; nothing before the first.
    last: Option<Last>,
}

#[derive(Clone, Copy, PartialEq)]
struct Last {
    counter: u32,
    end: usize,
}

impl PipeCursor {
    pub(super) fn new(ring: Arc<PipeRing>) -> Self {
        let start_head = ring.lock().head();
        Self { ring, start_head, last: None }
    }

    pub(super) fn end_offset(&self) -> usize {
        self.last.map_or(0, |last| last.end)
    }

    /// The newest slot, if it is the one this iterator wrote last and still ends where it left it. Once a reader has drained
    /// it, or somebody else has appended, the next byte opens a new slot.
    pub(super) fn current<'a>(&self, ring: &'a mut Ring) -> Option<&'a mut Slot> {
        let last = self.last?;
        if last.counter.wrapping_add(1) != ring.head() {
            return None;
        }
        ring.get_mut(last.counter).filter(|slot| slot.end() == last.end)
    }

    /// An own page with room at its end, and how much.
    fn room(&self, ring: &mut Ring) -> usize {
        self.current(ring).filter(|slot| slot.own).map_or(0, |slot| PAGE_SIZE - slot.end())
    }

    pub(super) fn stand_on_newest(&mut self, ring: &Ring) {
        self.last = ring.newest().map(|slot| Last { counter: ring.head().wrapping_sub(1), end: slot.end() });
    }

    /// Makes the next chunk part of the pipe: its address and length; `None` when the pipe is full.
    fn append(&mut self, ring: &mut Ring, nbytes: usize) -> Option<(usize, usize)> {
        let room = self.room(ring);
        let part = if room > 0 {
            let part = nbytes.min(room);
            self.current(ring)?.len += part;
            part
        } else {
            let part = nbytes.min(PAGE_SIZE);
            if !ring.push_own(part, 0) {
                return None;
            }
            part
        };
        self.stand_on_newest(ring);
        let page = ring.newest()?.page.seg();
        Some((page.addr + self.end_offset() - part, part))
    }

    #[inline(never)]
    pub(super) fn walk<S: Step>(&mut self, nbytes: usize, step: &mut S) -> usize {
        let shared = Arc::clone(&self.ring);
        let mut ring = shared.lock();
        let mut progress = 0;
        while progress < nbytes {
            let Some((addr, part)) = self.append(&mut ring, nbytes - progress) else { break };
            let left = step.step(addr, progress, part);
            progress += part - left;
            if left != 0 {
                let surplus = self.shorten(&mut ring, left);
                drop(ring);
                drop(surplus);
                break;
            }
        }
        progress
    }

    /// Takes `nbytes` back off the newest slots; the slots that emptied come back, to be dropped with no lock held.
    fn shorten(&mut self, ring: &mut Ring, mut nbytes: usize) -> Vec<Slot> {
        let mut released = Vec::new();
        while ring.head() != self.start_head {
            let Some(slot) = ring.get_mut(ring.head().wrapping_sub(1)) else { break };
            if nbytes < slot.len {
                slot.len -= nbytes;
                self.stand_on_newest(ring);
                return released;
            }
            nbytes -= slot.len;
            released.extend(ring.pop_newest());
        }
        self.last = None;
        released
    }

    /// Bytes in the ring that this iterator wrote.
    fn written(&self, ring: &Ring) -> usize {
        let slots = ring.head().wrapping_sub(self.start_head) as usize;
        let skip = ring.used().saturating_sub(slots);
        ring.iter().skip(skip).map(|slot| slot.len).sum()
    }

    /// Takes back the last `nbytes`, or says how many there are.
    pub(super) fn revert(&mut self, nbytes: usize) -> std::result::Result<(), usize> {
        let shared = Arc::clone(&self.ring);
        let mut ring = shared.lock();
        let written = self.written(&ring);
        if nbytes > written {
            return Err(written);
        }
        let released = self.shorten(&mut ring, nbytes);
        drop(ring);
        drop(released);
        Ok(())
    }

    /// References `page[offset..offset + nbytes]` without copying. All or nothing: `false` when no slot is free.
    pub(super) fn reference(&mut self, page: &Page, offset: usize, nbytes: usize) -> bool {
        let shared = Arc::clone(&self.ring);
        let mut ring = shared.lock();
        let same = |slot: &&mut Slot| !slot.own && slot.page.seg().addr == page.seg().addr && slot.end() == offset;
        if let Some(slot) = self.current(&mut ring).filter(same) {
            slot.len += nbytes;
        } else if !ring.push(Slot { page: page.clone(), offset, len: nbytes, flags: 0, own: false }) {
            return false;
        }
        self.stand_on_newest(&ring);
        true
    }

    /// Slots that can take bytes, a half-filled own page among them, and the offset in that page.
    pub(super) fn free_slots(&self) -> (usize, usize) {
        let mut ring = self.ring.lock();
        let room = self.room(&mut ring);
        let partly = usize::from(room > 0);
        (ring.free() + partly, partly * (PAGE_SIZE - room))
    }

    /// Adds up to `nbytes` on up to `maxpages` pages: the pages' addresses, the first byte's offset, the bytes.
    pub(super) fn extend(&mut self, nbytes: usize, maxpages: usize) -> (Vec<usize>, usize, usize) {
        let shared = Arc::clone(&self.ring);
        let mut ring = shared.lock();
        let (mut pages, mut first, mut done) = (Vec::new(), 0, 0);
        while done < nbytes && pages.len() < maxpages {
            let Some((addr, part)) = self.append(&mut ring, nbytes - done) else { break };
            if pages.is_empty() {
                first = addr % PAGE_SIZE;
            }
            pages.push(addr - addr % PAGE_SIZE);
            done += part;
        }
        (pages, first, done)
    }

    /// The newest page, if the next bytes may go into it: the one part of the ring that a copy's other side can overlap.
    pub(super) fn open_page(&self) -> Option<crate::memory::Segment> {
        let mut ring = self.ring.lock();
        self.current(&mut ring).filter(|slot| slot.own).map(|slot| slot.page.seg())
    }
}
