//! How what remains is aligned, and where the current segment ends.

use super::{Body, IovIter};
use crate::abi::Kind;

/// What [`IovIter::gap_alignment`] answers for kinds it has no meaning for.
pub(super) const NO_GAPS: u32 = u32::MAX;

impl IovIter {
    /// The bytes before the end of the current segment (`iov_iter_single_seg_count`). May be 0 with more to come.
    pub fn single_seg_count(&self) -> usize {
        match &self.body {
            Body::Vector(vector) if vector.nr_segs() > 1 => self.count.min(vector.left_of_current(self.offset)),
            Body::Folioq(folioq) if self.count > 0 => self.count.min(folioq.current_size()),
            Body::Ubuf(_) | Body::Vector(_) | Body::Pipe(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => {
                self.count
            }
        }
    }

    /// The OR of every address and length that would be transferred (`iov_iter_alignment`). BVEC counts offsets in
    /// pages for addresses, XARRAY and FOLIOQ their position.
    pub fn alignment(&self) -> usize {
        match &self.body {
            Body::Ubuf(memory) if self.count > 0 => (memory.seg().addr + self.offset) | self.count,
            Body::Vector(vector) => {
                // An empty BVEC element counts with its offset. The current segment counts even if nothing of it is
                // left to transfer, as long as it has bytes.
                let counts_empty =
                    vector.kind() == Kind::Bvec || (self.count == 0 && vector.left_of_current(self.offset) != 0);
                let pieces = vector.clipped(self.offset, self.count).filter(|(seg, _)| seg.len != 0 || counts_empty);
                pieces.fold(0, |bits, (seg, at)| bits | at | seg.len)
            }
            Body::Xarray(xarray) => xarray.start.wrapping_add(self.offset) | self.count,
            Body::Folioq(_) => self.offset | self.count,
            Body::Pipe(pipe) if self.count > 0 => self.count | pipe.0.free_slots().1,
            Body::Ubuf(_) | Body::Pipe(_) | Body::Discard => 0,
        }
    }

    /// Whether no piece's address has a bit of `addr_mask` and no length one of `len_mask` (`iov_iter_is_aligned`).
    pub fn is_aligned(&self, addr_mask: usize, len_mask: usize) -> bool {
        let fits = |at: usize, len: usize| at & addr_mask == 0 && len & len_mask == 0;
        match &self.body {
            Body::Ubuf(memory) => fits(memory.seg().addr + self.offset, self.count),
            Body::Vector(vector) => vector.clipped(self.offset, self.count).all(|(seg, at)| fits(at, seg.len)),
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
            Body::Vector(_) | Body::Pipe(_) | Body::Xarray(_) | Body::Folioq(_) | Body::Discard => {
                return NO_GAPS as usize;
            }
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
}
