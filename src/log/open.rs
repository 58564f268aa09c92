//! Finding the log in a region, or making one.

use super::chain::Chain;
use super::format::{self, End, LAST_UPDATE, Page, RING, Superblock};
use super::recover::{self, Log, Source};
use super::ring::Ring;
use super::{Failure, Medium, Open, PmemLog, STORED_AT_ONCE, State, os, written};
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result, reserve};
use crate::sys::long_lock::LongLock;
use crate::sys::random;

/// Writes a superblock over both copies, one after the other, so that one is always whole on the medium. `are_current`
/// says which have the newest superblock until then.
///
/// If it is one, it is stored once more, as it is, because its writer may have been killed before it was durable; then
/// the other is written first. If both have it, the one is written first that the last update wrote second: if that was
/// refused, the update has succeeded all the same. So updates take turns, and their numbers say whose turn it is.
pub(super) fn write_superblock<M: Medium>(
    medium: &M,
    superblock: &Superblock,
    are_current: [bool; 2],
) -> std::result::Result<(), Failure> {
    if superblock.update > LAST_UPDATE {
        return Err(os(
            libc::EOVERFLOW,
            "the superblock cannot be written once more: its updates are at their last number",
        ));
    }
    let write = |slot: usize, page: &Page| written(medium.write(slot * PAGE_SIZE, page)?, page.len());
    let first = match are_current {
        [true, true] => (superblock.update % 2) as usize,
        [false, false] => 0,
        [is_first_current, _] => {
            let mut newest = [0; PAGE_SIZE];
            let slot = usize::from(!is_first_current);
            written(medium.read(slot * PAGE_SIZE, &mut newest)?, PAGE_SIZE)?;
            write(slot, &newest)?;
            1 - slot
        }
    };
    let page = superblock.encode();
    write(first, &page)?;
    // With one of them the log is as good as with both, until the next change.
    let _ = write(1 - first, &page);
    Ok(())
}

/// Stores the last record once more, as it is. Its writer may have been killed before it was durable, and a record that
/// a log was opened with must not be gone after a loss of power. The older ones were durable before it was appended.
fn store_last<M: Medium>(medium: &M, ring: &Ring, chain: &Chain) -> std::result::Result<(), Failure> {
    let Some(Ok(last)) = chain.entries.back() else { return Ok(()) };
    let (mut at, mut left) = (RING + ring.offset(last.position) as usize, (last.end() - last.position) as usize);
    let mut block = Vec::new();
    let most = left.min(STORED_AT_ONCE);
    reserve(&mut block, most)?;
    block.resize(most, 0);
    while left > 0 {
        let part = &mut block[..left.min(most)];
        let (read, _) = medium.read(at, part)?;
        // What bad memory does not take is reported when the record is read.
        medium.write(at, &part[..read])?;
        (at, left) = (at + part.len(), left - part.len());
    }
    Ok(())
}

/// Whether nothing but zeroes is in the first bytes of something, apart from what may be left of the first superblock
/// where a log had room: a file has its length before anything is written to it, and one that is shorter was cut.
fn is_blank(source: &impl Source, size: usize) -> Result<bool> {
    let mut page = [0; PAGE_SIZE];
    for offset in (0..size).step_by(PAGE_SIZE) {
        let part = &mut page[..PAGE_SIZE.min(size - offset)];
        let (read, _) = source.read(offset, part)?;
        if read < part.len()
            || (part.iter().any(|byte| *byte != 0)
                && !(offset == 0 && size >= format::SMALLEST && format::may_be_unfinished(&page)))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Refuses to make a log, in something of `length` bytes without one, if it may not be, or cannot be `size` bytes long.
pub(super) fn require_makeable(source: &impl Source, length: usize, size: Option<usize>, create: bool) -> Result<()> {
    let mut page = [0; PAGE_SIZE];
    source.read(0, &mut page[..PAGE_SIZE.min(length)])?;
    let is_marked = format::is_marked(&page);
    if !create {
        return Err(if is_marked {
            Error::os(libc::EBADMSG, "both superblocks of the log are damaged")
        } else {
            let expected = "one with a log; create=True makes one in a new file, or in one of zeroes";
            Error::invalid("path", "a file without a log", expected)
        });
    }
    let size = size.unwrap_or(length);
    if size < format::SMALLEST {
        return Err(Error::invalid("size", size, format!("{} or more for a log", format::SMALLEST)));
    }
    if is_blank(source, length)? {
        Ok(())
    } else if is_marked {
        Err(Error::os(libc::EBADMSG, "both superblocks of the log are damaged"))
    } else {
        Err(Error::invalid("path", "a file with something else in it", "a new file, one of zeroes, or one with a log"))
    }
}

impl<M: Medium> PmemLog<M> {
    /// Finds the log in a region, and cuts its torn tail, or makes one.
    pub fn open(medium: M, how: Open) -> std::result::Result<Self, Failure> {
        let (found, are_current) = recover::superblock(&medium)?;
        let Some(mut superblock) = found else { return Self::make(medium, how) };
        if superblock.size > medium.size() as u64 {
            let context = format!("the log has {} bytes, of which {} are there", superblock.size, medium.size());
            return Err(os(libc::EBADMSG, context));
        }
        let ring = Ring::new(superblock.capacity(), superblock.bad.clone());
        let log = Log { source: &medium, ring: &ring, generation: superblock.generation };
        let recovered = log.recover(&superblock)?;
        let (end, torn) = (recovered.chain.end.position, recovered.torn);
        let is_writable = how != Open::Read;
        let was_closed = superblock.closed == Some(recovered.chain.end);
        if is_writable && recovered.chain.end.sequence > superblock.known.sequence {
            store_last(&medium, &ring, &recovered.chain)?;
        }
        if is_writable {
            superblock.closed = None;
            superblock.known = recovered.chain.end;
            superblock.update += 1;
        }
        let state = State { superblock, ring, chain: recovered.chain, is_broken: false };
        let new = Self {
            medium,
            is_writable,
            recovered: if is_writable { torn - end } else { 0 },
            state: LongLock::new(state),
        };
        if is_writable {
            let mut state = new.lock()?;
            write_superblock(&new.medium, &state.superblock, are_current)?;
            new.erase(&mut state, end, torn)?;
            if !was_closed {
                new.erase_places(&mut state, torn)?;
            }
            drop(state);
        } else {
            new.settle(&mut *new.lock()?)?;
            drop(new.follow(new.lock()?)?);
        }
        Ok(new)
    }

    fn make(medium: M, how: Open) -> std::result::Result<Self, Failure> {
        let size = medium.size();
        require_makeable(&medium, size, None, how == Open::Create)?;
        let first = End { position: 0, sequence: 0 };
        // No other log is likely to have it.
        let generation = random::number().map_err(|errno| Error::os(errno, "getrandom"))?;
        let (size, known) = (size as u64, first);
        let mut superblock = Superblock { generation, update: 1, size, first, closed: None, known, bad: Vec::new() };
        write_superblock(&medium, &superblock, [false; 2])?;
        // Nothing is appended before both say that making it is over: what is left of them tells a log that was cut.
        superblock.update = 2;
        write_superblock(&medium, &superblock, [true; 2])?;
        let ring = Ring::new(superblock.capacity(), Vec::new());
        let state = State { superblock, ring, chain: Chain::new(first), is_broken: false };
        Ok(Self { medium, is_writable: true, recovered: 0, state: LongLock::new(state) })
    }
}
