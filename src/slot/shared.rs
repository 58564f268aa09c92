//! A page of Python's, mapped or shared, as what a slot is in.

use super::Medium;
use super::header::Line;
use crate::arch::LINE;
use crate::copy::flushcache::{invalidate_both, memcpy_flushcache, reload};
use crate::copy::framed::copy_published_from_iter;
use crate::copy::sums::Sums;
use crate::copy::{Outcome, memcpy, uncached};
use crate::error::Result;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Page, Segment};

/// Memory of our own for a copy.
///
/// # Safety
/// It stays where it is, and is not used in any other way, until the copy is done.
unsafe fn own(line: *const u8) -> Memory {
    // SAFETY: the caller of `own` promises that the line stays and is used in no other way, which is all that
    // `Backing::Heap` says.
    unsafe { Memory::new(Segment::new(line.expose_provenance(), LINE), Backing::Heap) }
}

impl Medium for Page {
    fn size(&self) -> usize {
        self.seg().len
    }

    fn is_writable(&self) -> bool {
        self.writable()
    }

    fn reload(&self, len: usize, line: &mut Line) -> Result<Outcome> {
        reload(line, self.memory().take(len))
    }

    fn invalidate(&self, offset: usize, len: usize) -> Result<Outcome> {
        invalidate_both([self.memory().take(LINE), self.memory().skip(offset).take(len)])
    }

    fn read_line(&self, line: &mut Line) -> Result<Outcome> {
        // SAFETY: the line is borrowed until the copy is done, and the memory is not used after it.
        memcpy(unsafe { own(line.as_mut_ptr()) }, self.memory().take(LINE))
    }

    fn write_line(&self, line: &Line) -> Result<Outcome> {
        // SAFETY: the line is borrowed until the copy is done, which only reads it.
        memcpy_flushcache(self.memory().take(LINE), unsafe { own(line.as_ptr()) })
    }

    fn read(&self, offset: usize, len: usize, i: &mut IovIter) -> Result<(usize, Sums)> {
        uncached::copy_uncached_to_iter(self.memory().skip(offset).take(len), i, len)
    }

    fn write(&self, offset: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome> {
        let data = self.memory().skip(offset).take(i.count().next_multiple_of(LINE));
        copy_published_from_iter(self.memory().take(LINE), data, i, line)
    }
}
