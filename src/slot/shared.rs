//! A page of Python's, mapped or shared, as what a slot is in.

use super::Medium;
use super::header::Line;
use crate::arch::LINE;
use crate::copy::flushcache::{invalidate_both, memcpy_flushcache, read_evicted, reload};
use crate::copy::framed::copy_published_from_iter;
use crate::copy::sums::Sums;
use crate::copy::{Outcome, memcpy, uncached};
use crate::error::Result;
use crate::iter::IovIter;
use crate::memory::{Backing, Memory, Page, Segment};

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
        let own = Segment::new(line.as_mut_ptr().expose_provenance(), LINE);
        // SAFETY: the line is borrowed mutably until the copy is done, and the memory is not used after it.
        memcpy(unsafe { Memory::new(own, Backing::Heap) }, self.memory().take(LINE))
    }

    fn read_line_again(&self, line: &mut Line) -> Result<Outcome> {
        read_evicted(line, self.memory().take(LINE))
    }

    fn write_line(&self, line: &Line) -> Result<Outcome> {
        let own = Segment::new(line.as_ptr().expose_provenance(), LINE);
        // SAFETY: the line is borrowed until the copy is done, which only reads it.
        memcpy_flushcache(self.memory().take(LINE), unsafe { Memory::new(own, Backing::Heap) })
    }

    fn read(&self, offset: usize, len: usize, i: &mut IovIter) -> Result<(usize, Sums)> {
        uncached::copy_uncached_to_iter(self.memory().skip(offset).take(len), i, len)
    }

    fn write(&self, offset: usize, i: &mut IovIter, line: &dyn Fn(Sums) -> Line) -> Result<Outcome> {
        let data = self.memory().skip(offset).take(i.count().next_multiple_of(LINE));
        copy_published_from_iter(self.memory().take(LINE), data, i, line)
    }
}
