//! What a log is worth after a loss of power: its own code over a recorder of lines and fences, and every image that
//! may be on the medium then.

use super::format::{Line, RING};
use super::recover::Source;
use super::{Failure, Medium, Open, PmemLog};
use crate::abi::Direction;
use crate::copy::framed::recorded::{Event, Recorded, images};
use crate::copy::sums::Sums;
use crate::copy::{Outcome, crc32c};
use crate::error::{Error, Result};
use crate::fault::{Fault, Side};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

mod changes;
mod damage;
mod power;
mod readers;
mod recovery;

/// A ring of 16 lines behind the superblocks.
const SIZE: usize = super::format::SMALLEST;

/// Memory whose stores are recorded. What cannot be written to is remembered as damage of so many bytes.
struct Fake {
    memory: RefCell<Recorded>,
    bad: RefCell<Option<(usize, usize)>>,
    has_lock: Cell<bool>,
    /// How many of the next writes are stored and then fail, as where an msync does.
    unsynced: Cell<usize>,
    /// How many bytes were read.
    read: Cell<usize>,
    /// What a writer makes of it meanwhile: after so many reads it holds something else.
    meanwhile: RefCell<Option<(usize, Vec<u8>)>>,
}

impl Fake {
    fn new(image: &[u8]) -> Self {
        let memory = RefCell::new(Recorded::new(image));
        let (has_lock, unsynced, read) = (Cell::new(true), Cell::new(0), Cell::new(0));
        Self { memory, bad: RefCell::default(), has_lock, unsynced, read, meanwhile: RefCell::default() }
    }
}

fn fault(is_whole: bool) -> Option<Box<Fault>> {
    (!is_whole).then(|| Box::new(Fault::truncated(Side::Destination, Segment::new(0, 1), 0)))
}

impl Source for Fake {
    fn read(&self, offset: usize, own: &mut [u8]) -> Result<Outcome> {
        if let Some((left, image)) = &mut *self.meanwhile.borrow_mut() {
            if *left == 0 {
                *self.memory.borrow_mut() = Recorded::new(image);
            }
            *left = left.wrapping_sub(1);
        }
        self.read.set(self.read.get() + own.len());
        own.copy_from_slice(&self.memory.borrow().contents()[offset..offset + own.len()]);
        Ok((own.len(), None))
    }
}

impl Medium for Fake {
    fn size(&self) -> usize {
        self.memory.borrow().contents().len()
    }

    fn write(&self, offset: usize, own: &[u8]) -> Result<Outcome> {
        let done = self.memory.borrow_mut().write(offset, own);
        if let Some(left) = self.unsynced.get().checked_sub(1) {
            self.unsynced.set(left);
            return Err(Error::os(libc::EIO, "msync"));
        }
        Ok((done, fault(done == own.len())))
    }

    fn write_framed(&self, offset: usize, len: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome> {
        let before = i.count();
        let is_whole = self.memory.borrow_mut().write_framed(offset, i, line);
        if !is_whole {
            i.take_back(before - i.count())?;
        }
        Ok((if is_whole { len } else { 0 }, fault(is_whole)))
    }

    fn damage(&self, _fault: &Fault) -> Option<(usize, usize)> {
        *self.bad.borrow()
    }

    fn require_lock(&self) -> Result<()> {
        if self.has_lock.get() { Ok(()) } else { Err(Error::os(libc::EBADF, "closed")) }
    }
}

type Log = PmemLog<Fake>;

fn create(size: usize) -> Log {
    PmemLog::open(Fake::new(&vec![0; size]), Open::Create).unwrap()
}

fn open(image: &[u8]) -> Log {
    PmemLog::open(Fake::new(image), Open::Write).unwrap()
}

fn reader(image: &[u8]) -> Log {
    PmemLog::open(Fake::new(image), Open::Read).unwrap()
}

fn image(log: &Log) -> Vec<u8> {
    log.medium().memory.borrow().contents().to_vec()
}

fn over(bytes: &mut [u8], direction: Direction) -> IovIter {
    let seg = Segment::new(bytes.as_mut_ptr().expose_provenance(), bytes.len());
    // SAFETY: the callers keep the bytes, and do not look at them, until they are done with the iterator.
    IovIter::ubuf(direction, unsafe { Memory::new(seg, Backing::Heap) }, None).unwrap()
}

fn append(log: &Log, data: &[u8]) -> std::result::Result<u64, Failure> {
    let mut bytes = data.to_vec();
    log.append(&mut over(&mut bytes, Direction::Source))
}

fn read(log: &Log, sequence: u64) -> std::result::Result<Vec<u8>, Failure> {
    let record = log.record(sequence)?;
    let mut bytes = vec![0; record.length];
    log.read_into(&record, &mut over(&mut bytes, Direction::Dest))?;
    Ok(bytes)
}

/// Every record, by its number: `None` where it is corrupt.
fn records(log: &Log) -> BTreeMap<u64, Option<Vec<u8>>> {
    let numbers = log.numbers().unwrap();
    let look = |sequence| match read(log, sequence) {
        Ok(data) => (sequence, Some(data)),
        Err(Failure::Corrupt { .. }) => (sequence, None),
        Err(failure) => panic!("record {sequence}: {failure:?}"),
    };
    (numbers.first..numbers.end).map(look).collect()
}

fn data(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (seed * 101 + at * 7 + at / 64 * 3) as u8 | 1).collect()
}
