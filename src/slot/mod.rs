//! Publications in shared memory: one writer, any number of readers, each of whom gets one publication whole, whether
//! or not the caches between them are coherent.
//!
//! A slot is a header line and two buffers, which take turns. The writer fills the one that the header does not speak
//! of, past the caches, fences, and then stores the header, which says which publication is in which buffer and what
//! its data sum to. A reader drops the header from its caches before it reads it, and then the data; if they do not
//! have the sum, the writer was faster by two publications, and the reader starts again. Data that fit into the
//! header's own line are stored there: one line, which is read at once.

mod header;
mod shared;

use crate::abi::Direction;
use crate::arch::LINE;
use crate::copy::{Outcome, copy_from_iter, copy_to_iter, crc32c};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Page, Segment};
use crate::sys::long_lock::LongLock;
use header::{Header, INLINE, Line};

/// How often a reader starts again.
const ATTEMPTS: usize = 1000;

/// A slot of so many bytes is dropped from the caches with its header, in one go: a fence takes longer than these
/// lines.
const DROPPED_WHOLE: usize = 16 << 10;

/// What a slot is in, from its header on. Offsets are those of lines.
pub trait Medium {
    /// Bytes of it.
    fn size(&self) -> usize;
    /// Whether it may be written to.
    fn is_writable(&self) -> bool;
    /// Reads the first line.
    fn read_line(&self, line: &mut Line) -> Result<Outcome>;
    /// Drops the first `len` bytes from the caches, and then reads the first line: the bytes of both.
    fn reload(&self, len: usize, line: &mut Line) -> Result<Outcome>;
    /// Drops the first line and a range from the caches: the bytes of both.
    fn invalidate(&self, offset: usize, len: usize) -> Result<Outcome>;
    /// Writes the first line, which has left the caches then.
    fn write_line(&self, line: &Line) -> Result<Outcome>;
    /// Copies a range into an iterator and adds the bytes copied to the sum.
    fn read(&self, offset: usize, len: usize, i: &mut IovIter, crc: &mut u32) -> Result<usize>;
    /// Writes all that is left of an iterator, in whole lines, and then, behind a fence, the first line, which `line`
    /// makes of the sum: the bytes of the iterator, or 0 and why, with the iterator where it stood.
    fn write(&self, offset: usize, i: &mut IovIter, line: &dyn Fn(u32) -> Line) -> Result<Outcome>;
}

/// Why nothing was published or consumed.
#[derive(Debug)]
pub enum Failure {
    /// It was refused.
    Refused(Error),
    /// Bad memory, after so many bytes.
    Fault(Box<Fault>, usize),
    /// The writer was faster each time, or has stopped in the middle of a header.
    Torn,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// A slot in memory that others may have, too.
pub struct Slot<M = Page> {
    medium: M,
    capacity: usize,
    /// One publication at a time: the number of the last one of this object. It never goes back, whatever becomes of
    /// the header.
    writer: LongLock<u64>,
}

/// Bytes of a slot for publications of up to `capacity`: `None` if there are no so many.
pub fn size_for(capacity: usize) -> Option<usize> {
    let buffer = if capacity <= INLINE { 0 } else { capacity.checked_next_multiple_of(LINE)? };
    buffer.checked_mul(2)?.checked_add(LINE)
}

impl Slot {
    /// A slot at `offset`, a line's multiple, of memory that is long enough. `capacity` is the most data of a
    /// publication: all that fits by default.
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
    /// The slot that is all of a medium of [`size_for`] bytes.
    fn over(medium: M, capacity: usize) -> Self {
        Self { medium, capacity, writer: LongLock::new(0) }
    }

    /// The most data of a publication.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Where the data of a publication are.
    fn offset(&self, sequence: u64) -> usize {
        LINE + (sequence % 2) as usize * ((self.medium.size() - LINE) / 2)
    }

    fn read_line(&self) -> std::result::Result<Line, Failure> {
        let mut line = [0; LINE];
        whole(self.medium.read_line(&mut line)?, LINE)?;
        Ok(line)
    }

    /// Publishes all that is left of an iterator, which then stands at its end: the publication's number. It has left
    /// the caches. If it fails, the publication before it is still there, and the iterator stands where it stood.
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
        let found = header::last_sequence(&self.read_line()?);
        let sequence = found.and_then(|found| found.max(*last).checked_add(1)).ok_or_else(|| {
            let context = "the header does not tell the next number: it is damaged, or this is no slot; \
                           zeroes in its place begin again";
            Error::os(libc::EBADMSG, context)
        })?;
        if length <= INLINE {
            self.publish_line(i, Header { sequence, length, crc: 0, data: [0; INLINE] })?;
        } else {
            let line = |crc| Header { sequence, length, crc, data: [0; INLINE] }.encode();
            whole(self.medium.write(self.offset(sequence), i, &line)?, length)?;
        }
        *last = sequence;
        drop(last);
        Ok(sequence)
    }

    fn publish_line(&self, i: &mut IovIter, mut header: Header) -> std::result::Result<(), Failure> {
        let seg = Segment::new(header.data.as_mut_ptr().expose_provenance(), header.length);
        // SAFETY: the header is ours, stays, and is not looked at until the copy is done.
        let done = copy_from_iter(unsafe { Memory::new(seg, Backing::Heap) }, i, header.length)?;
        let published = whole((done, i.fault.clone()), header.length).and_then(|()| {
            header.crc = crc32c::of_bytes(&header.data[..header.length]);
            whole(self.medium.write_line(&header.encode())?, LINE)
        });
        if published.is_err() {
            i.take_back(done)?;
        }
        published
    }

    /// Copies a publication that is newer than a number into an iterator, which advances by it: its length and its
    /// number, or 0 and the number given if there is none. If it fails the iterator stands where it stood.
    pub fn consume(&self, i: &mut IovIter, newer_than: u64) -> std::result::Result<(usize, u64), Failure> {
        i.require(Direction::Dest, "consume")?;
        for attempt in 0..ATTEMPTS {
            if attempt >= 4 {
                std::thread::yield_now();
            }
            // What of the data comes near again before the header is read may be older than that. Then the sum is
            // wrong, and they are dropped once more.
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
            if header.length > self.capacity {
                // A slot of another capacity.
                let expected = format!("{} or more, as many as the publication has", header.length);
                return Err(Error::invalid("capacity", self.capacity, expected).into());
            }
            if header.length > i.count() {
                let expected = format!("{} or more, as many as publication {} has", header.length, header.sequence);
                return Err(Error::invalid("dst", format!("{} bytes", i.count()), expected).into());
            }
            let before = i.count();
            match self.take(i, &header, is_dropped) {
                Ok(true) => return Ok((header.length, header.sequence)),
                Ok(false) => i.take_back(before - i.count())?,
                Err(failure) => {
                    i.take_back(before - i.count())?;
                    return Err(failure);
                }
            }
        }
        Err(Failure::Torn)
    }

    /// Copies the publication of a header, whose data may have been dropped from the caches; `false` if it is not there
    /// any more.
    fn take(&self, i: &mut IovIter, header: &Header, is_dropped: bool) -> std::result::Result<bool, Failure> {
        let length = header.length;
        if length <= INLINE {
            let seg = Segment::new(header.data.as_ptr().expose_provenance(), length);
            // SAFETY: the header is borrowed until the copy is done, which only reads it.
            let done = copy_to_iter(unsafe { Memory::new(seg, Backing::Heap) }, i, length)?;
            return taken(i, done, length).map(|()| true);
        }
        let offset = self.offset(header.sequence);
        if !is_dropped {
            whole(self.medium.invalidate(offset, length)?, LINE + length)?;
        }
        let mut crc = 0;
        let done = self.medium.read(offset, length, i, &mut crc)?;
        taken(i, done, length)?;
        if crc != header.crc {
            return Ok(false);
        }
        // The other buffer may have been filled meanwhile; this one is not touched before that is published. The sum
        // says the same, but for one mix in 2^32, so that a fence more is not worth it.
        let again = Header::decode(&self.read_line()?);
        Ok(again.is_some_and(|again| again == *header || again.sequence == header.sequence + 1))
    }
}

/// Whether an iterator took all of a publication.
fn taken(i: &IovIter, done: usize, length: usize) -> std::result::Result<(), Failure> {
    match i.fault.clone() {
        _ if done == length => Ok(()),
        Some(fault) => Err(Failure::Fault(fault, done)),
        None => Err(Error::BeyondSegments { count: length, available: done }.into()),
    }
}

/// All of a copy, or why not.
fn whole((done, fault): (usize, Option<Box<Fault>>), len: usize) -> std::result::Result<(), Failure> {
    match fault {
        Some(fault) if done < len => Err(Failure::Fault(fault, done)),
        None if done < len => Err(Error::invalid("data", "an iterator with a hole in it", "all of its bytes").into()),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
