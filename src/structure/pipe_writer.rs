//! Writing into a pipe's ring: room is reserved, filled with no lock held, and becomes part of the pipe when it is
//! filled.
//!
//! So a reader never sees bytes that were not copied, a fork in the middle of a copy finds them not yet there, and
//! whoever asks how full the ring is does not wait for the copy. Writers in several threads take turns page by page.

use super::pipe_ring::{CAN_MERGE, PipeRing, Ring, Slot};
use crate::abi::PAGE_SIZE;
use crate::error::Result;
use crate::memory::{Backing, Memory, Page, Segment};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page the ring allocated itself, aligned as pages are.
struct OwnPage(NonNull<u8>);

const PAGE_LAYOUT: Layout = match Layout::from_size_align(PAGE_SIZE, PAGE_SIZE) {
    Ok(layout) => layout,
    Err(_) => panic!("the page size is a power of two"),
};

// SAFETY: the pointer is the only one that frees the allocation, and nothing in the type reads or writes through it.
unsafe impl Send for OwnPage {}
// SAFETY: a shared reference gives access to an address only: the type has no method that dereferences it.
unsafe impl Sync for OwnPage {}

impl OwnPage {
    fn allocate() -> Option<Page> {
        // SAFETY: PAGE_LAYOUT has a non-zero size.
        let start = NonNull::new(unsafe { alloc_zeroed(PAGE_LAYOUT) })?;
        let seg = Segment::new(start.as_ptr().expose_provenance(), PAGE_SIZE);
        // SAFETY: nobody else has the allocation, which stays until its owner `Self` is dropped: the page's memory is
        // used no longer than the page is held, and the page holds the owner.
        let memory = unsafe { Memory::new(seg, Backing::Heap) };
        Some(Page::new(memory, true, Arc::new(Self(start))))
    }
}

impl Drop for OwnPage {
    fn drop(&mut self) {
        // SAFETY: allocated in `allocate` with this layout, and freed only here, once.
        unsafe { dealloc(self.0.as_ptr(), PAGE_LAYOUT) };
    }
}

/// Room for the next bytes of a writer, reserved but not yet part of the pipe.
pub struct Place {
    page: Page,
    /// Where in the page they go.
    from: usize,
    /// How many there is room for, and are wanted.
    len: usize,
    /// The slot they are added to; a new one is reserved otherwise.
    pub(super) extends: Option<u32>,
}

impl Place {
    /// The memory to fill.
    pub fn seg(&self) -> Segment {
        self.page.seg().skip(self.from).take(self.len)
    }
}

/// What a writer may add to besides new slots.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Adds {
    /// The slot it wrote last, while that ends where it left it.
    ToItsLast,
    /// Whatever an ordinary write into the pipe has left room in.
    ToMergeable,
}

/// One writer's position in a ring.
#[derive(Clone)]
pub struct Writer {
    ring: Arc<PipeRing>,
    /// Nobody else has this number.
    id: u64,
    adds: Adds,
    /// The slot it wrote last and where that ended in its page.
    last: Option<(u32, usize)>,
}

impl Writer {
    fn new(ring: Arc<PipeRing>, adds: Adds) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { ring, id: NEXT.fetch_add(1, Ordering::Relaxed), adds, last: None }
    }

    /// One that adds to its own pages, as an iterator over a pipe does.
    pub fn iterator(ring: Arc<PipeRing>) -> Self {
        Self::new(ring, Adds::ToItsLast)
    }

    /// One that leaves its pages to be merged with, as `write(2)` does.
    pub fn ordinary(ring: Arc<PipeRing>) -> Self {
        Self::new(ring, Adds::ToMergeable)
    }

    /// Where what it wrote last ends in its page; 0 before the first byte.
    pub fn end_offset(&self) -> usize {
        self.last.map_or(0, |(_, end)| end)
    }

    /// The newest slot and its counter, if the next byte may be added to it: once a reader has drained it, or somebody
    /// else has appended, the next byte opens a new slot.
    fn open<'a>(&self, ring: &'a mut Ring) -> Option<(u32, &'a mut Slot)> {
        let counter = ring.head().wrapping_sub(1);
        let slot = ring.newest_mut().filter(|slot| !slot.filling)?;
        let adds = match self.adds {
            Adds::ToItsLast => slot.writer == self.id && self.last == Some((counter, slot.end())),
            Adds::ToMergeable => slot.own && slot.flags & CAN_MERGE != 0,
        };
        adds.then_some((counter, slot))
    }

    /// The same if it is a page of the ring's own with room at its end.
    fn open_page<'a>(&self, ring: &'a mut Ring) -> Option<(u32, &'a mut Slot)> {
        self.open(ring).filter(|(_, slot)| slot.own && slot.end() < PAGE_SIZE)
    }

    /// Reserves room for up to `nbytes` (not 0) in one page; `None` when the pipe is full or memory is short.
    pub fn reserve(&self, nbytes: usize) -> Option<Place> {
        let mut ring = self.ring.lock();
        if let Some((counter, slot)) = self.open_page(&mut ring) {
            slot.filling = true;
            let (page, from) = (slot.page.clone(), slot.end());
            return Some(Place { page, from, len: nbytes.min(PAGE_SIZE - from), extends: Some(counter) });
        }
        if !ring.reserve() {
            return None;
        }
        drop(ring);
        let Some(page) = OwnPage::allocate() else {
            self.ring.lock().unreserve();
            return None;
        };
        Some(Place { page, from: 0, len: nbytes.min(PAGE_SIZE), extends: None })
    }

    /// Makes the first `filled` bytes of a place part of the pipe and returns how many are: all of them.
    pub fn commit(&mut self, place: Place, filled: usize) -> usize {
        let flags = if self.adds == Adds::ToMergeable { CAN_MERGE } else { 0 };
        let mut ring = self.ring.lock();
        if let Some(counter) = place.extends
            && let Some(slot) = ring.get_mut(counter).filter(|slot| slot.filling)
        {
            slot.filling = false;
            slot.len += filled;
            self.last = Some((counter, slot.end()));
            ring.grew(filled);
        } else if filled == 0 {
            ring.unreserve();
        } else {
            // A new page; or the rest of one whose slot was drained meanwhile, which left its slot reserved.
            self.last = Some((ring.head(), place.from + filled));
            let Place { page, from: offset, .. } = place;
            let slot = Slot { page, offset, len: filled, flags, own: true, writer: self.id, filling: false };
            ring.push_reserved(slot);
        }
        filled
    }

    /// Gives back places that nothing was put into.
    pub fn give_back(ring: &PipeRing, places: impl IntoIterator<Item = Place>) {
        for place in places {
            let mut ring = ring.lock();
            match place.extends.and_then(|counter| ring.get_mut(counter)).filter(|slot| slot.filling) {
                Some(slot) => slot.filling = false,
                None => ring.unreserve(),
            }
        }
    }

    /// The ring it writes to.
    pub fn ring(&self) -> &Arc<PipeRing> {
        &self.ring
    }

    /// References `page[offset..offset + nbytes]` without copying. All or nothing: `false` when no slot is free.
    pub fn lend(&mut self, page: &Page, offset: usize, nbytes: usize) -> bool {
        let mut ring = self.ring.lock();
        // The same page: the slot's owner keeps all of it, and only what it keeps may become part of the slot.
        let goes_on = |(_, slot): &(u32, &mut Slot)| !slot.own && slot.page.seg() == page.seg() && slot.end() == offset;
        if let Some((counter, slot)) = self.open(&mut ring).filter(goes_on) {
            slot.len += nbytes;
            self.last = Some((counter, slot.end()));
            ring.grew(nbytes);
            return true;
        }
        if !ring.reserve() {
            return false;
        }
        self.last = Some((ring.head(), offset + nbytes));
        let (page, writer) = (page.clone(), self.id);
        ring.push_reserved(Slot { page, offset, len: nbytes, flags: 0, own: false, writer, filling: false });
        true
    }

    /// Takes back the last `nbytes` it wrote, or says how many there are that nobody has read and nobody has appended
    /// to.
    pub fn revert(&mut self, nbytes: usize) -> Result<std::result::Result<(), usize>> {
        let mut ring = self.ring.lock();
        let taken = ring.take_back(self.id, nbytes)?;
        if taken.is_ok() {
            let head = ring.head();
            let newest = ring.newest().filter(|slot| slot.writer == self.id);
            self.last = newest.map(|slot| (head.wrapping_sub(1), slot.end()));
        }
        drop(ring);
        // Pages may go here, which may run Python code: the lock is open again.
        Ok(taken.map(drop))
    }

    /// Slots that can take bytes, a half-filled own page among them, and the offset in that page.
    pub fn free_slots(&self) -> (usize, usize) {
        let mut ring = self.ring.lock();
        let partly = self.open_page(&mut ring).map(|(_, slot)| slot.end());
        (ring.unreserved() + usize::from(partly.is_some()), partly.unwrap_or(0))
    }

    /// The page the next bytes may be added to: the one part of the ring that a copy's other side can overlap.
    pub fn overlapping_page(&self) -> Option<Segment> {
        let mut ring = self.ring.lock();
        self.open_page(&mut ring).map(|(_, slot)| slot.page.seg())
    }
}
