//! A copy in blocks that is stepped from outside.

use super::pass_to_iter;
use crate::abi::Direction;
use crate::copy::bounce::{self, Scratch};
use crate::copy::copier::Copier;
use crate::error::Result;
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Segment};

/// A copy into an iterator that is under way.
pub struct BlockCopy<'i> {
    i: &'i mut IovIter,
    /// What is left of the source.
    source: Memory,
    /// Where it was read ahead, if it had to be, and what stopped that.
    _ahead: Option<Scratch>,
    fault: Option<Box<Fault>>,
    done: usize,
}

impl<'i> BlockCopy<'i> {
    /// Begins to copy `nbytes` from `src` into the iterator, as if all of them had been read first.
    pub fn new(src: Memory, i: &'i mut IovIter, nbytes: usize, operation: &'static str) -> Result<Self> {
        let nbytes = bounce::begin(src, i, nbytes, Direction::Dest, operation)?;
        i.fault = None;
        let source = src.take(nbytes);
        if !bounce::must_read_ahead(i, source.seg(), Direction::Dest) {
            return Ok(Self { i, source, _ahead: None, fault: None, done: 0 });
        }
        let mut ahead = Scratch::new(nbytes)?;
        let mut copier = Copier::new(&[source], &[])?;
        // SAFETY: the copier was made for the source.
        let read = Segment::new(ahead.addr(), unsafe { ahead.fill(&mut copier, source.seg()) });
        let mut fault = copier.into_fault(read.len, nbytes);
        if read.len == 0 {
            i.fault = fault.take();
        }
        // SAFETY: the buffer stays beside it in `self`, which hands it to nobody.
        let source = unsafe { Memory::new(read, Backing::Heap) };
        Ok(Self { i, source, _ahead: Some(ahead), fault, done: 0 })
    }

    /// Bytes that are left to copy, unless the iterator or bad memory ends it before.
    pub fn left(&self) -> usize {
        self.source.len()
    }

    /// Bytes copied so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Takes all of it back: the iterator is where it was. Refused if a reader has drained its pipe meanwhile.
    pub fn take_back(self) -> Result<()> {
        self.i.take_back(self.done)
    }

    /// Copies the next block, as much as `block` takes, and leaves it there: the bytes copied. Fewer than `block` takes
    /// and [`Self::left`] says: that was all, and the iterator's fault says why if bad memory was the reason.
    pub fn next(&mut self, block: &mut [u8]) -> Result<usize> {
        let wanted = self.source.take(block.len()).seg();
        let own = block.as_mut_ptr().expose_provenance();
        let mut copier = Copier::new(&[self.source], &[self.i])?;
        // SAFETY: the copier was made for the source and the iterator; the block has room for what is wanted.
        let written = unsafe { pass_to_iter(&mut copier, wanted, own, self.i) };
        let mut fault = copier.into_fault(written, self.source.len());
        self.done += written;
        self.source = if written < wanted.len { self.source.take(0) } else { self.source.skip(written) };
        if fault.is_none() && written == wanted.len && self.source.len() == 0 {
            fault = self.fault.take();
        }
        if let Some(mut fault) = fault {
            fault.offset = self.done;
            self.i.fault = Some(fault);
        }
        Ok(written)
    }
}
