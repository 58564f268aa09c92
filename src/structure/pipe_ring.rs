//! A pipe's ring of page slots (`struct pipe_inode_info`), head and tail as free-running 32-bit counters.
//!
//! The ring is locked for moments only, so that anybody may ask how full it is while others fill and drain it. A writer
//! reserves room, copies into it with no lock held, and then makes what it copied part of the pipe (see
//! [`super::Writer`]). A reader has the oldest bytes to itself until it says how many of them it has taken (see
//! [`Reader`]).

mod reader;

pub use reader::Reader;

use crate::error::{Error, Result};
use crate::memory::{Memory, Page, Segment};
use crate::sys::futex;
use crate::sys::lock::{Guard, Lock, generation};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Slots of a pipe unless told otherwise.
pub const PIPE_SLOTS: usize = 16;

/// `PIPE_BUF_FLAG_CAN_MERGE`: a later pipe write may add to this slot's page. Only a pipe write sets it.
pub const CAN_MERGE: u32 = 0x10;

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
    /// Which writer the bytes are from: only that one may take them back.
    pub(super) writer: u64,
    /// A writer is copying into the page, behind the end of the slot.
    pub(super) filling: bool,
}

impl Slot {
    /// The bytes of the slot.
    pub fn seg(&self) -> Segment {
        self.page.seg().skip(self.offset).take(self.len)
    }

    /// [`CAN_MERGE`] or nothing.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// Their memory, for as long as the slot is held.
    pub(crate) fn memory(&self) -> Memory {
        self.page.memory().skip(self.offset).take(self.len)
    }

    /// The offset in the page where the slot's bytes end.
    pub fn end(&self) -> usize {
        self.offset + self.len
    }
}

/// The ring itself.
pub struct Ring {
    /// The slots in use, oldest first.
    slots: VecDeque<Slot>,
    /// The counter of the oldest.
    tail: u32,
    max_usage: usize,
    /// Slots that writers will take when they have filled their pages.
    reserved: usize,
    /// Bytes in all slots. (Lent pages may come to more than an address space.)
    bytes: u128,
    reading: bool,
    /// The oldest bytes, which a reader is looking at: nobody takes them back.
    in_flight: u128,
    /// The process that the reservations and the reader belong to.
    generation: u32,
}

impl Ring {
    /// The counter the next slot will have.
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

    /// Slots that are not in use: what the user's limit leaves, however many slots the ring has. What is being filled
    /// is no part of the pipe yet, and so not in use either.
    pub fn free(&self) -> usize {
        self.max_usage.saturating_sub(self.used())
    }

    /// Whether all slots are in use.
    pub fn is_full(&self) -> bool {
        self.free() == 0
    }

    /// Slots that a writer may still reserve: the free ones that no other has.
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

    /// The slot with that counter, if it is in use.
    pub(super) fn get_mut(&mut self, counter: u32) -> Option<&mut Slot> {
        self.slots.get_mut(counter.wrapping_sub(self.tail) as usize)
    }

    /// Keeps a slot free for [`Self::push_reserved`]. `false` when the ring is full or memory is short.
    pub(super) fn reserve(&mut self) -> bool {
        let can = self.unreserved() > 0 && self.slots.try_reserve(self.reserved + 1).is_ok();
        self.reserved += usize::from(can);
        can
    }

    /// Gives back what [`Self::reserve`] kept.
    pub(super) fn unreserve(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Takes the reserved slot into use. It allocates nothing.
    pub(super) fn push_reserved(&mut self, slot: Slot) {
        self.unreserve();
        self.bytes += slot.len as u128;
        self.slots.push_back(slot);
    }

    /// Counts bytes that were added to a slot.
    pub(super) fn grew(&mut self, nbytes: usize) {
        self.bytes += nbytes as u128;
    }

    /// Takes the last `nbytes` off the ring, all of them `writer`'s, or says how many it could take. The slots that
    /// emptied come back, to be dropped with no lock held.
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

    /// Takes the first `nbytes` off the ring. Whoever calls it holds the pages: none is freed here.
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
            // What a writer is adding behind its end becomes a slot of its own.
            self.reserved += usize::from(slot.filling);
            self.slots.pop_front();
            self.tail = self.tail.wrapping_add(1);
        }
        self.bytes -= (nbytes - left) as u128;
    }

    /// In a forked child nobody is reading or filling what other threads were when it was forked.
    fn settle(&mut self) {
        let now = generation();
        if self.generation != now {
            self.generation = now;
            (self.reserved, self.reading, self.in_flight) = (0, false, 0);
            self.slots.iter_mut().for_each(|slot| slot.filling = false);
        }
    }
}

/// A ring shared between the iterators that fill it and whoever drains it.
pub struct PipeRing {
    ring: Lock<Ring>,
    /// Counts the readers that have finished: the next one waits for it to change.
    turn: AtomicU32,
}

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

    /// The ring, locked: for a moment, and for no Python code. Pages taken out of it are dropped after the lock.
    pub fn lock(&self) -> Guard<'_, Ring> {
        let mut ring = self.ring.lock();
        ring.settle();
        ring
    }

    /// The slots in use now, oldest first.
    pub fn slots(&self) -> Result<Vec<Slot>> {
        let ring = self.lock();
        copies(ring.iter(), ring.used())
    }

    /// The reading end, unless somebody has it: then what to [`Self::wait`] for.
    pub fn read(&self) -> std::result::Result<Reader<'_>, u32> {
        let mut ring = self.lock();
        if std::mem::replace(&mut ring.reading, true) {
            return Err(self.turn.load(Ordering::Relaxed));
        }
        Ok(Reader { pipe: self, generation: ring.generation })
    }

    /// Waits for the reader that was there at `turn` to finish; for a moment only, so that the caller can look after
    /// signals.
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
