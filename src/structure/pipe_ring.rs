//! A pipe's ring of page slots (`struct pipe_inode_info`), head and tail as free-running 32-bit counters.

use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::memory::{Backing, Memory, Page, Segment};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Slots of a pipe unless told otherwise.
pub const PIPE_SLOTS: usize = 16;

/// `PIPE_BUF_FLAG_CAN_MERGE`: a later pipe write may add to this slot's page. Only a pipe write sets it.
pub const CAN_MERGE: u32 = 0x10;

/// A page the ring allocated itself, aligned as pages are.
struct OwnPage(NonNull<u8>);

const PAGE_LAYOUT: Layout = match Layout::from_size_align(PAGE_SIZE, PAGE_SIZE) {
    Ok(layout) => layout,
    Err(_) => panic!("the page size is a power of two"),
};

// SAFETY: the pointer is the only one that frees the allocation, and nothing in the type reads or writes through it.
unsafe impl Send for OwnPage {}
// SAFETY: as for Send; sharing it shares only an address.
unsafe impl Sync for OwnPage {}

impl OwnPage {
    /// A zeroed page; `None` when memory is short.
    fn allocate() -> Option<Page> {
        // SAFETY: PAGE_LAYOUT has a non-zero size.
        let start = NonNull::new(unsafe { alloc_zeroed(PAGE_LAYOUT) })?;
        let seg = Segment::new(start.as_ptr().expose_provenance(), PAGE_SIZE);
        // SAFETY: nobody else has the allocation, which stays until its owner `Self` is dropped: the page's memory is used no longer
        // than the page is held, and the page holds the owner.
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

/// One slot in use.
#[derive(Clone)]
pub struct Slot {
    /// The page its bytes are in.
    pub(crate) page: Page,
    /// Where in the page they begin.
    pub(crate) offset: usize,
    /// How many they are.
    pub(crate) len: usize,
    /// [`CAN_MERGE`] or nothing. Set anew whenever a slot is taken into use.
    pub(crate) flags: u32,
    /// Allocated by the ring. Otherwise a reference to somebody's page, which is never written to.
    pub(crate) own: bool,
}

impl Slot {
    /// The bytes of the slot.
    pub fn seg(&self) -> Segment {
        self.page.seg().skip(self.offset).take(self.len)
    }

    /// Their memory, for as long as the slot is held.
    #[cfg(feature = "python")]
    pub(crate) fn memory(&self) -> Memory {
        self.page.memory().skip(self.offset).take(self.len)
    }

    /// [`CAN_MERGE`] or nothing.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The offset in the page where the slot's bytes end.
    pub fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// The ring itself.
pub struct Ring {
    slots: Vec<Option<Slot>>,
    head: u32,
    tail: u32,
    max_usage: usize,
    /// Slots promised to whoever is just reading into pages that will fill them.
    reserved: usize,
}

impl Ring {
    fn index(&self, counter: u32) -> usize {
        counter as usize & (self.slots.len() - 1)
    }

    /// The counter the next slot will have.
    pub fn head(&self) -> u32 {
        self.head
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.head.wrapping_sub(self.tail) as usize
    }

    /// Slots that may still be taken: what the user's limit leaves, however many slots the ring has, and nobody has reserved.
    pub fn free(&self) -> usize {
        self.max_usage.saturating_sub(self.used() + self.reserved)
    }

    /// Keeps slots for [`Self::push_reserved`]. More than are free may be reserved: those come free when the ring is drained.
    pub fn reserve(&mut self, slots: usize) {
        self.reserved += slots;
    }

    /// Gives reserved slots up.
    pub fn unreserve(&mut self, slots: usize) {
        self.reserved = self.reserved.saturating_sub(slots);
    }

    /// Takes a reserved slot into use. `false` if there is none: none was reserved, or one beyond the free ones has not come free.
    pub fn push_reserved(&mut self, slot: Slot) -> bool {
        self.reserved.checked_sub(1).is_some_and(|others| {
            let reserved = std::mem::replace(&mut self.reserved, 0);
            let pushed = self.push(slot);
            self.reserved = if pushed { others } else { reserved };
            pushed
        })
    }

    /// The slot with that counter, if it is in use.
    pub fn get(&self, counter: u32) -> Option<&Slot> {
        let age = counter.wrapping_sub(self.tail) as usize;
        if age < self.used() { self.slots[self.index(counter)].as_ref() } else { None }
    }

    /// As [`Self::get`], to be changed.
    pub fn get_mut(&mut self, counter: u32) -> Option<&mut Slot> {
        self.get(counter)?;
        let index = self.index(counter);
        self.slots[index].as_mut()
    }

    /// The newest slot in use.
    pub fn newest(&self) -> Option<&Slot> {
        self.get(self.head.wrapping_sub(1))
    }

    /// The slots in use, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        (0..self.used() as u32).filter_map(|age| self.get(self.tail.wrapping_add(age)))
    }

    /// Takes the next slot into use, written whole: nothing of its last user remains. `false` when the ring is full.
    pub fn push(&mut self, slot: Slot) -> bool {
        if self.free() == 0 {
            return false;
        }
        let index = self.index(self.head);
        self.slots[index] = Some(slot);
        self.head = self.head.wrapping_add(1);
        true
    }

    /// A zeroed page as the ring's own slots have it; `None` when memory is short.
    pub fn own_page() -> Option<Page> {
        OwnPage::allocate()
    }

    /// Takes the next slot with a fresh page and `len` bytes of it. `false` when the ring is full or memory is short.
    pub fn push_own(&mut self, len: usize, flags: u32) -> bool {
        if self.free() == 0 {
            return false;
        }
        OwnPage::allocate().is_some_and(|page| self.push(Slot { page, offset: 0, len, flags, own: true }))
    }

    /// Releases the newest slot.
    pub fn pop_newest(&mut self) -> Option<Slot> {
        self.newest()?;
        self.head = self.head.wrapping_sub(1);
        let index = self.index(self.head);
        self.slots[index].take()
    }

    /// Consumes up to `nbytes` bytes of the oldest slot; the slot comes back when that emptied it.
    pub fn consume(&mut self, nbytes: usize) -> Option<Slot> {
        let slot = self.get_mut(self.tail)?;
        let part = nbytes.min(slot.len);
        slot.offset += part;
        slot.len -= part;
        if slot.len != 0 {
            return None;
        }
        let index = self.index(self.tail);
        self.tail = self.tail.wrapping_add(1);
        self.slots[index].take()
    }
}

/// A ring shared between the iterators that fill it and whoever drains it.
pub struct PipeRing(Mutex<Ring>);

impl PipeRing {
    /// An empty ring. `slots` is a power of two; users may fill `max_usage` of them.
    pub fn new(slots: usize, max_usage: Option<usize>) -> Result<Self> {
        if !slots.is_power_of_two() || slots > 1 << 20 {
            return Err(Error::invalid("slots", slots, "a power of two up to 2**20"));
        }
        let max_usage = max_usage.unwrap_or(slots);
        if !(1..=slots).contains(&max_usage) {
            return Err(Error::invalid("max_usage", max_usage, format!("1..={slots}, the number of slots")));
        }
        let slots = std::iter::repeat_with(|| None).take(slots).collect();
        Ok(Self(Mutex::new(Ring { slots, head: 0, tail: 0, max_usage, reserved: 0 })))
    }

    /// The ring, locked. Pages taken out of it are dropped after the lock, as that may run Python code.
    pub fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{CAN_MERGE, PipeRing};

    #[test]
    fn counters_wrap_and_the_limit_holds() {
        let ring = PipeRing::new(4, Some(3)).unwrap();
        let mut ring = ring.lock();
        ring.head = u32::MAX - 1;
        ring.tail = u32::MAX - 1;
        for n in 1..=3 {
            assert!(ring.push_own(n, 0));
        }
        assert!(!ring.push_own(9, 0), "max_usage is 3");
        assert_eq!(ring.iter().map(|s| s.len).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(ring.consume(1).map(|s| s.len), Some(0));
        assert!(ring.consume(1).is_none(), "one of two bytes is left");
        assert_eq!((ring.used(), ring.free()), (2, 1));
        assert_eq!(ring.pop_newest().map(|s| s.len), Some(3));
    }

    #[test]
    fn a_reused_slot_keeps_nothing_of_its_last_user() {
        let ring = PipeRing::new(2, None).unwrap();
        let mut ring = ring.lock();
        assert!(ring.push_own(10, CAN_MERGE) && ring.push_own(10, CAN_MERGE));
        while ring.used() > 0 {
            ring.consume(10);
        }
        assert!(ring.push_own(5, 0));
        assert_eq!(ring.newest().map(|s| (s.flags, s.offset, s.len)), Some((0, 0, 5)));
    }

    #[test]
    fn sizes_are_checked() {
        assert!(PipeRing::new(3, None).is_err());
        assert!(PipeRing::new(0, None).is_err());
        assert!(PipeRing::new(4, Some(5)).is_err());
        assert!(PipeRing::new(4, Some(0)).is_err());
    }
}
