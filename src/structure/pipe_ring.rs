//! A pipe's ring of page slots (`struct pipe_inode_info`). Head and tail are 32-bit counters that only rise and wrap
//! around.
//!
//! The ring is locked only for a few instructions at a time, never during a copy or a system call, so its fill level
//! can be read while others write and read.
//! * A writer reserves a slot or the rest of a page, copies with no lock held, and commits the bytes copied
//!   ([`super::Writer`]). A reserved slot is not in use yet, but no other writer can take it.
//! * A reader has the reading end to itself. It peeks at the oldest bytes, transfers them with no lock held, and
//!   consumes those transferred ([`Reader`]). The bytes in between are `in_flight`: a writer cannot revert them.

mod reader;

pub use reader::Reader;

use crate::error::{Error, Result};
use crate::memory::{Memory, Page, Segment};
use crate::sys::futex;
use crate::sys::lock::{Guard, Lock, generation};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The default number of slots.
pub const PIPE_SLOTS: usize = 16;

/// `PIPE_BUF_FLAG_CAN_MERGE`: a later pipe write may append to this slot's page. Only a pipe write sets it.
pub const CAN_MERGE: u32 = 0x10;

/// One slot in use.
#[derive(Clone)]
pub struct Slot {
    /// The page that holds its bytes.
    pub(crate) page: Page,
    /// The offset in the page of its first byte.
    pub(crate) offset: usize,
    /// Its bytes.
    pub(crate) len: usize,
    /// [`CAN_MERGE`] or 0. It is written whenever a slot is taken into use: a flag left from the slot's last user would
    /// let a write change a page that is only referenced (CVE-2022-0847, "Dirty Pipe").
    pub(crate) flags: u32,
    /// Whether the ring allocated the page. Otherwise it references somebody else's page, which no writer writes to.
    pub(crate) own: bool,
    /// The number of the writer that added the bytes. Only that writer may take them back.
    pub(super) writer: u64,
    /// Whether a writer is copying into the page behind the end of the slot.
    pub(super) filling: bool,
}

impl Slot {
    /// The bytes of the slot.
    pub fn seg(&self) -> Segment {
        self.page.seg().skip(self.offset).take(self.len)
    }

    /// [`CAN_MERGE`] or 0.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The memory of its bytes. The caller keeps the slot for as long as it uses the result.
    pub(crate) fn memory(&self) -> Memory {
        self.page.memory().skip(self.offset).take(self.len)
    }

    /// The offset in the page at which the slot's bytes end.
    pub fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// The state of a ring, behind its lock.
pub struct Ring {
    /// The slots in use, oldest first.
    slots: VecDeque<Slot>,
    /// The counter of the oldest slot in use.
    tail: u32,
    max_usage: usize,
    /// Slots that are free, but reserved by writers that are filling pages for them.
    reserved: usize,
    /// Bytes in all slots. It is 128 bits wide because the same page may be referenced any number of times.
    bytes: u128,
    reading: bool,
    /// How many of the oldest bytes a reader is transferring. No writer takes them back.
    in_flight: u128,
    /// The fork generation that the reservations and the reader belong to.
    generation: u32,
}

impl Ring {
    /// The counter of the next slot.
    pub fn head(&self) -> u32 {
        self.tail.wrapping_add(self.slots.len() as u32)
    }

    /// Slots in use.
    pub fn used(&self) -> usize {
        self.slots.len()
    }

    /// Bytes in the slots.
    pub fn bytes(&self) -> u128 {
        self.bytes
    }

    /// Slots that are not in use, out of `max_usage`. A slot whose page is still being filled is not in use.
    pub fn free(&self) -> usize {
        self.max_usage.saturating_sub(self.used())
    }

    /// Whether `max_usage` slots are in use.
    pub fn is_full(&self) -> bool {
        self.free() == 0
    }

    /// Slots that a writer may reserve: the free ones that are not reserved.
    pub fn unreserved(&self) -> usize {
        self.free().saturating_sub(self.reserved)
    }

    /// The slots in use, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Slot> + ExactSizeIterator {
        self.slots.iter()
    }

    /// The newest slot in use.
    pub fn newest(&self) -> Option<&Slot> {
        self.slots.back()
    }

    pub(super) fn newest_mut(&mut self) -> Option<&mut Slot> {
        self.slots.back_mut()
    }

    /// The slot with this counter, if it is in use.
    pub(super) fn get_mut(&mut self, counter: u32) -> Option<&mut Slot> {
        self.slots.get_mut(counter.wrapping_sub(self.tail) as usize)
    }

    /// Reserves a slot for [`Self::push_reserved`], which then cannot fail. `false` if the ring is full or memory is
    /// short.
    pub(super) fn reserve(&mut self) -> bool {
        let can = self.unreserved() > 0 && self.slots.try_reserve(self.reserved + 1).is_ok();
        self.reserved += usize::from(can);
        can
    }

    /// Gives back a slot that [`Self::reserve`] reserved.
    pub(super) fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Takes a reserved slot into use. [`Self::reserve`] has made the room, so this allocates nothing.
    pub(super) fn push_reserved(&mut self, slot: Slot) {
        self.unreserve();
        self.bytes += slot.len as u128;
        self.slots.push_back(slot);
    }

    /// Counts `nbytes` bytes that were appended to a slot.
    pub(super) fn grew(&mut self, nbytes: usize) {
        self.bytes += nbytes as u128;
    }

    /// Removes the newest `nbytes` bytes, if all of them are `writer`'s and none is in flight; otherwise the inner
    /// error is how many could be removed. Returns the emptied slots: the caller drops them with no lock held.
    pub(super) fn take_back(&mut self, writer: u64, nbytes: usize) -> Result<std::result::Result<Vec<Slot>, usize>> {
        let (mut found, mut emptied) = (0_usize, 0);
        for slot in self.slots.iter().rev().take_while(|slot| slot.writer == writer && !slot.filling) {
            found = found.saturating_add(slot.len);
            emptied += usize::from(found <= nbytes);
            if found >= nbytes {
                break;
            }
        }
        let settled = usize::try_from(self.bytes - self.in_flight).unwrap_or(usize::MAX);
        if nbytes > found.min(settled) {
            return Ok(Err(found.min(settled)));
        }
        let mut released = Vec::new();
        released.try_reserve_exact(emptied).map_err(|_| Error::NoMemory(emptied * size_of::<Slot>()))?;
        let mut left = nbytes;
        while let Some(slot) = self.slots.back_mut().filter(|_| left > 0) {
            if left < slot.len {
                slot.len -= left;
                break;
            }
            left -= slot.len;
            released.extend(self.slots.pop_back());
        }
        self.bytes -= nbytes as u128;
        Ok(Ok(released))
    }

    /// Removes the oldest `nbytes` bytes. The caller has clones of the slots, so no page is freed under the lock.
    fn consume(&mut self, nbytes: usize) {
        let mut left = nbytes;
        while let Some(slot) = self.slots.front_mut().filter(|_| left > 0) {
            if left < slot.len {
                slot.offset += left;
                slot.len -= left;
                left = 0;
                break;
            }
            left -= slot.len;
            // The bytes that a writer is adding behind the end of this slot will become a new slot, which this
            // reserves.
            self.reserved += usize::from(slot.filling);
            self.slots.pop_front();
            self.tail = self.tail.wrapping_add(1);
        }
        self.bytes -= (nbytes - left) as u128;
    }

    /// Clears, in a forked child, the reservations and the reader of the parent's other threads. The child has no copy
    /// of those threads.
    fn settle(&mut self) {
        let now = generation();
        if self.generation != now {
            self.generation = now;
            (self.reserved, self.reading, self.in_flight) = (0, false, 0);
            self.slots.iter_mut().for_each(|slot| slot.filling = false);
        }
    }
}

/// A ring that the iterators filling it and the code draining it share.
pub struct PipeRing {
    ring: Lock<Ring>,
    /// Counts the readers that have finished. A waiting reader sleeps on it as a futex.
    turn: AtomicU32,
}

impl PipeRing {
    /// An empty ring of `slots` slots, a power of two, of which at most `max_usage` may be in use.
    pub fn new(slots: usize, max_usage: Option<usize>) -> Result<Self> {
        if !slots.is_power_of_two() || slots > 1 << 20 {
            return Err(Error::invalid("slots", slots, "a power of two up to 2**20"));
        }
        let max_usage = max_usage.unwrap_or(slots);
        if !(1..=slots).contains(&max_usage) {
            return Err(Error::invalid("max_usage", max_usage, format!("1..={slots}, the number of slots")));
        }
        let ring = Ring {
            slots: VecDeque::new(),
            tail: 0,
            max_usage,
            reserved: 0,
            bytes: 0,
            reading: false,
            in_flight: 0,
            generation: generation(),
        };
        Ok(Self { ring: Lock::new(ring), turn: AtomicU32::new(0) })
    }

    /// Locks the ring. While it is locked, no Python code runs and no page is dropped: the owner of a page may run
    /// Python code.
    pub fn lock(&self) -> Guard<'_, Ring> {
        let mut ring = self.ring.lock();
        ring.settle();
        ring
    }

    /// Clones of the slots in use, oldest first.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let ring = self.lock();
        copies(ring.iter(), ring.used())
    }

    /// Takes the reading end. If another reader has it, the error is the number to pass to [`Self::wait`].
    pub fn read(&self) -> std::result::Result<Reader<'_>, u32> {
        let mut ring = self.lock();
        if std::mem::replace(&mut ring.reading, true) {
            return Err(self.turn.load(Ordering::Relaxed));
        }
        Ok(Reader { pipe: self, generation: ring.generation })
    }

    /// Waits until the reader that had the reading end at `turn` is done. It returns after 100 ms at the latest, so
    /// that the caller can handle signals and try again.
    pub fn wait(&self, turn: u32) {
        futex::wait(&self.turn, turn, Duration::from_millis(100));
    }
}

fn copies<'a>(slots: impl Iterator<Item = &'a Slot>, most: usize) -> Result<Vec<Slot>> {
    let mut copies = Vec::new();
    copies.try_reserve_exact(most).map_err(|_| Error::NoMemory(most * size_of::<Slot>()))?;
    copies.extend(slots.take(most).cloned());
    Ok(copies)
}

#[cfg(test)]
mod tests;
