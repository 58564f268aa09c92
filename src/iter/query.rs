//! Questions about what remains: ranges, alignment, pages. None of them moves the iterator but the page getters.

use super::{Body, IovIter};
use crate::abi::{Direction, Kind, MAX_RW_COUNT, PAGE_SIZE};
use crate::error::{Error, Result};
use crate::memory::{Page, Segment};
use crate::sys::memory;
use std::ops::ControlFlow;

/// What [`IovIter::gap_alignment`] answers for kinds it has no meaning for.
pub(super) const NO_GAPS: u32 = u32::MAX;

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

/// A non-empty stretch of what remains.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// Where it is.
    pub seg: Segment,
    /// Its first byte's position in the page it belongs to, or its address where there are no pages but the hardware's.
    pub at: usize,
    /// The page or folio it is in, where memory comes in such.
    pub page: Option<&'a Page>,
}

/// A [`Piece`] that outlives the walk it comes from: it holds its page.
pub struct KeptPiece {
    /// Where it is.
    pub seg: Segment,
    /// The page or folio it is in; the iterator's owner keeps it otherwise.
    pub page: Option<Page>,
}

/// Collects pieces, as far as memory goes.
#[derive(Default)]
struct Kept(Vec<KeptPiece>);

impl Kept {
    fn add(&mut self, seg: Segment, page: Option<&Page>) -> Result<()> {
        self.0.try_reserve(1).map_err(|_| Error::NoMemory(self.0.len() * size_of::<KeptPiece>()))?;
        self.0.push(KeptPiece { seg, page: page.cloned() });
        Ok(())
    }
}

impl<'a> Piece<'a> {
    fn of_page(page: &'a Page, offset: usize) -> Self {
        Self { seg: page.seg().skip(offset), at: offset, page: Some(page) }
    }

    fn npages(&self) -> usize {
        (self.at % PAGE_SIZE + self.seg.len).div_ceil(PAGE_SIZE)
    }

    /// The pages it lies in, by address, at most `maxpages`, added to `pages`; the bytes on them.
    fn list(self, maxpages: usize, pages: &mut Vec<usize>) -> Result<usize> {
        let offset0 = self.at % PAGE_SIZE;
        let npages = self.npages().min(maxpages);
        pages.try_reserve(npages).map_err(|_| Error::NoMemory(npages * size_of::<usize>()))?;
        let first = self.seg.addr.wrapping_sub(offset0);
        pages.extend((0..npages).map(|page| first + page * PAGE_SIZE));
        Ok(self.seg.len.min((npages * PAGE_SIZE).saturating_sub(offset0)))
    }
}

impl IovIter {
    /// Hands out what remains, at most `limit` bytes of it, in order and without empty pieces: a segment each, a page of an
    /// XArray up to the first hole, a folio. PIPE and DISCARD have none.
    pub fn pieces(&self, limit: usize, mut each: impl FnMut(Piece<'_>) -> ControlFlow<()>) {
        let mut left = limit;
        let mut hand_out = |piece: Piece<'_>| {
            let seg = piece.seg.take(left);
            left -= seg.len;
            if seg.len != 0 && each(Piece { seg, ..piece }).is_break() {
                left = 0;
            }
            left != 0
        };
        if limit == 0 {
            return;
        }
        match &self.body {
            Body::Ubuf(memory) => {
                let seg = memory.seg().skip(self.offset);
                hand_out(Piece { seg, at: seg.addr, page: None });
            }
            Body::Vector(vector) => {
                let mut skip = self.offset;
                for (seg, at) in vector.rest() {
                    if !hand_out(Piece { seg: seg.skip(skip), at: at.wrapping_add(skip), page: None }) {
                        break;
                    }
                    skip = 0;
                }
            }
            Body::Xarray(xarray) => {
                xarray.pages(self.offset, limit, |page, skip| hand_out(Piece::of_page(page, skip)));
            }
            Body::Folioq(folioq) => folioq.folios(self.offset, |folio, skip| hand_out(Piece::of_page(folio, skip))),
            Body::Pipe(_) | Body::Discard => {}
        }
    }

    /// The first `most` of the pieces of the next `nbytes`, to be used when the iterator has moved on.
    pub fn kept_pieces(&self, nbytes: usize, most: usize) -> Result<Vec<KeptPiece>> {
        let (mut kept, mut result) = (Kept::default(), Ok(()));
        if most > 0 {
            self.pieces(nbytes.min(self.count), |piece| {
                result = kept.add(piece.seg, piece.page);
                if result.is_ok() && kept.0.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        result.map(|()| kept.0)
    }

    /// Whether any of the next `nbytes` bytes shares a byte with `flat`.
    #[inline(always)]
    #[allow(clippy::inline_always)] // no more than two comparisons for most kinds
    pub fn overlaps(&self, flat: Segment, nbytes: usize) -> bool {
        match &self.body {
            Body::Ubuf(memory) => memory.seg().skip(self.offset).take(nbytes).overlaps(flat),
            Body::Vector(vector) => vector.hull().overlaps(flat) && self.a_piece_overlaps(flat, nbytes),
            _ => self.a_page_overlaps(flat, nbytes),
        }
    }

    #[inline(never)]
    fn a_page_overlaps(&self, flat: Segment, nbytes: usize) -> bool {
        match &self.body {
            Body::Pipe(pipe) => pipe.0.overlapping_page().is_some_and(|page| page.overlaps(flat)),
            Body::Discard => false,
            _ => self.a_piece_overlaps(flat, nbytes),
        }
    }

    #[inline(never)]
    fn a_piece_overlaps(&self, flat: Segment, nbytes: usize) -> bool {
        let mut shared = false;
        self.pieces(nbytes.min(self.count), |piece| {
            shared = piece.seg.overlaps(flat);
            if shared { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        shared
    }

    /// A range that covers all of its memory, where that is known for nothing.
    #[inline]
    pub fn hull(&self) -> Option<Segment> {
        match &self.body {
            Body::Ubuf(memory) => Some(memory.seg()),
            Body::Vector(vector) => Some(vector.hull()),
            _ => None,
        }
    }

    /// Refuses a destination with a read-only page under the next `nbytes` bytes; pages are counted from here. The other kinds
    /// were looked at when they were made.
    #[inline]
    pub fn require_writable(&self, nbytes: usize) -> Result<()> {
        if matches!(self.body, Body::Xarray(_) | Body::Folioq(_)) {
            self.require_writable_pages(nbytes)
        } else {
            Ok(())
        }
    }

    fn require_writable_pages(&self, nbytes: usize) -> Result<()> {
        let mut left = nbytes.min(self.count);
        let mut refused = None;
        let mut index = 0;
        let mut check = |page: &Page, skip: usize| {
            if left > 0 && !page.writable() {
                refused = Some(index);
            }
            index += 1;
            left = left.saturating_sub(page.seg().len - skip);
            left > 0 && refused.is_none()
        };
        let what = match &self.body {
            Body::Xarray(xarray) => {
                xarray.pages(self.offset, nbytes.min(self.count), &mut check);
                "page"
            }
            Body::Folioq(folioq) if self.count > 0 => {
                folioq.folios(self.offset, &mut check);
                "folio"
            }
            _ => return Ok(()),
        };
        refused.map_or(Ok(()), |index| Err(Error::ReadOnly { what, index }))
    }

    /// The bytes before the end of the current segment (`iov_iter_single_seg_count`). May be 0 with more to come.
    pub fn single_seg_count(&self) -> usize {
        match &self.body {
            Body::Vector(vector) if vector.nr_segs() > 1 => {
                vector.rest().next().map_or(0, |(seg, _)| self.count.min(seg.len - self.offset))
            }
            Body::Folioq(folioq) if self.count > 0 => self.count.min(folioq.current_size()),
            _ => self.count,
        }
    }

    /// The OR of every address and length that would be transferred (`iov_iter_alignment`). BVEC counts offsets in pages for
    /// addresses, XARRAY and FOLIOQ their position.
    pub fn alignment(&self) -> usize {
        match &self.body {
            Body::Ubuf(memory) if self.count > 0 => (memory.seg().addr + self.offset) | self.count,
            Body::Vector(vector) => {
                let skip_empty = vector.kind() != Kind::Bvec;
                let (mut result, mut left, mut skip) = (0, self.count, self.offset);
                for (seg, at) in vector.rest() {
                    let len = seg.len - skip;
                    if len != 0 || !skip_empty {
                        result |= at.wrapping_add(skip) | len.min(left);
                        left -= len.min(left);
                    }
                    skip = 0;
                    if left == 0 {
                        break;
                    }
                }
                result
            }
            Body::Xarray(xarray) => xarray.start.wrapping_add(self.offset) | self.count,
            Body::Folioq(_) => self.offset | self.count,
            Body::Pipe(pipe) if self.count > 0 => self.count | pipe.0.free_slots().1,
            _ => 0,
        }
    }

    /// Whether no piece's address has a bit of `addr_mask` and no length one of `len_mask` (`iov_iter_is_aligned`).
    pub fn is_aligned(&self, addr_mask: usize, len_mask: usize) -> bool {
        let fits = |at: usize, len: usize| at & addr_mask == 0 && len & len_mask == 0;
        match &self.body {
            Body::Ubuf(memory) => fits(memory.seg().addr + self.offset, self.count),
            Body::Vector(vector) => {
                let (mut left, mut skip) = (self.count, self.offset);
                for (seg, at) in vector.rest() {
                    let len = (seg.len - skip).min(left);
                    if !fits(at.wrapping_add(skip), len) {
                        return false;
                    }
                    left -= len;
                    skip = 0;
                    if left == 0 {
                        break;
                    }
                }
                true
            }
            Body::Xarray(xarray) => fits(xarray.start.wrapping_add(self.offset), self.count),
            Body::Folioq(_) => fits(self.offset, self.count),
            Body::Pipe(pipe) => self.count == 0 || fits(pipe.0.free_slots().1, self.count),
            Body::Discard => true,
        }
    }

    /// The OR of all inner boundaries of an IOVEC: 0 when its segments join without gaps (`iov_iter_gap_alignment`).
    /// Whole segments count, wherever the position is. UBUF: 0; other kinds: [`NO_GAPS`].
    pub fn gap_alignment(&self) -> usize {
        let vector = match &self.body {
            Body::Ubuf(_) => return 0,
            Body::Vector(vector) if vector.kind() == Kind::Iovec => vector,
            _ => return NO_GAPS as usize,
        };
        let (mut result, mut left, mut previous) = (0, self.count, None);
        for (seg, _) in vector.rest().filter(|(seg, _)| seg.len != 0) {
            if let Some(end) = previous {
                result |= seg.addr | end;
            }
            previous = Some(seg.end());
            if left <= seg.len {
                break;
            }
            left -= seg.len;
        }
        result
    }

    /// How many pages the pieces touch, at most `maxpages` (`iov_iter_npages`). A page that two pieces share counts twice.
    pub fn npages(&self, maxpages: usize) -> usize {
        if self.count == 0 {
            return 0;
        }
        let pages = match &self.body {
            Body::Discard => 0,
            Body::Pipe(pipe) => pipe.0.free_slots().0,
            // Their pages are counted by position: a hole or the end of the queue is found when they are listed.
            Body::Xarray(xarray) => ((xarray.start + self.offset) % PAGE_SIZE + self.count).div_ceil(PAGE_SIZE),
            Body::Folioq(_) => (self.offset % PAGE_SIZE + self.count).div_ceil(PAGE_SIZE),
            Body::Ubuf(_) | Body::Vector(_) => {
                let mut pages = self.empty_pages();
                self.pieces(self.count, |piece| {
                    pages += piece.npages();
                    if pages < maxpages { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                });
                pages
            }
        };
        pages.min(maxpages)
    }

    /// An empty BVEC element inside a page counts as one page.
    fn empty_pages(&self) -> usize {
        let Body::Vector(vector) = &self.body else { return 0 };
        if vector.kind() != Kind::Bvec {
            return 0;
        }
        let (mut left, mut skip, mut pages) = (self.count, self.offset, 0);
        for (seg, at) in vector.rest() {
            if left == 0 {
                break;
            }
            let len = (seg.len - skip).min(left);
            pages += usize::from(len == 0 && (at + skip) % PAGE_SIZE != 0);
            left -= len;
            skip = 0;
        }
        pages
    }

    /// The pages under the next bytes, made part of the caller's world: user memory is faulted in, a pipe grows; the iterator
    /// moves on by what is listed (`iov_iter_get_pages2`).
    pub fn get_pages(&mut self, maxsize: usize, maxpages: usize) -> Result<PageSpan> {
        let nbytes = maxsize.min(self.count).min(MAX_RW_COUNT);
        if nbytes == 0 || maxpages == 0 {
            return Ok(PageSpan::default());
        }
        if let Body::Pipe(pipe) = &mut self.body {
            let (pages, offset0, nbytes) = pipe.extend(nbytes, maxpages)?;
            if nbytes == 0 {
                return Err(Error::os(libc::EFAULT, "get_pages: the pipe is full"));
            }
            self.count -= nbytes;
            return Ok(PageSpan { pages, offset0, nbytes });
        }
        match self.kind() {
            Kind::Kvec | Kind::Discard => Err(self.no_pages("get_pages")),
            _ => self.list_pages(nbytes, maxpages, false),
        }
    }

    /// The pages under the next bytes, listed without taking them; the iterator moves on (`iov_iter_extract_pages`). User
    /// memory is faulted in. Consecutive BVEC elements that meet at page boundaries are listed together.
    pub fn extract_pages(&mut self, maxsize: usize, maxpages: usize) -> Result<PageSpan> {
        let nbytes = maxsize.min(self.count).min(MAX_RW_COUNT);
        if nbytes == 0 || maxpages == 0 {
            return Ok(PageSpan::default());
        }
        match self.kind() {
            Kind::Pipe | Kind::Discard => Err(self.no_pages("extract_pages")),
            _ => self.list_pages(nbytes, maxpages, true),
        }
    }

    fn no_pages(&self, operation: &str) -> Error {
        Error::os(libc::EFAULT, format!("{operation}: a {} iterator has no pages to list", self.kind()))
    }

    fn list_pages(&mut self, nbytes: usize, maxpages: usize, join_elements: bool) -> Result<PageSpan> {
        let joins = match self.kind() {
            Kind::Xarray | Kind::Folioq => true,
            Kind::Bvec => join_elements,
            _ => false,
        };
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
        let good = memory::fault_in(whole, write) / PAGE_SIZE;
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
            let good = memory::fault_in(piece.seg, write);
            left -= good;
            if good == piece.seg.len { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        left
    }

    /// The pieces of kernel-backed memory that `iov_iter_for_each_range` hands to its callback, with what keeps them if the iterator does
    /// not: at most a page each where there are pages, not clipped to `count`.
    pub fn callback_ranges(&self, nbytes: usize) -> Result<Vec<KeptPiece>> {
        if nbytes == 0 {
            return Ok(Vec::new());
        }
        match self.kind() {
            Kind::Ubuf | Kind::Iovec | Kind::Discard => {
                return Err(Error::os(libc::EINVAL, format!("for_each_range: not over a {} iterator", self.kind())));
            }
            Kind::Pipe => return Err(Error::Unsupported { operation: "for_each_range", kind: Kind::Pipe }),
            _ => {}
        }
        let paged = self.kind() != Kind::Kvec;
        let (mut ranges, mut available, mut result) = (Kept::default(), 0, Ok(()));
        self.pieces(nbytes, |piece| {
            available += piece.seg.len;
            let (mut rest, mut at) = (piece.seg, piece.at);
            while rest.len != 0 && result.is_ok() {
                let part = if paged { rest.take(PAGE_SIZE - at % PAGE_SIZE) } else { rest };
                result = ranges.add(part, piece.page);
                rest = rest.skip(part.len);
                at += part.len;
            }
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        result?;
        if available < nbytes {
            return Err(Error::BeyondSegments { count: nbytes, available });
        }
        Ok(ranges.0)
    }
}
