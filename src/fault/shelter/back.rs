//! The way back: pages that were kept aside go over their zeroes, and over nothing else.

use super::extents::Extent;
use super::pieces::{Piece, Pieces};
use super::{ballast, gone};
use crate::fault::threads;
use crate::memory::Segment;
use crate::sys::remap;

/// Puts back the pages of an extent that is being taken out of the table, where its zeroes are still there: `behind` is
/// where the next extent begins. If it is not known where they are, everywhere if `is_pinned`: nobody can have unmapped
/// the memory. Returns how many bytes stay zeroes.
pub(super) fn put_back(extent: &Extent, behind: usize, is_pinned: bool, pieces: &mut Pieces<'_>) -> usize {
    let mut aside = Aside { extent, until: extent.seg.addr, left: 0 };
    let known = all(&mut aside, behind, pieces);
    if known.is_err() {
        let rest = extent.seg.skip(aside.until - extent.seg.addr);
        if is_pinned {
            aside.put_back(rest, 0, pieces);
        } else if !extent.is_replaced {
            aside.left += rest.len;
        }
    }
    aside.give_up(extent.seg.end());
    // Once they are there: what is read in the new epoch is no zeroes.
    gone::remember(extent, threads::invalidate_all(), pieces.turn());
    aside.left
}

/// Puts back all of an extent, or nothing: it stays in the table then.
pub(super) fn put_back_whole(extent: &Extent, pieces: &mut Pieces<'_>) -> bool {
    let is_whole = |piece: Option<Piece>| piece.is_some_and(|piece| piece.seg == extent.seg);
    if extent.kept == 0 || !pieces.next(extent, extent.seg.addr).is_ok_and(is_whole) {
        return false;
    }
    // SAFETY: kept aside for this extent, which is being taken out of the table; over it there are its zeroes.
    let is_back = unsafe { remap::put_back(extent.kept, extent.seg, extent.seg.len) }.is_ok();
    if is_back {
        gone::remember(extent, threads::invalidate_all(), pieces.turn());
    }
    is_back
}

/// Every part that is known to be there. Not known: an error.
fn all(aside: &mut Aside<'_>, behind: usize, pieces: &mut Pieces<'_>) -> Result<(), i32> {
    let extent = aside.extent;
    let mut found = 0;
    while let Some(Piece { seg, rest }) = pieces.next(extent, aside.until)? {
        // Of a mapping that was made longer in the block (`mremap`) the end is zeroes as well.
        let longer = if seg.end() == extent.seg.end() { rest.min(behind - seg.end()) } else { 0 };
        aside.put_back(seg, longer, pieces);
        found += seg.len;
    }
    if found < extent.seg.len && !extent.is_replaced {
        aside.left += pieces.elsewhere()?;
    }
    Ok(())
}

/// What is kept aside of an extent.
struct Aside<'e> {
    extent: &'e Extent,
    /// What lies before has gone back or was given up.
    until: usize,
    /// Bytes that stay zeroes.
    left: usize,
}

impl Aside<'_> {
    /// A part of the extent that is under its zeroes, and so are `longer` bytes behind it.
    fn put_back(&mut self, seg: Segment, longer: usize, pieces: &Pieces<'_>) {
        self.give_up(seg.addr);
        let kept = self.kept(seg.addr);
        // SAFETY: kept aside for this part of the extent, which is being taken out of the table; over it there are its
        // zeroes, or else something in memory that nobody could have unmapped.
        let put_back = |len: usize| kept != 0 && unsafe { remap::put_back(kept, seg, len) }.is_ok();
        if put_back(seg.len + longer) || ballast::drop(pieces.turn()) && put_back(seg.len + longer) {
            self.until = seg.end();
        } else if longer != 0 && put_back(seg.len) {
            self.until = seg.end();
            self.left += longer;
        } else {
            self.left += seg.len + longer;
        }
        self.give_up(seg.end());
    }

    /// Unmaps what is kept aside for addresses before this one. The addresses of what has gone back may be somebody's
    /// by now.
    fn give_up(&mut self, until: usize) {
        let kept = self.kept(self.until);
        if kept != 0 && self.until < until {
            // SAFETY: kept aside for this extent, and not moved: nobody knows of it any more.
            unsafe { remap::unmap(Segment::new(kept, until - self.until)) };
        }
        self.until = self.until.max(until);
    }

    /// Where the page at an address of the extent is kept aside; 0 if it is not.
    fn kept(&self, address: usize) -> usize {
        if self.extent.kept == 0 { 0 } else { self.extent.kept + (address - self.extent.seg.addr) }
    }
}
