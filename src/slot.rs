//! Publications in shared memory: one writer, any number of readers, each of whom gets one publication whole, whether
//! or not the caches between them are coherent.
//!
//! A slot is a header line and two buffers, which take turns. The writer fills the one that the header does not speak
//! of, past the caches, fences, and then stores the header, which says which publication is in which buffer and what
//! its data sum to. A reader drops the header from its caches before it reads it, and then the data; if they do not
//! have the sum, the writer was faster by two publications, and the reader starts again. Data that fit into the
//! header's own line are stored there: one line, which is read at once.

use crate::abi::Direction;
use crate::arch::LINE;
use crate::copy::flushcache::{invalidate, memcpy_flushcache};
use crate::copy::{copy_from_iter, copy_to_iter, memcpy};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::log::format::crc32c;
use crate::memory::{Backing, Memory, Page, Segment};
use crc_fast::{CrcAlgorithm, Digest};
use std::sync::{Mutex, PoisonError};

/// The most data that fit into the header's line, in bytes.
pub const INLINE: usize = 32;

/// How often a reader starts again.
const ATTEMPTS: usize = 1000;

/// How much is summed and copied at a time: it stays in the first cache.
const BLOCK: usize = 8 << 10;

const MAGIC: u32 = u32::from_le_bytes(*b"SLOT");

type Line = [u8; LINE];

/// What a header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Header {
    sequence: u64,
    length: usize,
    crc: u32,
    data: [u8; INLINE],
}

fn field<const N: usize>(line: &Line, at: usize) -> [u8; N] {
    std::array::from_fn(|index| line[at + index])
}

impl Header {
    fn encode(&self) -> Line {
        let mut line = [0; LINE];
        line[..4].copy_from_slice(&MAGIC.to_le_bytes());
        line[4..8].copy_from_slice(&self.crc.to_le_bytes());
        line[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        line[16..24].copy_from_slice(&(self.length as u64).to_le_bytes());
        line[24..24 + INLINE].copy_from_slice(&self.data);
        let sum = crc32c(&line[..LINE - 4]);
        line[LINE - 4..].copy_from_slice(&sum.to_le_bytes());
        line
    }

    fn decode(line: &Line) -> Option<Self> {
        let is_whole = u32::from_le_bytes(field(line, LINE - 4)) == crc32c(&line[..LINE - 4]);
        (is_whole && u32::from_le_bytes(field(line, 0)) == MAGIC).then(|| Self {
            crc: u32::from_le_bytes(field(line, 4)),
            sequence: u64::from_le_bytes(field(line, 8)),
            length: u64::from_le_bytes(field(line, 16)) as usize,
            data: field(line, 24),
        })
    }
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
pub struct Slot {
    page: Page,
    capacity: usize,
    /// One publication at a time.
    writer: Mutex<()>,
}

/// Bytes of a slot for publications of up to `capacity`: `None` if there are no so many.
pub fn size_for(capacity: usize) -> Option<usize> {
    let buffer = if capacity <= INLINE { 0 } else { capacity.checked_next_multiple_of(LINE)? };
    buffer.checked_mul(2)?.checked_add(LINE)
}

/// Memory of our own for a copy.
///
/// # Safety
/// It stays where it is, and is not used in any other way, until the copy is done.
unsafe fn own(start: *const u8, len: usize) -> Memory {
    // SAFETY: the caller's promise; such memory stays.
    unsafe { Memory::new(Segment::new(start.expose_provenance(), len), Backing::Heap) }
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
        Ok(Self { page, capacity, writer: Mutex::new(()) })
    }

    /// The most data of a publication.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    fn line(&self) -> Memory {
        self.page.memory().take(LINE)
    }

    /// Where the data of a publication are.
    fn data(&self, sequence: u64, length: usize) -> Memory {
        let buffer = (self.page.seg().len - LINE) / 2;
        self.page.memory().skip(LINE + (sequence % 2) as usize * buffer).take(length)
    }

    fn read_line(&self) -> std::result::Result<Line, Failure> {
        let mut line = [0; LINE];
        // SAFETY: the line is ours, and not looked at until it is copied.
        match memcpy(unsafe { own(line.as_mut_ptr(), LINE) }, self.line())? {
            (LINE, _) => Ok(line),
            (done, fault) => Err(fault.map_or(Failure::Torn, |fault| Failure::Fault(fault, done))),
        }
    }

    /// Publishes all that is left of an iterator, which then stands at its end: the publication's number. It has left
    /// the caches. If it fails, the publication before it is still there, and the iterator stands where it stood.
    pub fn publish(&self, i: &mut IovIter) -> std::result::Result<u64, Failure> {
        i.require(Direction::Source, "publish")?;
        if !self.page.writable() {
            return Err(Error::ReadOnly { what: "page", index: 0 }.into());
        }
        let length = i.count();
        if length > self.capacity {
            return Err(Error::invalid("data", format!("{length} bytes"), format!("at most {}", self.capacity)).into());
        }
        let turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Header::decode(&self.read_line()?).map_or(0, |header| header.sequence);
        let sequence = before + 1;
        let mut header = Header { sequence, length, crc: 0, data: [0; INLINE] };
        let published =
            if length <= INLINE { Self::fill_line(i, &mut header) } else { self.fill_buffer(i, &mut header) };
        let published = published.and_then(|()| {
            let line = header.encode();
            // SAFETY: the line is ours and stays until it is copied.
            whole(memcpy_flushcache(self.line(), unsafe { own(line.as_ptr(), LINE) })?, LINE)
        });
        drop(turn);
        if published.is_err() {
            i.take_back(length - i.count())?;
        }
        published.map(|()| sequence)
    }

    fn fill_line(i: &mut IovIter, header: &mut Header) -> std::result::Result<(), Failure> {
        // SAFETY: the header is ours, and not looked at until it is copied to.
        let dst = unsafe { own(header.data.as_mut_ptr(), header.length) };
        let done = copy_from_iter(dst, i, header.length)?;
        whole((done, i.fault.clone()), header.length)?;
        header.crc = crc32c(&header.data[..header.length]);
        Ok(())
    }

    fn fill_buffer(&self, i: &mut IovIter, header: &mut Header) -> std::result::Result<(), Failure> {
        let target = self.data(header.sequence, header.length);
        let mut block = [0_u8; BLOCK];
        let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
        for at in (0..header.length).step_by(BLOCK) {
            let len = BLOCK.min(header.length - at);
            // SAFETY: the block is ours, and not looked at until both copies are done.
            let part = unsafe { own(block.as_mut_ptr(), len) };
            let done = copy_from_iter(part, i, len)?;
            whole((done, i.fault.clone()), len)?;
            whole(memcpy_flushcache(target.skip(at).take(len), part)?, len)?;
            sum.update(&block[..len]);
        }
        header.crc = sum.finalize() as u32;
        Ok(())
    }

    /// Copies a publication that is newer than a number into an iterator, which advances by it: its length and its
    /// number, or 0 and the number given if there is none. If it fails the iterator stands where it stood.
    pub fn consume(&self, i: &mut IovIter, newer_than: u64) -> std::result::Result<(usize, u64), Failure> {
        i.require(Direction::Dest, "consume")?;
        for attempt in 0..ATTEMPTS {
            if attempt >= 4 {
                std::thread::yield_now();
            }
            invalidated(self.line())?;
            let line = self.read_line()?;
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
            match self.take(i, &header) {
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

    /// Copies the publication of a header; `false` if it is not there any more.
    fn take(&self, i: &mut IovIter, header: &Header) -> std::result::Result<bool, Failure> {
        let mut done = 0;
        let mut store = |part: &[u8]| {
            // SAFETY: the part is ours, and stays until it is copied.
            let stored = copy_to_iter(unsafe { own(part.as_ptr(), part.len()) }, i, part.len())?;
            done += stored;
            match i.fault.clone().filter(|_| stored < part.len()) {
                Some(fault) => Err(Failure::Fault(fault, done)),
                None if stored < part.len() => {
                    Err(Failure::Refused(Error::BeyondSegments { count: part.len(), available: stored }))
                }
                None => Ok(()),
            }
        };
        if header.length <= INLINE {
            store(&header.data[..header.length])?;
            return Ok(true);
        }
        let source = self.data(header.sequence, header.length);
        invalidated(source)?;
        let mut block = [0_u8; BLOCK];
        let mut sum = Digest::new(CrcAlgorithm::Crc32Iscsi);
        for at in (0..header.length).step_by(BLOCK) {
            let len = BLOCK.min(header.length - at);
            // SAFETY: the block is ours, and not looked at until it is copied to.
            let part = unsafe { own(block.as_mut_ptr(), len) };
            whole(memcpy(part, source.skip(at).take(len))?, len)?;
            sum.update(&block[..len]);
            store(&block[..len])?;
        }
        if sum.finalize() as u32 != header.crc {
            return Ok(false);
        }
        // The other buffer may have been filled meanwhile; this one is not touched before that is published.
        invalidated(self.line())?;
        let again = Header::decode(&self.read_line()?);
        Ok(again.is_some_and(|again| again == *header || again.sequence == header.sequence + 1))
    }
}

fn invalidated(range: Memory) -> std::result::Result<(), Failure> {
    whole(invalidate(range)?, range.len())
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
mod tests {
    use super::{Header, INLINE, Slot, size_for};
    use crate::abi::Direction;
    use crate::iter::IovIter;
    use crate::memory::{Backing, Memory, Page, Segment};
    use std::sync::Arc;

    fn over(bytes: &mut [u8]) -> Memory {
        let seg = Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len());
        // SAFETY: the tests keep the bytes, and do not look at them while they are copied.
        unsafe { Memory::new(seg, Backing::Heap) }
    }

    fn publish(slot: &Slot, data: &mut [u8]) -> u64 {
        slot.publish(&mut IovIter::whole(Direction::Source, over(data))).unwrap()
    }

    fn consume(slot: &Slot, newer_than: u64) -> (Vec<u8>, u64) {
        let mut bytes = vec![0; slot.capacity()];
        let (len, sequence) = slot.consume(&mut IovIter::whole(Direction::Dest, over(&mut bytes)), newer_than).unwrap();
        bytes.truncate(len);
        (bytes, sequence)
    }

    #[test]
    fn a_header_with_any_flipped_bit_is_none() {
        let header = Header { sequence: 7, length: 100, crc: 9, data: [3; INLINE] };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        for bit in 0..64 * 8 {
            let mut line = header.encode();
            line[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&line), None, "bit {bit}");
        }
    }

    #[test]
    fn what_was_published_is_consumed_and_the_one_before_survives_a_writer_that_stops() {
        for len in [0, 1, INLINE, INLINE + 1, 5000, 20_000] {
            let mut memory = vec![0; size_for(20_000).unwrap()];
            let slot = Slot::new(&Page::new(over(&mut memory), true, Arc::new(())), 0, Some(20_000)).unwrap();
            assert_eq!(consume(&slot, 0), (vec![], 0));
            for sequence in 1..5 {
                let mut data = vec![sequence as u8; len];
                assert_eq!(publish(&slot, &mut data), sequence);
                assert_eq!(consume(&slot, sequence - 1), (data, sequence));
                assert_eq!(consume(&slot, sequence), (vec![], sequence));
            }
            // The next publication up to its header.
            let next = slot.data(5, 20_000);
            let at = next.seg().addr - slot.page.seg().addr;
            memory[at..at + 20_000].fill(0xee);
            assert_eq!(consume(&slot, 0), (vec![4; len], 4));
        }
    }
}
