//! How what remains is aligned, and where the current segment ends.

use super::IovIter;
use crate::abi::Kind;

/// What [`IovIter::gap_alignment`] answers for kinds it has no meaning for.
pub(super) const NO_GAPS: u32 = u32::MAX;

impl IovIter {
    /// The bytes before the end of the current segment (`iov_iter_single_seg_count`). May be 0 with more to come.
    pub fn single_seg_count(&self) -> usize {
        self.body.current_segment(self.offset).map_or(self.count, |left| self.count.min(left))
    }

    /// The OR of every address and length that would be transferred (`iov_iter_alignment`). BVEC counts offsets in
    /// pages for addresses, XARRAY and FOLIOQ their position, which counts also where nothing is left to transfer.
    pub fn alignment(&self) -> usize {
        if let Some(vector) = self.body.as_vector() {
            // An empty BVEC element counts with its offset. The current segment counts even if nothing of it is left to
            // transfer, as long as it has bytes.
            let counts_empty =
                vector.kind() == Kind::Bvec || (self.count == 0 && vector.left_of_current(self.offset) != 0);
            let pieces = vector.clipped(self.offset, self.count).filter(|(seg, _)| seg.len != 0 || counts_empty);
            return pieces.fold(0, |bits, (seg, at)| bits | at | seg.len);
        }
        match self.body.place(self.offset) {
            Some(place) if self.count > 0 || self.body.has_changing_pages() => place | self.count,
            Some(_) | None => 0,
        }
    }

    /// Whether no piece's address has a bit of `addr_mask` and no length one of `len_mask` (`iov_iter_is_aligned`).
    pub fn is_aligned(&self, addr_mask: usize, len_mask: usize) -> bool {
        let fits = |at: usize, len: usize| at & addr_mask == 0 && len & len_mask == 0;
        if let Some(vector) = self.body.as_vector() {
            return vector.clipped(self.offset, self.count).all(|(seg, at)| fits(at, seg.len));
        }
        let is_finished_pipe = self.body.as_pipe().is_some() && self.count == 0;
        is_finished_pipe || self.body.place(self.offset).is_none_or(|place| fits(place, self.count))
    }

    /// The OR of all inner boundaries of an IOVEC: 0 when its segments join without gaps (`iov_iter_gap_alignment`).
    /// Whole segments count, wherever the position is. UBUF: 0; other kinds: [`NO_GAPS`].
    pub fn gap_alignment(&self) -> usize {
        if !self.is_user_backed() {
            return NO_GAPS as usize;
        }
        let Some(vector) = self.body.as_vector() else { return 0 };
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
}
