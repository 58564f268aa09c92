//! The remaining memory, piece by piece: its addresses, and whether it shares bytes with other memory. No function here
//! moves the iterator.

use super::IovIter;
use crate::abi::PAGE_SIZE;
use crate::error::{Error, Result};
use crate::memory::{Page, Segment};
use std::ops::ControlFlow;

/// A non-empty, contiguous part of the remaining memory.
#[derive(Clone, Copy)]
pub struct Piece<'a> {
    /// Its address range.
    pub seg: Segment,
    /// The position of its first byte in the page or folio that the kind keeps it in; for kinds without such pages, its
    /// address.
    pub at: usize,
    /// The page or folio that it is part of, for XARRAY and FOLIOQ.
    pub page: Option<&'a Page>,
}

/// A [`Piece`] that may be used after the walk that found it, since it keeps its page alive.
pub struct KeptPiece {
    /// Its address range.
    pub seg: Segment,
    /// The page or folio that it is part of. For kinds without, the owner of the iterator keeps the memory alive.
    pub page: Option<Page>,
}

/// A list of pieces. A failed allocation is an error.
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
    pub(super) fn of_page(page: &'a Page, offset: usize) -> Self {
        Self { seg: page.seg().skip(offset), at: offset, page: Some(page) }
    }

    pub(super) fn npages(&self) -> usize {
        (self.at % PAGE_SIZE + self.seg.len).div_ceil(PAGE_SIZE)
    }

    /// Appends the addresses of its pages, at most `maxpages`, to `pages`; returns how many of its bytes those pages
    /// hold.
    pub(super) fn list(self, maxpages: usize, pages: &mut Vec<usize>) -> Result<usize> {
        let offset0 = self.at % PAGE_SIZE;
        let npages = self.npages().min(maxpages);
        pages.try_reserve(npages).map_err(|_| Error::NoMemory(npages * size_of::<usize>()))?;
        let first = self.seg.addr.wrapping_sub(offset0);
        pages.extend((0..npages).map(|page| first + page * PAGE_SIZE));
        Ok(self.seg.len.min((npages * PAGE_SIZE).saturating_sub(offset0)))
    }
}

impl IovIter {
    /// Calls `each` with the next `limit` bytes, piece by piece, in order and without empty pieces. A piece is a
    /// segment, a page of an XArray (up to the first hole) or a folio. PIPE and DISCARD have no pieces. `limit` may
    /// exceed `count`.
    pub fn pieces(&self, limit: usize, mut each: impl FnMut(Piece<'_>) -> ControlFlow<()>) {
        let mut left = limit;
        let hand_out = |piece: Piece<'_>| {
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
        self.body.pieces(self.offset, limit, hand_out);
    }

    /// The first `most` pieces of the next `nbytes` bytes. They remain usable after the iterator has moved.
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

    /// The ranges that the kernel's `iov_iter_for_each_range` hands to its callback: those of the next `nbytes` bytes,
    /// not clipped to `count`, and split at page boundaries for the kinds that [go page by
    /// page](crate::abi::Kind::is_paged).
    pub fn callback_ranges(&self, nbytes: usize) -> Result<Vec<KeptPiece>> {
        if nbytes == 0 {
            return Ok(Vec::new());
        }
        let kind = self.kind();
        if self.body.as_pipe().is_some() {
            return Err(Error::Unsupported { operation: "for_each_range", kind });
        }
        if kind.is_user_backed() || kind.is_destination_only() {
            return Err(Error::os(libc::EINVAL, format!("for_each_range: not over an iterator of kind {kind}")));
        }
        let paged = kind.is_paged();
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

    /// Whether the next `nbytes` bytes share a byte with `flat`.
    #[inline(always)]
    #[allow(clippy::inline_always)] // two comparisons for most kinds
    pub fn overlaps(&self, flat: Segment, nbytes: usize) -> bool {
        if let Some(range) = self.one_range() {
            return range.take(nbytes).overlaps(flat);
        }
        self.hull().is_none_or(|hull| hull.overlaps(flat)) && self.a_piece_overlaps(flat, nbytes)
    }

    #[inline(never)]
    fn a_piece_overlaps(&self, flat: Segment, nbytes: usize) -> bool {
        if let Some(pipe) = self.body.as_pipe() {
            return pipe.0.overlapping_page().is_some_and(|page| page.overlaps(flat));
        }
        let mut shared = false;
        self.pieces(nbytes.min(self.count), |piece| {
            shared = piece.seg.overlaps(flat);
            if shared { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        shared
    }

    /// A range that covers all of its memory, for the kinds that know one without a search.
    #[inline]
    pub fn hull(&self) -> Option<Segment> {
        self.body.hull()
    }

    /// The next chunk of a walk over `nbytes` bytes. It remains usable after the iterator has moved. `None` where the
    /// walk ends.
    pub fn next_chunk(&self, nbytes: usize) -> Option<KeptPiece> {
        let paged = self.kind().is_paged();
        let mut chunk = None;
        self.pieces(nbytes.min(self.count), |piece| {
            let most = if paged { PAGE_SIZE - piece.at % PAGE_SIZE } else { usize::MAX };
            chunk = Some(KeptPiece { seg: piece.seg.take(most), page: piece.page.cloned() });
            ControlFlow::Break(())
        });
        chunk
    }

    /// The rest of the current segment (`iter_iov_addr`, `iter_iov_len`), XArray page or folio, clipped to `count`. It
    /// is empty where the position is at the end of a segment. `None` at the end, at a hole, and for PIPE and DISCARD.
    pub fn segment(&self) -> Option<Segment> {
        if self.count == 0 {
            return None;
        }
        if let Some(vector) = self.body.as_vector() {
            return vector.clipped(self.offset, self.count).next().map(|(seg, _)| seg);
        }
        let mut first = None;
        self.pieces(self.count, |piece| {
            first = Some(piece.seg);
            ControlFlow::Break(())
        });
        first
    }
}
