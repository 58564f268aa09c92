//! Pages under the next bytes: counting them, listing them, faulting them in, and whether they may be written to.

use super::IovIter;
use crate::abi::{Direction, Kind, MAX_RW_COUNT, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::fault::shelter;
use crate::memory::Segment;
use std::ops::ControlFlow;

/// Pages under the next bytes of an iterator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PageSpan {
    /// The address of each page.
    pub pages: Vec<usize>,
    /// Where in the first page the first byte is.
    pub offset0: usize,
    /// How many bytes.
    pub nbytes: usize,
}

impl IovIter {
    /// Refuses a destination with a read-only page under the next `nbytes` bytes; pages are counted from here. The
    /// other kinds were looked at when they were made.
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

    /// How many pages the pieces touch, at most `maxpages` (`iov_iter_npages`). A page that two pieces share counts
    /// twice.
    pub fn npages(&self, maxpages: usize) -> usize {
        if self.count == 0 {
            return 0;
        }
        let pages = if let Some(pipe) = self.body.as_pipe() {
            pipe.0.free_slots().0
        } else if let Some(place) = self.body.place(self.offset) {
            // A hole or the end of the queue is found when the pages are listed.
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

    /// An empty BVEC element inside a page counts as one page.
    fn empty_pages(&self) -> usize {
        let Some(vector) = self.body.as_vector().filter(|vector| vector.kind() == Kind::Bvec) else { return 0 };
        let is_empty_inside_a_page = |(seg, at): &(Segment, usize)| seg.len == 0 && at % PAGE_SIZE != 0;
        vector.clipped(self.offset, self.count).filter(is_empty_inside_a_page).count()
    }

    /// The pages under the next bytes, made part of the caller's world: user memory is faulted in, a pipe grows; the
    /// iterator moves on by what is listed (`iov_iter_get_pages2`).
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

    /// The pages under the next bytes, listed without taking them; the iterator moves on (`iov_iter_extract_pages`).
    /// User memory is faulted in. Consecutive BVEC elements that meet at page boundaries are listed together.
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

    /// Cuts a span of user memory to the pages that can be had; EFAULT if not even the first can.
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

    /// Faults in the next `nbytes` bytes of user memory, to read or to write; how many of them could **not** be
    /// (`fault_in_iov_iter_readable`, `..._writeable`). Those beyond `count` cannot. Other memory always is: 0.
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
