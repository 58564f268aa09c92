//! Publications in shared memory: one writer and any number of readers. A reader gets one complete publication, whether
//! or not the caches of the hosts are coherent.
//!
//! A slot is a header line and two buffers that take turns. The writer fills the buffer that the header does not refer
//! to, with nontemporal stores, fences, and then stores the header: it has the publication's number, where its data are
//! and their checksum. A reader evicts the header from its caches before it reads it, and then the data. If their
//! checksum is wrong, the writer has made two more publications meanwhile, and the reader starts again. Data that fit
//! in the header's line are stored in it, so they arrive with it.

mod header;
pub mod least;
mod shared;

use crate::abi::Direction;
use crate::arch::LINE;
use crate::copy::sums::Sums;
use crate::copy::{Outcome, copy_from_iter, copy_to_iter};
use crate::error::{Error, Result};
use crate::fault::{Fault, arm};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Page, Segment};
use crate::sys::long_lock::LongLock;
use header::{Header, INLINE, Line};
use std::sync::atomic::{Ordering, fence};

/// How often a reader tries.
const ATTEMPTS: usize = 1000;

/// How often data are read whose checksum is wrong while their header stays the same. The first time they may have been
/// loaded into the caches before the header was read. A writer that is faster changes the header, too.
const SAME: usize = 4;

/// Up to this size in bytes, a slot is evicted as a whole together with its header, with one fence: a second fence
/// costs more than evicting these lines.
const DROPPED_WHOLE: usize = 16 << 10;

/// The memory of a slot, from its header on. Offsets are multiples of a cache line.
pub trait Medium {
    /// Its size in bytes.
    fn size(&self) -> usize;
    /// Whether it may be written to.
    fn is_writable(&self) -> bool;
    /// Reads the first line, for the writer.
    fn read_line(&self, line: &mut Line) -> Result<Outcome>;
    /// Evicts the first `len` bytes from the caches, then reads the first line. Returns the bytes of both.
    fn reload(&self, len: usize, line: &mut Line) -> Result<Outcome>;
    /// Reads the first line once more, for a reader that has read the data.
    fn read_line_again(&self, line: &mut Line) -> Result<Outcome>;
    /// Evicts the first line and a range from the caches. Returns the bytes of both.
    fn invalidate(&self, offset: usize, len: usize) -> Result<Outcome>;
    /// Writes the first line. It has left the caches on return.
    fn write_line(&self, line: &Line) -> Result<Outcome>;
    /// Copies a range into an iterator. Returns how many bytes, and their sums.
    fn read(&self, offset: usize, len: usize, i: &mut IovIter) -> Result<(usize, Sums)>;
    /// Writes the rest of an iterator in whole lines, fences, then writes the first line, which `line` makes from the
    /// sums. Returns the bytes of the iterator; or 0, with the fault, and the iterator has not moved.
    fn write(&self, offset: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome>;
}

/// Why a publication or a read failed.
#[derive(Debug)]
pub enum Failure {
    /// It was refused.
    Refused(Error),
    /// Bad memory, after this many bytes.
    Fault(Box<Fault>, usize),
    /// The writer changed the data during every attempt, or was killed while it wrote a header, or the data are
    /// damaged.
    Torn,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A slot in memory that other processes may share.
pub struct Slot<M = Page> {
    medium: M,
    capacity: usize,
    /// The number of the last publication by this object; its lock admits one publication at a time. Numbers only rise,
    /// even if the header is damaged meanwhile.
    writer: LongLock<u64>,
}

/// The size of a slot for publications of up to `capacity` bytes; `None` if it overflows.
pub fn size_for(capacity: usize) -> Option<usize> {
    let buffer = if capacity <= INLINE { 0 } else { capacity.checked_next_multiple_of(LINE)? };
    buffer.checked_mul(2)?.checked_add(LINE)
}

impl Slot {
    /// A slot at `offset`, a multiple of a cache line, in memory that is long enough. `capacity` is the greatest length
    /// of a publication, by default all that fits.
    pub fn new(page: &Page, offset: usize, capacity: Option<usize>) -> Result<Self> {
        let len = page.seg().len;
        if !offset.is_multiple_of(LINE) {
            return Err(Error::invalid("offset", offset, format!("a multiple of {LINE}")));
        }
        let room = len.saturating_sub(offset);
        if room < LINE {
            return Err(Error::invalid("offset", offset, format!("{LINE} bytes or more behind it, of {len}")));
        }
        let most = ((room - LINE) / 2 / LINE * LINE).max(INLINE);
        let capacity = capacity.unwrap_or(most);
        if capacity > most {
            return Err(Error::invalid("capacity", capacity, format!("at most {most} in {room} bytes")));
        }
        let size = size_for(capacity).unwrap_or(usize::MAX);
        let memory = page.memory().range(offset, size).ok_or(Error::BeyondBuffer { nbytes: size, len: room })?;
        let page = Page::new(memory, page.writable(), page.owner().clone());
        Ok(Self::over(page, capacity))
    }
}

impl<M: Medium> Slot<M> {
    /// A slot that fills a medium of [`size_for`] bytes.
    fn over(medium: M, capacity: usize) -> Self {
        Self { medium, capacity, writer: LongLock::new(0) }
    }

    /// The greatest length of a publication, in bytes.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The offset of the data of this writer's publication.
    fn offset(&self, sequence: u64) -> usize {
        LINE + (sequence % 2) as usize * ((self.medium.size() - LINE) / 2)
    }

    /// Publishes the rest of an iterator. Returns the publication's number. The bytes have left the caches on return.
    /// If it fails, the previous publication is still there, and the iterator has not moved.
    pub fn publish(&self, i: &mut IovIter) -> std::result::Result<u64, Failure> {
        i.require(Direction::Source, "publish")?;
        if !self.medium.is_writable() {
            return Err(Error::ReadOnly { what: "page", index: 0 }.into());
        }
        let length = i.count();
        if length > self.capacity {
            return Err(Error::invalid("data", format!("{length} bytes"), format!("at most {}", self.capacity)).into());
        }
        let mut last = self.writer.lock().ok_or_else(|| {
            let context = "another thread published here when this process was forked: make another Slot";
            Error::os(libc::EWOULDBLOCK, context)
        })?;
        let mut line = [0; LINE];
        whole(self.medium.read_line(&mut line)?, LINE)?;
        let found = header::last_sequence(&line, *last);
        let sequence = found.and_then(|found| found.checked_add(1)).ok_or_else(|| {
            let context = "the header does not tell the next number: it is damaged, or this is no slot; \
                           zeroes in its place begin again";
            Error::os(libc::EBADMSG, context)
        })?;
        if length <= INLINE {
            self.publish_line(i, sequence, length)?;
        } else {
            let offset = self.offset(sequence);
            let line = |sums: Sums| Header::of_data_at(offset, sequence, length, sums.narrow()).encode();
            whole(self.medium.write(offset, i, &line)?, length)?;
        }
        *last = sequence;
        drop(last);
        Ok(sequence)
    }

    /// Publishes data that fit in the header's line.
    fn publish_line(&self, i: &mut IovIter, sequence: u64, length: usize) -> std::result::Result<(), Failure> {
        let mut data = [0; INLINE];
        let seg = Segment::new(data.as_mut_ptr().expose_provenance(), length);
        // SAFETY: `data` is a local value, which lives and is not accessed until the copy is done.
        let done = copy_from_iter(unsafe { Memory::new(seg, Backing::Heap) }, i, length)?;
        let published = whole((done, i.fault.clone()), length)
            .and_then(|()| whole(self.medium.write_line(&Header::of_data(sequence, length, data).encode())?, LINE));
        if published.is_err() {
            i.take_back(done)?;
        }
        published
    }

    /// Copies the publication, if its number is greater than `newer_than`, into an iterator, which advances by it.
    /// Returns its length and its number, or `(0, newer_than)` if there is none. If it fails, the iterator has not
    /// moved.
    pub fn consume(&self, i: &mut IovIter, newer_than: u64) -> std::result::Result<(usize, u64), Failure> {
        i.require(Direction::Dest, "consume")?;
        let mut changed = ([0; LINE], 0);
        for attempt in 0..ATTEMPTS {
            if attempt >= 4 {
                std::thread::yield_now();
            }
            // A prefetcher may load data lines again before the header is read, so they may be older than it. Then the
            // checksum is wrong, and the next attempt evicts them after reading the header.
            let is_dropped = attempt == 0 && self.medium.size() <= DROPPED_WHOLE;
            let len = if is_dropped { self.medium.size() } else { LINE };
            let mut line = [0; LINE];
            whole(self.medium.reload(len, &mut line)?, len + LINE)?;
            let Some(header) = Header::decode(&line) else {
                if line == [0; LINE] {
                    return Ok((0, newer_than));
                }
                continue;
            };
            if header.sequence <= newer_than {
                return Ok((0, newer_than));
            }
            if header.length > INLINE
                && header.offset().checked_add(header.length).is_none_or(|end| end > self.medium.size())
            {
                let Header { sequence, length, .. } = header;
                let expected =
                    format!("the writer's, whose publication {sequence} of {length} bytes ends beyond this slot");
                return Err(Error::invalid("capacity", self.capacity, expected).into());
            }
            if header.length > i.count() {
                let expected = format!("{} or more, as many as publication {} has", header.length, header.sequence);
                return Err(Error::invalid("dst", format!("{} bytes", i.count()), expected).into());
            }
            arm::extend();
            let before = i.count();
            match self.take(i, &header, is_dropped) {
                Ok(true) => return Ok((header.length, header.sequence)),
                Ok(false) => {
                    i.take_back(before - i.count())?;
                    changed = (line, if changed.0 == line { changed.1 + 1 } else { 1 });
                    if changed.1 == SAME {
                        break;
                    }
                }
                Err(failure) => {
                    i.take_back(before - i.count())?;
                    return Err(failure);
                }
            }
        }
        Err(Failure::Torn)
    }

    /// Copies the publication that a header describes; `is_dropped` says that its data were evicted from the caches
    /// already. Returns `false` if the writer has overwritten it.
    fn take(&self, i: &mut IovIter, header: &Header, is_dropped: bool) -> std::result::Result<bool, Failure> {
        let length = header.length;
        if length <= INLINE {
            if !Sums::of_bytes(&header.data[..length]).narrow().agree_with(header.sums) {
                return Ok(false);
            }
            let seg = Segment::new(header.data.as_ptr().expose_provenance(), length);
            // SAFETY: the header is borrowed until the copy is done, which only reads it.
            let done = copy_to_iter(unsafe { Memory::new(seg, Backing::Heap) }, i, length)?;
            return taken(i, done, length).map(|()| true);
        }
        let offset = header.offset();
        if !is_dropped {
            whole(self.medium.invalidate(offset, length)?, LINE + length)?;
        }
        let (done, sums) = self.medium.read(offset, length, i)?;
        taken(i, done, length)?;
        if !sums.narrow().agree_with(header.sums) {
            return Ok(false);
        }
        // The writer publishes what it has put into the other buffer, and fences, before it stores to this one. So if
        // the header is the same once these data have been read, nothing was stored to them meanwhile. If it is the
        // next one, something may have been, and the sums alone vouch for what was read, which they do except for one
        // mixture in 2^64: a reader that had to wait for a pause between two publications would get none from a fast
        // writer. So another eviction of the header before this look is not worth its cost.
        fence(Ordering::Acquire);
        let mut line = [0; LINE];
        whole(self.medium.read_line_again(&mut line)?, LINE)?;
        Ok(Header::decode(&line).is_some_and(|again| again == *header || again.sequence == header.sequence + 1))
    }
}

/// An error unless an iterator took all bytes of a publication.
fn taken(i: &IovIter, done: usize, length: usize) -> std::result::Result<(), Failure> {
    match i.fault.clone() {
        _ if done == length => Ok(()),
        Some(fault) => Err(Failure::Fault(fault, done)),
        None => Err(Error::BeyondSegments { count: length, available: done }.into()),
    }
}

/// An error unless a copy was complete.
fn whole((done, fault): Outcome, len: usize) -> std::result::Result<(), Failure> {
    match fault {
        Some(fault) if done < len => Err(Failure::Fault(fault, done)),
        None if done < len => Err(Error::invalid("data", "an iterator with a hole in it", "all of its bytes").into()),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
