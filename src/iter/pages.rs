//! The pages that hold the next bytes: how many they are, their addresses, faulting them in, and whether they are
//! writable.

use super::IovIter;
use crate::abi::{Direction, Kind, MAX_RW_COUNT, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::fault::shelter;
use crate::memory::Segment;
use std::ops::ControlFlow;

/// The pages that hold the next bytes of an iterator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageSpan {
    /// The address of each page.
    pub pages: Vec<usize>,
    /// The offset of the first byte in the first page.
    pub offset0: usize,
    /// The bytes that the pages hold for the iterator.
    pub nbytes: usize,
}

impl IovIter {
    /// Refuses the next `nbytes` bytes as a destination if one of their pages is read-only; the error counts pages from
    /// the position. Only XARRAY and FOLIOQ are checked here: their pages may change at any time. The constructors
    /// check the other kinds.
    #[inline]
    pub fn require_writable(&self, nbytes: usize) -> Result<()> {
        if self.body.has_changing_pages() { self.require_writable_pages(nbytes) } else { Ok(()) }
    }

    fn require_writable_pages(&self, nbytes: usize) -> Result<()> {
        let (mut index, mut refused) = (0, None);
        self.pieces(nbytes.min(self.count), |piece| {
            if piece.page.is_some_and(|page| !page.writable()) {
                refused = Some(index);
                return ControlFlow::Break(());
            }
            index += 1;
            ControlFlow::Continue(())
        });
        let what = self.kind().unit();
        refused.map_or(Ok(()), |index| Err(Error::ReadOnly { what, index }))
    }

    /// How many pages the remaining pieces touch, at most `maxpages` (`iov_iter_npages`). A page shared by two pieces
    /// counts twice.
    pub fn npages(&self, maxpages: usize) -> usize {
        if self.count == 0 {
            return 0;
        }
        let pages = if let Some(pipe) = self.body.as_pipe() {
            pipe.0.free_slots().0
        } else if let Some(place) = self.body.place(self.offset) {
            // This counts pages behind a hole or the end of the queue, too: only listing the pages finds those ends.
            (place % PAGE_SIZE + self.count).div_ceil(PAGE_SIZE)
        } else {
            let mut pages = self.empty_pages();
            self.pieces(self.count, |piece| {
                pages += piece.npages();
                if pages < maxpages { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            pages
        };
        pages.min(maxpages)
    }

    /// Empty BVEC elements that do not begin at a page boundary: `iov_iter_npages` counts each as one page.
    fn empty_pages(&self) -> usize {
        let Some(vector) = self.body.as_vector().filter(|vector| vector.kind() == Kind::Bvec) else { return 0 };
        let is_empty_inside_a_page = |(seg, at): &(Segment, usize)| seg.len == 0 && at % PAGE_SIZE != 0;
        vector.clipped(self.offset, self.count).filter(is_empty_inside_a_page).count()
    }

    /// Lists the pages that hold the next bytes and advances by the bytes listed (`iov_iter_get_pages2`). User memory
    /// is faulted in; a pipe takes new slots.
    pub fn get_pages(&mut self, maxsize: usize, maxpages: usize) -> Result<PageSpan> {
        let nbytes = maxsize.min(self.count).min(MAX_RW_COUNT);
        if nbytes == 0 || maxpages == 0 {
            return Ok(PageSpan::default());
        }
        if let Some(pipe) = self.body.as_pipe_mut() {
            let (pages, offset0, nbytes) = pipe.extend(nbytes, maxpages)?;
            if nbytes == 0 {
                return Err(Error::os(libc::EFAULT, "get_pages: the pipe is full"));
            }
            self.count -= nbytes;
            return Ok(PageSpan { pages, offset0, nbytes });
        }
        if !self.is_user_backed() && !self.kind().is_paged() {
            return Err(self.no_pages("get_pages"));
        }
        self.list_pages(nbytes, maxpages, false)
    }

    /// Lists the pages that hold the next bytes and advances by the bytes listed (`iov_iter_extract_pages`). User
    /// memory is faulted in. Consecutive BVEC elements that meet at page boundaries are listed in one call.
    pub fn extract_pages(&mut self, maxsize: usize, maxpages: usize) -> Result<PageSpan> {
        let nbytes = maxsize.min(self.count).min(MAX_RW_COUNT);
        if nbytes == 0 || maxpages == 0 {
            return Ok(PageSpan::default());
        }
        if self.kind().is_destination_only() {
            return Err(self.no_pages("extract_pages"));
        }
        self.list_pages(nbytes, maxpages, true)
    }

    fn no_pages(&self, operation: &str) -> Error {
        Error::os(libc::EFAULT, format!("{operation}: an iterator of kind {} has no pages to list", self.kind()))
    }

    fn list_pages(&mut self, nbytes: usize, maxpages: usize, join_elements: bool) -> Result<PageSpan> {
        let joins = self.body.has_changing_pages() || (join_elements && self.kind().is_paged());
        let (mut span, mut result) = (PageSpan::default(), Ok(()));
        self.pieces(nbytes, |piece| {
            let is_first = span.pages.is_empty();
            let meets = piece.at % PAGE_SIZE == 0 && (span.offset0 + span.nbytes).is_multiple_of(PAGE_SIZE);
            let goes_on = joins && meets && span.pages.len() < maxpages;
            if !(is_first || goes_on) {
                return ControlFlow::Break(());
            }
            if is_first {
                span.offset0 = piece.at % PAGE_SIZE;
            }
            match piece.list(maxpages - span.pages.len(), &mut span.pages) {
                Ok(listed) => span.nbytes += listed,
                Err(error) => result = Err(error),
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        result?;
        if self.is_user_backed() {
            self.fault_in_span(&mut span)?;
        }
        self.advance(span.nbytes)?;
        Ok(span)
    }

    /// Faults in a span of user memory and truncates it before the first page that cannot be faulted in; EFAULT if that
    /// is the span's first page.
    fn fault_in_span(&self, span: &mut PageSpan) -> Result<()> {
        let write = self.direction == Direction::Dest;
        let whole = Segment::new(span.pages[0], span.pages.len() * PAGE_SIZE);
        let good = shelter::fault_in(whole, write) / PAGE_SIZE;
        if good == 0 {
            let first = span.pages[0];
            return Err(Error::os(libc::EFAULT, format!("the page at {first:#x} cannot be faulted in")));
        }
        span.pages.truncate(good);
        span.nbytes = span.nbytes.min(good * PAGE_SIZE - span.offset0);
        Ok(())
    }

    /// Faults in the next `nbytes` bytes of user memory for reading or writing; returns how many of them could **not**
    /// be faulted in (`fault_in_iov_iter_readable`, `fault_in_iov_iter_writeable`), among them those beyond `count`.
    /// For the other kinds it does nothing and returns 0.
    pub fn fault_in(&self, nbytes: usize, write: bool) -> usize {
        if !self.is_user_backed() {
            return 0;
        }
        let mut left = nbytes;
        self.pieces(nbytes.min(self.count), |piece| {
            let good = shelter::fault_in(piece.seg, write);
            left -= good;
            if good == piece.seg.len { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        left
    }
}
