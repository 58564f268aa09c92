//! Writing to a pipe's ring: a writer reserves room, fills it with no lock held, and commits what it filled.
//!
//! So a reader never sees a byte that was not copied, a child forked during a copy finds the ring without the bytes of
//! that copy, and no thread waits for a copy in order to read the fill level. Several writers interleave page by page.

use super::pipe_ring::{CAN_MERGE, PipeRing, Ring, Slot};
use crate::abi::PAGE_SIZE;
use crate::error::Result;
use crate::memory::{Backing, Memory, Page, Segment};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page that the ring allocated, aligned to the page size.
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

/// Reserved room for a writer's next bytes, which are not part of the pipe until they are committed.
pub struct Place {
    page: Page,
    /// The offset in the page at which the room begins.
    from: usize,
    /// The bytes it has room for.
    len: usize,
    /// The counter of the slot that the bytes extend; `None` if a new slot is reserved for them.
    pub(super) extends: Option<u32>,
}

impl Place {
    /// The memory to fill.
    pub fn seg(&self) -> Segment {
        self.page.seg().skip(self.from).take(self.len)
    }
}

/// The slots in use that a writer may append to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Adds {
    /// The slot that it wrote last, as long as that slot still ends where the writer left it.
    ToItsLast,
    /// Any slot with [`CAN_MERGE`], which an ordinary pipe write sets.
    ToMergeable,
}

/// One writer's position in a ring.
///
/// Only a copy fills places, since whoever commits one speaks for what is in it: safe code of others can reserve none.
///
/// ```compile_fail,E0624
/// use _core::structure::{PipeRing, Writer};
///
/// let mut writer = Writer::ordinary(PipeRing::new(16, None)?.into());
/// let place = writer.reserve(100).unwrap();
/// writer.commit(place, 100);
/// # Ok::<(), _core::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Writer {
    ring: Arc<PipeRing>,
    /// The writer's number, which no other writer has.
    id: u64,
    adds: Adds,
    /// The counter of the slot that it wrote last, and the offset in the page at which that slot ended.
    last: Option<(u32, usize)>,
}

impl Writer {
    fn new(ring: Arc<PipeRing>, adds: Adds) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { ring, id: NEXT.fetch_add(1, Ordering::Relaxed), adds, last: None }
    }

    /// A writer that appends to its own last page only, as an iterator over a pipe does.
    pub fn iterator(ring: Arc<PipeRing>) -> Self {
        Self::new(ring, Adds::ToItsLast)
    }

    /// A writer whose pages later writes may append to, as with `write(2)`.
    pub fn ordinary(ring: Arc<PipeRing>) -> Self {
        Self::new(ring, Adds::ToMergeable)
    }

    /// The offset in its page at which the last byte written ends; 0 before the first byte.
    pub fn end_offset(&self) -> usize {
        self.last.map_or(0, |(_, end)| end)
    }

    /// The newest slot and its counter, if the next byte may be appended to it. After a reader has drained that slot,
    /// or another writer has added one, the next byte needs a new slot.
    fn open<'a>(&self, ring: &'a mut Ring) -> Option<(u32, &'a mut Slot)> {
        let counter = ring.head().wrapping_sub(1);
        let slot = ring.newest_mut().filter(|slot| !slot.filling)?;
        let adds = match self.adds {
            Adds::ToItsLast => slot.writer == self.id && self.last == Some((counter, slot.end())),
            Adds::ToMergeable => slot.own && slot.flags & CAN_MERGE != 0,
        };
        adds.then_some((counter, slot))
    }

    /// [`Self::open`], if the slot's page belongs to the ring and has room at its end.
    fn open_page<'a>(&self, ring: &'a mut Ring) -> Option<(u32, &'a mut Slot)> {
        self.open(ring).filter(|(_, slot)| slot.own && slot.end() < PAGE_SIZE)
    }

    /// Reserves room for at most `nbytes` bytes (not 0) in one page. `None` if the pipe is full or memory is short.
    pub(crate) fn reserve(&self, nbytes: usize) -> Option<Place> {
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

    /// Adds the first `filled` bytes of a place to the pipe, at most as many as the place has room for, and returns how
    /// many it added: a reserved place can always be committed.
    pub(crate) fn commit(&mut self, place: Place, filled: usize) -> usize {
        let filled = filled.min(place.len);
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
            // Either a new page; or the rest of a page whose slot a reader has drained, in which case [`Ring::consume`]
            // has reserved a new slot for it.
            self.last = Some((ring.head(), place.from + filled));
            let Place { page, from: offset, .. } = place;
            let slot = Slot { page, offset, len: filled, flags, own: true, writer: self.id, filling: false };
            ring.push_reserved(slot);
        }
        filled
    }

    /// Gives back places without committing any byte.
    pub(crate) fn give_back(ring: &PipeRing, places: impl IntoIterator<Item = Place>) {
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

    /// Adds a reference to `page[offset..offset + nbytes]`, which lies within the page, without copying. `false`, and
    /// no change, if no slot is free.
    pub(crate) fn lend(&mut self, page: &Page, offset: usize, nbytes: usize) -> bool {
        debug_assert!(nbytes <= page.seg().skip(offset).len, "{nbytes} bytes at {offset} leave the page");
        let mut ring = self.ring.lock();
        // It must be the very same page: the slot keeps the owner of its own page alive, not the owner of an adjacent
        // one.
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

    /// Removes the last `nbytes` bytes that this writer wrote. The inner error is how many can be removed, if they are
    /// fewer: bytes that a reader has taken or that another writer's bytes follow stay.
    pub fn revert(&mut self, nbytes: usize) -> Result<std::result::Result<(), usize>> {
        let mut ring = self.ring.lock();
        let taken = ring.take_back(self.id, nbytes)?;
        if taken.is_ok() {
            let head = ring.head();
            let newest = ring.newest().filter(|slot| slot.writer == self.id);
            self.last = newest.map(|slot| (head.wrapping_sub(1), slot.end()));
        }
        drop(ring);
        // This drops pages, which may run Python code, so the lock is released before.
        Ok(taken.map(drop))
    }

    /// The number of slots that can take bytes, including a partly filled page of this writer's, and the offset at
    /// which that page is filled to.
    pub fn free_slots(&self) -> (usize, usize) {
        let mut ring = self.ring.lock();
        let partly = self.open_page(&mut ring).map(|(_, slot)| slot.end());
        (ring.unreserved() + usize::from(partly.is_some()), partly.unwrap_or(0))
    }

    /// The page that the next bytes may be appended to. It is the only page of the ring that can overlap the other side
    /// of a copy into the ring, since all others are allocated anew.
    pub fn overlapping_page(&self) -> Option<Segment> {
        let mut ring = self.ring.lock();
        self.open_page(&mut ring).map(|(_, slot)| slot.page.seg())
    }
}
