//! The alignment of the remaining bytes, the gaps between segments, and where the current segment ends.

use super::IovIter;
use crate::abi::Kind;

/// The answer of [`IovIter::gap_alignment`] for kinds to which the question does not apply.
pub(super) const NO_GAPS: u32 = u32::MAX;

impl IovIter {
    /// The bytes up to the end of the current segment, at most `count` (`iov_iter_single_seg_count`). It is 0 at the
    /// end of a segment, although bytes may remain in later ones. FOLIOQ counts the whole current folio, as the kernel
    /// does.
    pub fn single_seg_count(&self) -> usize {
        self.body.current_segment(self.offset).map_or(self.count, |left| self.count.min(left))
    }

    /// The OR of every address and length that would be transferred (`iov_iter_alignment`). BVEC contributes offsets in
    /// pages in place of addresses. XARRAY and FOLIOQ contribute their position, even when no bytes remain.
    pub fn alignment(&self) -> usize {
        if let Some(vector) = self.body.as_vector() {
            // As in the kernel, an empty BVEC element contributes its offset, and with a `count` of 0 the current
            // segment still contributes if bytes of it lie ahead.
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

    /// Whether no piece has a bit of `addr_mask` set in its address or a bit of `len_mask` in its length
    /// (`iov_iter_is_aligned`).
    pub fn is_aligned(&self, addr_mask: usize, len_mask: usize) -> bool {
        let fits = |at: usize, len: usize| at & addr_mask == 0 && len & len_mask == 0;
        if let Some(vector) = self.body.as_vector() {
            return vector.clipped(self.offset, self.count).all(|(seg, at)| fits(at, seg.len));
        }
        let is_finished_pipe = self.body.as_pipe().is_some() && self.count == 0;
        is_finished_pipe || self.body.place(self.offset).is_none_or(|place| fits(place, self.count))
    }

    /// The OR of the end and start addresses at the boundaries between the segments of an IOVEC
    /// (`iov_iter_gap_alignment`). A device that needs segments to meet at multiples of 2^n can take those whose answer
    /// has the low n bits clear. Segments count as wholes, wherever in the current one the position is. UBUF has no
    /// boundaries: 0. Other kinds: [`NO_GAPS`].
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
