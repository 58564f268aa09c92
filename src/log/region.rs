//! A mapped region as what a log is stored in.

use super::format::Line;
use super::open::require_makeable;
use super::recover::{self, Source};
use super::{Failure, Medium, PmemLog};
use crate::copy::Outcome;
use crate::copy::sums::Sums;
use crate::error::{Error, Result, try_push};
use crate::fault::Fault;
use crate::fault::map::shared::{KnownBad, SharedMap};
use crate::fault::map::{Access, FaultMap};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use crate::pmem::{Granularity, Mapping, Opened};
use crate::sys::writer_lock::{Lost, WriterLock};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};

/// A file that a log is looked for in, and that nobody else writes a log to meanwhile.
pub struct Claim {
    /// `None` for a reader.
    lock: Option<WriterLock>,
    /// Bytes of the log that is in it.
    size: Option<usize>,
}

impl Claim {
    /// Takes the lock of a file that is open for writing, and looks how long the log in it is. `size` is how long it is
    /// to be. Where there is none, and none may be made, that is refused while nothing has been changed.
    pub fn new(opened: &mut Opened, size: Option<usize>, create: bool) -> Result<Self> {
        let lock = if opened.writable() {
            let lock = WriterLock::take(opened.file()).map_err(|errno| {
                let context = if errno == libc::EWOULDBLOCK { "another writer has the log open" } else { "flock" };
                Error::os(errno, context)
            })?;
            Some(lock)
        } else {
            None
        };
        // Another process may have made a log in it before it gave up the lock.
        opened.look_again()?;
        if opened.character_device().is_some() {
            // It cannot be read but through a mapping.
            return Ok(Self { lock, size: None });
        }
        let file = Unmapped(opened.file());
        let Some(found) = recover::superblock(&file)?.0 else {
            require_makeable(&file, usize::try_from(opened.length()).unwrap_or(usize::MAX), size, create)?;
            return Ok(Self { lock, size: None });
        };
        let there = found.size as usize;
        if let Some(size) = size
            && size != there
        {
            return Err(Error::invalid("size", size, format!("{there}, which the log in the file has")));
        }
        if opened.length() < found.size {
            let context = format!("the log has {there} bytes, of which the file has {}", opened.length());
            return Err(Error::os(libc::EBADMSG, context));
        }
        Ok(Self { lock, size: Some(there) })
    }

    /// Bytes of the log that is in the file, if one is.
    pub fn size(&self) -> Option<usize> {
        self.size
    }
}

/// A file before it is mapped. What it does not have cannot be read.
struct Unmapped<'a>(&'a File);

impl Source for Unmapped<'_> {
    fn read(&self, offset: usize, own: &mut [u8]) -> Result<Outcome> {
        let mut done = 0;
        while done < own.len() {
            match self.0.read_at(&mut own[done..], (offset + done) as u64) {
                Ok(0) => break,
                Ok(nbytes) => done += nbytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Bad blocks are found again, and told of, when it is mapped.
                Err(_) => break,
            }
        }
        Ok((done, None))
    }
}

/// What is known of a region: nothing in it can be read that is bad, whatever else may be done to it.
struct KnownMap(SharedMap);

impl KnownBad for KnownMap {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn is_clear(&self, asked: [(Segment, Access); 2]) -> bool {
        self.0.is_clear(asked.map(|(seg, _)| (seg, Access::Both)))
    }

    fn first_bad(&self, seg: Segment, _access: Access) -> Option<Segment> {
        self.0.first_bad(seg, Access::Both)
    }
}

/// A mapped region, and what is known of it.
pub struct Region {
    mapping: Mapping,
    known_bad: KnownMap,
    /// `None` for a reader.
    lock: Option<WriterLock>,
}

impl Region {
    /// A region over a mapping of the file that was claimed. `bad` is what is known of the file's bytes.
    pub fn new(mapping: Mapping, claim: Claim, bad: &FaultMap) -> Result<Self> {
        let known_bad = KnownMap(SharedMap::new(mapping.known_bad(bad)?));
        let mut lock = claim.lock;
        // Beside an msync it costs nothing to look whether the lock's descriptor is open.
        if let Some(lock) = lock.as_mut().filter(|_| mapping.granularity() != Granularity::Page) {
            let (offset, len) = mapping.pages();
            lock.keep_mapped(offset, len);
        }
        Ok(Self { mapping, known_bad, lock })
    }

    /// The mapping.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Adds what a fault has taught.
    fn learn(&self, fault: Option<&Fault>) {
        if let Some((seg, _)) = fault.and_then(|fault| self.mapping.damage(fault)) {
            self.known_bad.0.record((seg, Access::Both));
        }
    }
}

/// Our own memory for a copy.
///
/// # Safety
/// It is not used in any other way until the copy is done.
unsafe fn own(start: *const u8, len: usize) -> Memory {
    // SAFETY: the caller of `own` promises that the bytes stay and are used in no other way, which is all that
    // `Backing::Heap` says.
    unsafe { Memory::new(Segment::new(start.expose_provenance(), len), Backing::Heap) }
}

impl Source for Region {
    fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<Outcome> {
        // SAFETY: the buffer is borrowed until the copy is done, and the memory is not used after it.
        let dst = unsafe { own(buffer.as_mut_ptr(), buffer.len()) };
        let outcome = self.mapping.read(offset, dst, &self.known_bad, None)?;
        // What is read later is no older than this: a reader looks last whether what it read was still in use.
        fence(Ordering::Acquire);
        self.learn(outcome.1.as_deref());
        Ok(outcome)
    }

    fn hole_at(&self, offset: usize) -> usize {
        self.mapping.hole_at(offset)
    }
}

impl Medium for Region {
    fn size(&self) -> usize {
        self.mapping.seg().len
    }

    fn write(&self, offset: usize, bytes: &[u8]) -> Result<Outcome> {
        // SAFETY: the bytes are borrowed until the copy is done, which only reads them.
        let src = unsafe { own(bytes.as_ptr(), bytes.len()) };
        self.mapping.write(offset, src, None)
    }

    fn write_framed(&self, offset: usize, len: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome> {
        self.mapping.write_framed(offset, len, i, line)
    }

    fn damage(&self, fault: &Fault) -> Option<(usize, usize)> {
        let (seg, _) = self.mapping.damage(fault)?;
        let start = seg.addr - self.mapping.seg().addr;
        Some((start, start + seg.len))
    }

    fn require_lock(&self) -> Result<()> {
        let why = |lost| match lost {
            Lost::Forked => {
                Error::os(libc::EWOULDBLOCK, "another process writes this log: the one that this was forked from")
            }
            Lost::Closed => {
                Error::os(libc::EBADF, "the descriptor that had the lock of this log was closed: open the log again")
            }
        };
        self.lock.as_ref().ok_or(Error::ReadOnlyRegion)?.require().map_err(why)
    }
}

impl PmemLog<Region> {
    /// Reads everything: what is wrong with it, in order, by where it is. Bad memory is as it was met; records that are
    /// not what was appended are of the cause [`Cause::Unknown`](crate::fault::Cause). The offsets are the region's.
    pub fn verify(&self) -> std::result::Result<Vec<Fault>, Failure> {
        let start = self.medium().mapping.seg().addr;
        let mut found = Vec::new();
        let numbers = self.numbers()?;
        for sequence in numbers.first..numbers.end {
            let (offset, length) = match self.check(sequence) {
                Ok(None) | Err(Failure::Missing { .. }) => continue,
                Ok(Some((mut fault, offset))) => {
                    fault.offset = offset;
                    try_push(&mut found, *fault)?;
                    continue;
                }
                Err(Failure::Fault(mut fault, _)) => {
                    // Its header cannot be read.
                    fault.offset = fault.address.saturating_sub(start);
                    try_push(&mut found, *fault)?;
                    continue;
                }
                Err(Failure::Corrupt { offset, length, .. }) => (offset, length),
                Err(failure) => return Err(failure),
            };
            try_push(&mut found, Fault::changed(Segment::new(start + offset, length), offset))?;
        }
        Ok(found)
    }
}
